"""Pack checkpoints into ``fedprompt/assets``, and expand assets into files for open_clip."""

import json
from pathlib import Path

import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor

from fedprompt.backbone.embedded import embedded_config, expanded_state_dict
from tools.embedded_clip.captions import AFTER, BEFORE, NOUNS, PLAIN
from tools.embedded_clip.words import nouns

ASSETS = Path(__file__).parents[2] / "fedprompt/assets"


def learned_tokens() -> Tensor:
    """List the token ids that occur in any caption, in order."""
    tokenizer = SimpleTokenizer()
    texts = [lemma for noun in nouns() for lemma in noun.lemmas]
    texts += [word for table in (BEFORE, AFTER) for words in table.values() for word in words]
    texts += [*PLAIN, *NOUNS, "a photo of a thing, another.", "a photo of a thing."]
    ids = {token for text in texts for token in tokenizer.encode(text)}
    return torch.tensor(sorted(ids | set(tokenizer(["a"])[0].tolist())), dtype=torch.int32)


def half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Round floating tensors to float16."""
    return {
        name: (t.half() if t.is_floating_point() else t).contiguous() for name, t in tensors.items()
    }


def write(tensors: dict[str, Tensor], name: str) -> None:
    """Write an asset in float16, readable by everyone: safetensors alone keeps it to its owner."""
    save_file(half(tensors), ASSETS / f"{name}.safetensors")
    (ASSETS / f"{name}.safetensors").chmod(0o644)


def pack_text(work: Path) -> None:
    """Write the text tower and the projection of the convolutional tower."""
    parts = torch.load(work / "text.pt", weights_only=True)["parts"]
    text = {k[2:]: v for k, v in parts.items() if k.startswith("0.") and ".visual." not in k}
    text = {k: v for k, v in text.items() if not k.startswith("visual.")}
    ids = learned_tokens()
    text["token_ids"], text["token_rows"] = ids, text.pop("token_embedding.weight")[ids.long()]
    text["logit_scale"] = text["logit_scale"].clamp(max=torch.tensor(60.0).log())
    write(text, "embedded-text")
    projection = {"weight": parts["1.weight"], "bias": parts["1.bias"]}
    projection = {f"visual.head.proj.{k}": v for k, v in projection.items()}
    write(projection, "embedded-cnn")


def pack_image(work: Path) -> None:
    """Write the image tower."""
    parts = torch.load(work / "image.pt", weights_only=True)["parts"]
    tower = {f"visual.{k[2:]}": v for k, v in parts.items() if k.startswith("0.")}
    write(tower, "embedded")


def expand(name: str, folder: Path) -> None:
    """Write ``open_clip_config.json`` and ``open_clip_model.safetensors``.

    open_clip reads the folder as ``local-dir:folder``, and the weights alone as ``pretrained``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(embedded_config(name), indent=4)
    (folder / "open_clip_config.json").write_text(config)
    state = {k: v.contiguous() for k, v in expanded_state_dict(name).items()}
    save_file(state, folder / "open_clip_model.safetensors")
