"""From a tuned prompt to its artefact and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedprompt.artefact import Artefact
from fedprompt.backbone.class_encoder import Speedups
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import ArtefactError
from fedprompt.prompts.build import Prompt, build_prompt
from fedprompt.prompts.config import PromptConfig
from fedprompt.prompts.coop import RANDOM, Coop
from fedprompt.prompts.forms import LowRank


def to_artefact(
    clip: FrozenClip, prompt: Prompt, classes: Sequence[str], template: str, **extra: Any
) -> Artefact:
    """Return the artefact of a prompt: its arrays, its frozen start and what it belongs to.

    ``extra`` adds keys such as ``round``, ``seed`` and ``aggregation``.
    """
    metadata = {
        **prompt.describe(),
        "trained": sorted(prompt.arrays()),
        "dtype": "float32",
        "backbone": {
            "name": clip.name,
            "pretrained": Path(clip.pretrained).name,  # a local path is nobody else's business
            "sha256": clip.fingerprint,
            "parameters": sum(tensor.numel() for tensor in clip.parameters()),
        },
        "tokenizer_sha256": clip.tokenizer_fingerprint,
        "classes": list(classes),
        "template": template,
        "preprocessing": clip.preprocessing.to_dict(),
        "parent": None,
        "privacy": None,
    }
    return Artefact(prompt.arrays() | prompt.frozen_arrays(), metadata | extra)


def from_artefact(artefact: Artefact, clip: FrozenClip, speedups: Speedups | None = None) -> Prompt:
    """Return the prompt that an artefact holds.

    Raises
    ------
    ArtefactError
        The artefact was tuned for another CLIP or tokenizer (both hashes are shown), or lacks a
        tensor of its method.
    """
    metadata = artefact.metadata
    _check_hash("backbone", metadata["backbone"]["sha256"], clip.fingerprint)
    _check_hash("tokenizer", metadata["tokenizer_sha256"], clip.tokenizer_fingerprint)
    config = PromptConfig(
        method=metadata["method"],
        tokens=max(1, metadata["tokens"]),
        rank=max(1, metadata["rank"]),
        init=RANDOM,  # overwritten below by the tensors
    )
    shared = "ctx.A" in artefact.tensors and "ctx.A" not in metadata["trained"]
    prompt = build_prompt(
        config,
        clip,
        metadata["classes"],
        metadata["template"],
        shared_basis=shared,
        speedups=speedups,
    )
    if isinstance(prompt, Coop) and isinstance(prompt.ctx, LowRank):
        frozen = {"ctx.start": prompt.ctx.start} | ({"ctx.A": prompt.ctx.A} if shared else {})
        for name, buffer in frozen.items():
            buffer.copy_(torch.from_numpy(_array(artefact, name, tuple(buffer.shape))))
    own = prompt.arrays()
    prompt.load_arrays({name: _array(artefact, name, own[name].shape) for name in own})
    return prompt


def _array(artefact: Artefact, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return one tensor of the shape that the method has; nothing is broadcast."""
    found = artefact.tensors.get(name)
    if found is None or found.shape != shape:
        described = "missing" if found is None else f"of shape {found.shape}"
        raise ArtefactError(
            f"the artefact's tensor {name} is {described}, expected {shape}; it is damaged, or of "
            "another kind than its configuration says"
        )
    return np.array(found, np.float32)


def _check_hash(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise ArtefactError(
            f"the prompt was tuned for {what} {found[:16]}…, this is {expected[:16]}…; "
            "load the backbone that the artefact names"
        )


def load_artefact(path: Path) -> Artefact:
    """Read an artefact folder, or the one inside a run's folder."""
    return Artefact.load(path / "artefact" if (path / "artefact").is_dir() else path)
