"""Load any open_clip model: by name and tag, from a file, from the hub, or the embedded one."""

import functools
import logging
import pickle
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from fedprompt.backbone.checkpoint import OPENAI, fit_checkpoint, require_finite
from fedprompt.backbone.checkpoint_file import Weights, read_checkpoint, refuse_pointer
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.embedded import NAMES as EMBEDDED
from fedprompt.backbone.embedded import load_embedded
from fedprompt.backbone.tags import HUB, LOCAL, activation, preprocessing, stated_preprocessing
from fedprompt.errors import BackboneError
from fedprompt.reach import within_reach
from fedprompt.settings.backbone import BackboneConfig

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
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
    path = _checkpoint_path(config)
    weights = None if path is None else read_checkpoint(path)
    if config.name.startswith(LOCAL) or Path(config.pretrained).is_file():
        model, tokenizer = _created(config, weights)
    else:
        with within_reach() as why:
            model, tokenizer = _created(config, weights, why)
    if weights is not None:
        fit_checkpoint(model, weights, config.pretrained, config.name)
    require_finite(model, f"{config.name} {config.pretrained}".strip())
    return model, tokenizer


def _created(
    config: BackboneConfig, weights: Weights | None, unreachable: str = ""
) -> tuple[nn.Module, Any]:
    """Return open_clip's model and tokenizer; with weights of a file the model's own are random."""
    settings = activation(config, is_openai=weights is not None and weights.keys() >= OPENAI)
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")  # open_clip's gelu warning is answered by activation
            model = open_clip.create_model(
                config.name,
                pretrained=None if weights else config.pretrained or None,
                load_weights=weights is None,
                pretrained_text=weights is None,  # else a text tower of another hub is fetched
                require_pretrained=weights is None,
                **settings,
            )
            return model, open_clip.get_tokenizer(config.name)
    except Exception as error:  # open_clip raises nearly every type, from KeyError to HTTP errors
        _log.debug("open_clip failed", exc_info=True)
        told = ": ".join(filter(None, [unreachable, _reason(error)]))
        raise BackboneError(
            f"backbone {config.name} {config.pretrained} could not be loaded: {told}. "
            + _advice(config)
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out open_clip's warning of random weights, which are replaced or refused here."""

    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("No pretrained weights loaded")

    root = logging.getLogger()
    root.addFilter(is_other)
    try:
        yield
    finally:
        root.removeFilter(is_other)


def _checkpoint_path(config: BackboneConfig) -> Path | None:
    """Return the file that is read here; big_vision's arrays and folders are open_clip's."""
    if config.name.startswith(LOCAL):
        for path in sorted(Path(config.name.removeprefix(LOCAL)).expanduser().glob("*")):
            if path.suffix in _WEIGHTS and path.is_file():
                refuse_pointer(path)
        return None
    is_tag = config.pretrained in open_clip.list_pretrained_tags_by_model(config.name)
    if not config.pretrained or is_tag or config.name.startswith(HUB):
        return None
    path = Path(config.pretrained)
    return None if path.suffix in (".npz", ".npy") else path


def _advice(config: BackboneConfig) -> str:
    if config.name.startswith(LOCAL):
        return "The folder must hold open_clip_config.json and the weights of that very model"
    if Path(config.pretrained).is_file():
        return "Copy or download the file again; it must hold arrays alone"
    return (
        "Without internet give a local checkpoint file in backbone.pretrained, a local-dir: "
        "folder, or use backbone.name = embedded"
    )


def _reason(error: Exception) -> str:
    """Return an error in one line, without a library's advice to open a pickle all the same."""
    text = " ".join(str(error).split())
    if isinstance(error, pickle.UnpicklingError) or "allow_pickle" in text:
        return "its weights are damaged, or hold more than tensors, which is never opened (pickle)"
    return f"{type(error).__name__}: {text[:400]}" if text else type(error).__name__


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
