"""Recipe of the embedded CLIP: from Tiny-ImageNet and PyPI to ``fedprompt/assets``."""
