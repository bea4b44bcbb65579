"""Load any open_clip model: by name and tag, from a file, from the hub, or the embedded one."""

import functools
import logging
import threading
import warnings
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.config import BackboneConfig
from fedprompt.backbone.embedded import load_embedded
from fedprompt.backbone.tags import HUB, LOCAL, activation, preprocessing, stated_preprocessing
from fedprompt.errors import BackboneError
from fedprompt.reach import within_reach

EMBEDDED = ("embedded", "embedded-cnn")
_loading = threading.Lock()
_log = logging.getLogger(__name__)


def load_backbone(config: BackboneConfig) -> FrozenClip:
    """Return the frozen CLIP that a configuration names.

    Raises
    ------
    BackboneError
        The name or tag is unknown, the file does not fit, nothing says how its images are
        prepared, or the hub cannot be reached.
    """
    if config.name in EMBEDDED:
        if config.preprocess:
            raise BackboneError(
                f"backbone.preprocess = {config.preprocess!r}, but {config.name} has its own; "
                "leave it empty"
            )
        model, settings = load_embedded(config.name)
        tokenizer = open_clip.get_tokenizer("ViT-B-32")  # open_clip's own vocabulary
        prepared = preprocessing(settings)
    else:
        _check_pretrained(config)
        model, tokenizer = _open_clip_model(config)
        prepared = stated_preprocessing(config, open_clip.get_model_preprocess_cfg(model))
    clip = FrozenClip(
        model,
        tokenizer,
        prepared,
        name=config.name,
        pretrained=config.pretrained,
    )
    return clip.to(_device(config.device))


def shared_backbone(config: BackboneConfig) -> FrozenClip:
    """Return the CLIP of a configuration, loaded once a process and shared by all who ask."""
    with _loading:
        return _kept_backbone(config)


@functools.lru_cache(maxsize=1)
def _kept_backbone(config: BackboneConfig) -> FrozenClip:
    return load_backbone(config)


def _check_pretrained(config: BackboneConfig) -> None:
    """Refuse what open_clip would fill with random weights."""
    if config.name.startswith((HUB, LOCAL)):
        return
    known = open_clip.list_models()
    if config.name not in known:
        raise BackboneError(
            f"backbone {config.name!r} is unknown; expected {', '.join(EMBEDDED)}, hf-hub:ID, "
            "local-dir:PATH or a name of open_clip.list_models() such as ViT-B-16"
        )
    tags = open_clip.list_pretrained_tags_by_model(config.name)
    if not config.pretrained:
        raise BackboneError(
            f"backbone {config.name} has no weights: set backbone.pretrained to a checkpoint file "
            f"or one of {', '.join(tags) or '(no tag is known)'}"
        )
    if config.pretrained not in tags and not Path(config.pretrained).is_file():
        raise BackboneError(
            f"backbone.pretrained = {config.pretrained!r} is neither a file nor a tag of "
            f"{config.name}; tags are {', '.join(tags)}"
        )


def _open_clip_model(config: BackboneConfig) -> tuple[nn.Module, Any]:
    if config.name.startswith("local-dir:") or Path(config.pretrained).is_file():
        return _created(config)
    with within_reach() as why:
        return _created(config, why)


def _created(config: BackboneConfig, unreachable: str = "") -> tuple[nn.Module, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # open_clip's gelu warning is answered by activation
            model = open_clip.create_model(
                config.name,
                pretrained=config.pretrained or None,
                require_pretrained=True,
                **activation(config),
            )
            return model, open_clip.get_tokenizer(config.name)
    except Exception as error:  # open_clip raises nearly every type, from KeyError to HTTP errors
        _log.debug("open_clip failed", exc_info=True)
        told = ": ".join(filter(None, [unreachable, _first_line(error)]))
        raise BackboneError(
            f"backbone {config.name} {config.pretrained} could not be loaded: {told}. "
            "Without internet give a local checkpoint file in backbone.pretrained, a local-dir: "
            "folder, or use backbone.name = embedded"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(
            f"backbone.device = {name!r} cannot be used here: {_first_line(error)}; "
            "expected auto, cpu or cuda"
        ) from None
    return device
