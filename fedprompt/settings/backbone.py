"""Which CLIP to load."""

from typing import Literal

from fedprompt.settings.section import Place, Section


class BackboneConfig(Section):
    """Name a CLIP as open_clip does."""

    # embedded | embedded-cnn | embedded-cnn-224 | open_clip name | hf-hub:ID | local-dir:PATH
    name: Place = "embedded"
    # open_clip tag or checkpoint file; empty for embedded, hf-hub, local-dir
    pretrained: Place = ""
    quick_gelu: Literal["auto", "on", "off"] = "auto"  # auto follows the pretrained tag
    # how images are prepared: "" = as the tag says, or as all tags of the model say; else a tag
    # of the model, or MODEL/TAG of another
    preprocess: str = ""
    device: str = "auto"  # auto = cuda where there is one, else cpu
