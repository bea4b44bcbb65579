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
        Tensors are missing, unknown, or of another model's shapes.
    """
    wanted = model.state_dict()
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
    if not (missing or unknown or shaped):
        return
    parts = []
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
    raise BackboneError(
        f"{where} does not fit {name}: {'; '.join(parts)}. "
        + (
            "These are another model's weights: set backbone.name to the model they belong to"
            if another
            else "Save the whole model's state dict, without anything beside it"
        )
    )
