"""Put a checkpoint's tensors into an open_clip model, or say in what they differ."""

from collections.abc import Collection

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import (
    convert_to_custom_text_state_dict,
    resize_pos_embed,
    resize_text_pos_embed,
)
from torch import nn

from fedprompt.backbone.checkpoint_file import Weights, listed
from fedprompt.errors import BackboneError

OPENAI = {"input_resolution", "context_length", "vocab_size"}  # kept by OpenAI's archives alone
_MOST_SCALE = 7  # of a logit scale, as a logarithm: 1097; CLIP is trained up to 100
_RESIZED = "positional_embedding"  # to another number of patches or tokens, as open_clip does


def fit_checkpoint(model: nn.Module, weights: Weights, where: str, name: str) -> None:
    """Load weights into a model as open_clip would: converted, resized, every tensor matched.

    Parameters
    ----------
    model
        Of open_clip, with weights of any kind.
    weights
        Of a file, in any number format.
    where, name
        The file, and the model's name, for errors.

    Raises
    ------
    BackboneError
        Tensors are missing, unknown, of another model's shapes, or no plain numbers.
    """
    wanted = model.state_dict()
    _require_numbers(weights, where)
    found = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
    for key in OPENAI & found.keys():
        del found[key]
    found = _plain_names(found, wanted.keys())
    try:
        found = _converted(model, found, wanted)
    except (KeyError, RuntimeError, ValueError, AttributeError, IndexError) as error:
        raise BackboneError(
            f"{where} is no checkpoint of {name}: {' '.join(str(error).split())[:200]}; set "
            "backbone.name to the model that the weights belong to"
        ) from None
    _require_same(found, wanted, where, name)
    _require_logarithm(found, where)
    model.load_state_dict(found)


def require_finite(model: nn.Module, name: str) -> None:
    """Refuse weights that are not numbers, wherever they come from.

    Raises
    ------
    BackboneError
        Names the first few tensors that hold some.
    """
    broken = [key for key, value in model.state_dict().items() if not _is_finite(value)]
    if broken:
        raise BackboneError(
            f"the weights of {name} hold numbers that are infinite or none in {listed(broken)}; "
            "the file is damaged, or the training that left it diverged: take another"
        )


def _require_numbers(weights: Weights, where: str) -> None:
    """Refuse tensors whose numbers stand somewhere else, or mean something by another tensor."""
    odd = [
        key
        for key, value in weights.items()
        if value.layout != torch.strided or value.is_quantized or value.is_meta
    ]
    if odd:
        raise BackboneError(
            f"{where} holds sparse, quantised or empty tensors: {listed(odd)}; save the weights as "
            "dense float32 or float16"
        )


def _require_logarithm(found: Weights, where: str) -> None:
    """Refuse a scale of the logits that was saved after the exponential function."""
    scale = float(found.get("logit_scale", torch.zeros(())).max())
    if scale > _MOST_SCALE:
        raise BackboneError(
            f"{where} has logit_scale = {scale:.4g}, which CLIP keeps as a logarithm of at most "
            f"{_MOST_SCALE}; save its logarithm"
        )


def _is_finite(value: torch.Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def _plain_names(found: Weights, wanted: Collection[str]) -> Weights:
    """Take off what every name begins with: ``module.`` of a parallel model, and the like."""
    for _ in range(4):
        first = {key.partition(".")[0] for key in found}
        known = any(key in wanted for key in found)
        if known or len(first) != 1 or not all("." in key for key in found):
            return found
        found = {key.partition(".")[2]: value for key, value in found.items()}
    return found


def _converted(model: nn.Module, found: Weights, wanted: Weights) -> Weights:
    """Do what open_clip's own load_checkpoint does before it loads."""
    found = convert_state_dict(model, found)
    if _RESIZED in found and not hasattr(model, _RESIZED):
        found = convert_to_custom_text_state_dict(found)
    for key in ("logit_scale", "logit_bias"):
        if key in found and key in wanted and found[key].numel() == wanted[key].numel():
            found[key] = found[key].reshape(wanted[key].shape)
    if "logit_bias" in wanted and "logit_bias" not in found:
        found["logit_bias"] = torch.zeros_like(wanted["logit_bias"])
    own = dict(model.named_buffers()).keys() - wanted.keys()  # the model makes them itself
    found = {k: v for k, v in found.items() if k not in own and not k.endswith("position_ids")}
    if all(_fits(found, wanted, key) for key in found if not key.endswith(_RESIZED)):
        resize_pos_embed(found, model)
        resize_text_pos_embed(found, model)
    return found


def _fits(found: Weights, wanted: Weights, key: str) -> bool:
    return key not in wanted or found[key].shape == wanted[key].shape


def _require_same(found: Weights, wanted: Weights, where: str, name: str) -> None:
    missing = sorted(wanted.keys() - found.keys())
    unknown = sorted(found.keys() - wanted.keys())
    shaped = [key for key in wanted if key in found and not _fits(found, wanted, key)]
    coded = [
        key
        for key in wanted.keys() & found.keys()
        if wanted[key].is_floating_point() and not found[key].is_floating_point()
    ]
    if not (missing or unknown or shaped or coded):
        return
    parts = []
    if coded:
        kinds = sorted({str(found[key].dtype).removeprefix("torch.") for key in coded})
        parts.append(
            f"{len(coded)} tensors are {listed(kinds)} and no floating-point numbers, such as "
            f"{min(coded)}"
        )
    if shaped:
        key = shaped[0]
        parts.append(
            f"{len(shaped)} tensors have other shapes, such as {key} with "
            f"{list(found[key].shape)} for {list(wanted[key].shape)}"
        )
    if missing:
        parts.append(f"{len(missing)} of {len(wanted)} tensors are missing: {listed(missing)}")
    if unknown:
        parts.append(f"{len(unknown)} are not the model's: {listed(unknown)}")
    another = shaped or len(missing) > len(wanted) // 4
    if below := _places(found, wanted):
        advice = f"The model's tensors stand below {listed(below)}: save those that are meant alone"
    elif another:
        advice = "These are another model's weights: set backbone.name to the model they belong to"
    else:
        advice = "Save the whole model's state dict as floating point, without anything beside it"
    raise BackboneError(f"{where} does not fit {name}: {'; '.join(parts)}. {advice}")


def _places(found: Weights, wanted: Collection[str]) -> list[str]:
    """Return the names under which all of a model's tensors stand in a larger one's."""
    first = next(iter(wanted))
    ends = [key.removesuffix(first) for key in found if key.endswith(f".{first}")]
    return [end for end in ends if all(f"{end}{key}" in found for key in wanted)]
