"""Say what open_clip's tags know of weights that a file does not: preprocessing and activation.

A checkpoint file holds tensors only. How images were prepared for them, and which GELU they were
trained with, is stated by the tag they were published under, or by the ``open_clip_config.json``
beside them. What neither states is asked for; it is never guessed without a word.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip

from fedprompt.data.preprocess import OPENAI_MEAN, OPENAI_STD, Preprocessing
from fedprompt.errors import BackboneError, DataError
from fedprompt.settings.backbone import BackboneConfig

HUB, LOCAL = "hf-hub:", "local-dir:"  # these bring their own weights
_CONFIG = "open_clip_config.json"  # beside the weights of a hub or local folder
_UNSTATED = {  # what open_clip takes for a key that a tag or configuration leaves out
    "mean": OPENAI_MEAN,
    "std": OPENAI_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
_log = logging.getLogger(__name__)


def stated_preprocessing(config: BackboneConfig, settings: Mapping[str, Any]) -> Preprocessing:
    """Return how images are prepared for the weights that a configuration names.

    Parameters
    ----------
    config
        ``preprocess`` decides when it is set; else the tag, the model's only one, or the
        ``open_clip_config.json`` of a folder.
    settings
        Of the loaded model, as `open_clip.get_model_preprocess_cfg` gives them.

    Raises
    ------
    BackboneError
        Nothing says how images are prepared, or ``preprocess`` names no tag.
    """
    if config.preprocess:
        return preprocessing({**settings, **_of_tag(config)})
    if config.name.startswith((HUB, LOCAL)):
        _check_stated(config)
        return preprocessing(settings)
    if open_clip.get_pretrained_cfg(config.name, config.pretrained):
        return preprocessing(settings)
    return preprocessing({**settings, **_only_one(config)})


def preprocessing(settings: Mapping[str, Any]) -> Preprocessing:
    """Return open_clip's preprocessing settings as fedprompt's.

    Raises
    ------
    BackboneError
        The input is not square, or the settings are of a kind that is not known here.
    """
    size = settings.get("size", 224)
    sides = {int(side) for side in (size if isinstance(size, tuple | list) else (size,))}
    if len(sides) != 1:
        raise BackboneError(f"input size {size} is not square; choose another backbone")
    try:
        return Preprocessing(
            size=sides.pop(),
            mean=tuple(settings["mean"]),
            std=tuple(settings["std"]),
            interpolation=settings.get("interpolation", "bicubic"),
            resize_mode=settings.get("resize_mode", "shortest"),
            fill=int(settings.get("fill_color", 0)),
        )
    except DataError as error:
        raise BackboneError(f"this backbone's preprocessing cannot be used: {error}") from None


def agreed_preprocessing(config: BackboneConfig) -> str:
    """Return the ``preprocess`` that a site needs whose weights lie in a file: the server's tag."""
    is_tag = bool(open_clip.get_pretrained_cfg(config.name, config.pretrained))
    return config.preprocess or (config.pretrained if is_tag else "")


def activation(config: BackboneConfig, *, is_openai: bool = False) -> dict[str, bool]:
    """Return open_clip's argument that switches QuickGELU, or none to keep the model's own.

    OpenAI's weights need it: their tags say so, and their archives are known by what they hold
    (``is_openai``). Another file follows the tags of its model when they agree.
    """
    if config.quick_gelu != "auto":
        return {"quick_gelu": config.quick_gelu == "on"}
    if is_openai:
        return {"quick_gelu": True}
    tag = open_clip.get_pretrained_cfg(config.name, config.pretrained)
    known = [tag] if tag else list(_tags(config.name).values())
    wanted = {bool(one.get("quick_gelu", False)) for one in known}
    if len(wanted) > 1:
        _log.warning(
            "%s is a file, so nothing says which activation it was trained with: %s takes GELU as "
            "its own configuration says; for OpenAI's weights set backbone.quick_gelu = on",
            config.pretrained,
            config.name,
        )
    return {"quick_gelu": True} if wanted == {True} else {}


def _of_tag(config: BackboneConfig) -> dict[str, Any]:
    """Return the preprocessing of the tag, or of the ``MODEL/TAG``, that ``preprocess`` names."""
    model, _, tag = config.preprocess.rpartition("/")
    found = open_clip.get_pretrained_cfg(model or config.name, tag)
    if not found:
        known = ", ".join(_tags(config.name)) or f"none for {config.name}"
        raise BackboneError(
            f"backbone.preprocess = {config.preprocess!r} is no tag; expected a tag of this model "
            f"({known}) or MODEL/TAG of another, such as ViT-B-32/openai"
        )
    return _preparation(found)


def _only_one(config: BackboneConfig) -> dict[str, Any]:
    """Return the preprocessing that all tags of a model share."""
    kinds: dict[str, list[str]] = {}
    for tag, found in _tags(config.name).items():
        kinds.setdefault(json.dumps(_preparation(found), sort_keys=True), []).append(tag)
    if len(kinds) == 1:
        return dict(json.loads(next(iter(kinds))))
    known = "; ".join(f"{_described(kind)}: {', '.join(tags)}" for kind, tags in kinds.items())
    found_tags = f"its tags differ ({known})" if kinds else "open_clip has no tag of it"
    raise BackboneError(
        f"{config.pretrained} is a file, which does not say how images are prepared for "
        f"{config.name}, and {found_tags}; set backbone.preprocess to the tag whose preprocessing "
        "the weights were trained with, or to MODEL/TAG of another model, such as ViT-B-32/openai"
    )


def _described(kind: str) -> str:
    values = json.loads(kind)
    mean = ", ".join(f"{value:.3g}" for value in values["mean"])
    return f"mean {mean}, {values['interpolation']}, {values['resize_mode']}"


def _check_stated(config: BackboneConfig) -> None:
    """Check that the configuration beside the weights states mean and standard deviation."""
    if config.name.startswith(LOCAL):
        path = Path(config.name.removeprefix(LOCAL)) / _CONFIG
    else:  # in the cache by now
        name = config.name.removeprefix(HUB)
        path = Path(open_clip.download_pretrained_from_hf(name, filename=_CONFIG))
    stated = json.loads(path.read_text(encoding="utf-8")).get("preprocess_cfg") or {}
    lacking = [key for key in ("mean", "std") if stated.get(key) is None]
    if lacking:
        raise BackboneError(
            f"{config.name}: {_CONFIG} has no {' and no '.join(lacking)} under preprocess_cfg, so "
            "nothing says how images are prepared; write them there, or set backbone.preprocess "
            "to MODEL/TAG of a model that is prepared alike, such as ViT-B-32/openai"
        )


def _preparation(tag: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tag.get(key) or default for key, default in _UNSTATED.items()}


def _tags(model: str) -> dict[str, dict[str, Any]]:
    names = open_clip.list_pretrained_tags_by_model(model)
    return {name: open_clip.get_pretrained_cfg(model, name) for name in names}
