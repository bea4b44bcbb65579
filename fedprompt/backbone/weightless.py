"""A CLIP of the right shapes with random weights: to count what a prompt would train and send.

No checkpoint is read or fetched. The blocks' hidden layers, which no prompt looks at, are a few
numbers wide, so that a large model costs a fraction of its memory.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import open_clip

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.load import load_backbone
from fedprompt.backbone.tags import preprocessing
from fedprompt.errors import BackboneError
from fedprompt.settings.backbone import BackboneConfig

_MLP_RATIO = 1 / 64  # of the hidden layers to the width


def weightless_backbone(config: BackboneConfig) -> FrozenClip:
    """Return a CLIP with the shapes of an open_clip name; other names are loaded as they are.

    Raises
    ------
    BackboneError
        As `load_backbone`; or the architecture or its tokenizer needs a download that failed.
    """
    if config.name not in open_clip.list_models():
        return load_backbone(config)
    try:
        with _quiet():
            model = open_clip.create_model(config.name, **_narrow(config.name))
            tokenizer = open_clip.get_tokenizer(config.name)
    except Exception as error:  # open_clip raises nearly every type, from KeyError to HTTP errors
        raise BackboneError(
            f"backbone {config.name} could not be laid out: {type(error).__name__}: {error}; "
            "choose another name of open_clip.list_models()"
        ) from error
    settings = preprocessing(open_clip.get_model_preprocess_cfg(model))
    return FrozenClip(model, tokenizer, settings, name=config.name)


def _narrow(name: str) -> dict[str, dict[str, Any]]:
    """Return both towers' settings with narrow hidden layers."""
    settings = open_clip.get_model_config(name) or {}
    return {key: settings[key] | {"mlp_ratio": _MLP_RATIO} for key in ("vision_cfg", "text_cfg")}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence open_clip's warning that nothing was loaded: that is the point."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
