"""From a tuned prompt to its artefact and back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedprompt.artefact import Artefact
from fedprompt.backbone.class_encoder import Speedups
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.fingerprint import superseded
from fedprompt.errors import ArtefactError, ConfigError
from fedprompt.prompt_state import PromptState, left, pairs
from fedprompt.prompts.build import PRODUCT, Prompt, build_prompt
from fedprompt.prompts.methods import prompt_config, prompt_defaults, settings_model
from fedprompt.prompts.starts import RANDOM
from fedprompt.prompts.words import Layout
from fedprompt.settings.prompt import PromptConfig


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
    return Artefact(dict(prompt.arrays() | prompt.frozen_arrays()), metadata | extra)


def from_artefact(
    artefact: Artefact, clip: FrozenClip, speedups: Speedups | None = None, rule: str = ""
) -> Prompt:
    """Return the prompt that an artefact holds.

    ``rule`` says how it is to be trained further (`build_prompt`); empty = as its tensors tell.

    Raises
    ------
    ArtefactError
        The artefact was tuned for another CLIP or tokenizer (both hashes are shown), or lacks a
        tensor of its method.
    """
    metadata = artefact.metadata
    _check_hash("backbone", metadata["backbone"]["sha256"], clip.fingerprint)
    _check_hash("tokenizer", metadata["tokenizer_sha256"], clip.tokenizer_fingerprint)
    factors = {left(matrix) for matrix in pairs(artefact.tensors)}
    frozen_a = bool(factors) and not factors & set(metadata["trained"])
    prompt = build_prompt(
        _prompt_config(metadata),
        clip,
        metadata["classes"],
        metadata["template"],
        rule=rule or ("shared-basis" if frozen_a else PRODUCT),
        speedups=speedups,
        any_start=True,
    )
    _check_maps(metadata.get("maps_sha256"), prompt.describe().get("maps_sha256"))
    prompt.load_frozen(_held(artefact, prompt.frozen_arrays()))
    prompt.load_arrays(_held(artefact, prompt.arrays()))
    return prompt


def _prompt_config(metadata: Mapping[str, Any]) -> PromptConfig:
    """Return the settings that build a prompt of the artefact's kind.

    Starts do not matter: tensors overwrite them. So a text prompt is drawn, which needs no words,
    unless some of its words stay: then placeholders stand for what is overwritten.
    What the seed draws and no tensor overwrites (frozen maps) comes with the seed, ``prompt_seed``.
    """
    tokens, words = max(1, metadata["tokens"]), Layout.described(metadata).frozen_words
    values = {key: metadata[key] for key in prompt_defaults() if key in metadata} | {
        "tokens": tokens,
        "rank": max(1, metadata["rank"]),
        "init": " ".join(["X"] * tokens + [words]) if words else RANDOM,
        "seed": metadata.get("prompt_seed", 0),
    }
    try:
        fields = settings_model(str(values["method"])).model_fields
        return prompt_config(**{k: v for k, v in values.items() if k in fields})
    except ConfigError as error:
        raise ArtefactError(f"the artefact describes no prompt that is known: {error}") from None


def _held(artefact: Artefact, like: PromptState) -> PromptState:
    """Return the artefact's tensors of a prompt's names and shapes; nothing is broadcast."""
    for name, shape in like.shapes().items():
        found = artefact.tensors.get(name)
        if found is None or found.shape != shape:
            described = "missing" if found is None else f"of shape {found.shape}"
            raise ArtefactError(
                f"the artefact's tensor {name} is {described}, expected {shape}; it is damaged, or "
                "of another kind than its configuration says"
            )
    return PromptState({name: artefact.tensors[name] for name in like})


def _check_hash(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise ArtefactError(
            f"the prompt was tuned for {what} {found[:16]}…, this is {expected[:16]}…; "
            + (superseded(found) or "load the backbone that the artefact names")
        )


def _check_maps(found: object, expected: object) -> None:
    """Refuse frozen maps that are not those of the training: they come from a seed, not a file."""
    if found != expected:
        raise ArtefactError(
            f"the prompt was tuned with frozen maps of hash {str(found)[:64]}, its seed draws "
            f"{expected} here; the artefact is damaged, or another release of torch wrote it: "
            "load it with that one"
        )
