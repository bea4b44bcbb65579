"""Federated tuning of dense low-rank prompts against a frozen CLIP.

The public names below are imported when they are first used: ``import fedprompt`` loads no torch.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedprompt.artefact import Artefact
    from fedprompt.backbone.clip import FrozenClip
    from fedprompt.backbone.load import load_backbone
    from fedprompt.errors import (
        ArtefactError,
        BackboneError,
        CheckpointError,
        ConfigError,
        DataError,
        FedpromptError,
        GraphError,
        LinkError,
        ParityError,
        PolicyError,
        PrivacyError,
        PromptError,
        ProviderError,
        QuorumError,
        RefusedError,
        StorageError,
    )
    from fedprompt.prompts.artefacts import from_artefact, to_artefact
    from fedprompt.prompts.build import build_prompt
    from fedprompt.prompts.methods import prompt_config
    from fedprompt.settings.backbone import BackboneConfig
    from fedprompt.settings.data import DataConfig
    from fedprompt.settings.run_config import RunConfig

__all__ = [
    "Artefact",
    "ArtefactError",
    "BackboneConfig",
    "BackboneError",
    "CheckpointError",
    "ConfigError",
    "DataConfig",
    "DataError",
    "FedpromptError",
    "FrozenClip",
    "GraphError",
    "LinkError",
    "ParityError",
    "PolicyError",
    "PrivacyError",
    "PromptError",
    "ProviderError",
    "QuorumError",
    "RefusedError",
    "RunConfig",
    "StorageError",
    "build_prompt",
    "from_artefact",
    "load_backbone",
    "prompt_config",
    "to_artefact",
]

_HOMES = {
    "Artefact": "fedprompt.artefact",
    "BackboneConfig": "fedprompt.settings.backbone",
    "DataConfig": "fedprompt.settings.data",
    "FrozenClip": "fedprompt.backbone.clip",
    "RunConfig": "fedprompt.settings.run_config",
    "build_prompt": "fedprompt.prompts.build",
    "from_artefact": "fedprompt.prompts.artefacts",
    "load_backbone": "fedprompt.backbone.load",
    "prompt_config": "fedprompt.prompts.methods",
    "to_artefact": "fedprompt.prompts.artefacts",
}


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    if name == "__version__":
        return importlib.metadata.version("fedprompt")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "fedprompt.errors")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
