"""Build what the server tunes from a run's settings, and its artefact at the end.

The server holds the same frozen CLIP as the sites: it needs the prompt's start, the hashes that
sites must share, and the merged prompt's information density.
"""

from collections.abc import Mapping
from typing import Any

from fedprompt.artefact import Artefact
from fedprompt.backbone.config import BackboneConfig
from fedprompt.backbone.load import shared_backbone
from fedprompt.config import Scalar, section
from fedprompt.data.config import DataConfig
from fedprompt.data.load import load as load_images
from fedprompt.errors import ConfigError
from fedprompt.identity import canonical_json, sha256_arrays, sha256_bytes
from fedprompt.identity_card import identity_card
from fedprompt.prompts.artefacts import to_artefact
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.config import PromptConfig
from fedprompt.wire import Arrays
from server.config import ServerConfig
from server.federation import Task

# Settings that may change between a run and its resumption: they do not touch the prompt.
FREE = frozenset(
    f"server.{key}"
    for key in (
        "output", "resume", "overwrite", "deadline", "join_deadline", "retries", "workers",
        "evaluate_every", "client_cpus", "client_gpus",
    )
) | {"backbone.device", "fit.cache", "fit.encode_batch"}  # fmt: skip


class Tuning:
    """Hold the server's own prompt over a frozen CLIP.

    Raises
    ------
    ConfigError
        The prompt has nothing to train, or a setting is refused.
    """

    def __init__(self, settings: Mapping[str, Scalar]) -> None:
        self.settings = dict(settings)
        self.server = section(settings, "server", ServerConfig)
        self.data = section(settings, "data", DataConfig)
        self.clip = shared_backbone(section(settings, "backbone", BackboneConfig))
        self.classes = load_images(self.data)[0].classes
        self.prompt = build_prompt(
            section(settings, "prompt", PromptConfig),
            self.clip,
            self.classes,
            self.data.template,
            shared_basis=self.server.rule == "shared-basis",
        )
        if not self.prompt.arrays():
            raise ConfigError("this prompt.method trains nothing; choose dip or coop")

    @property
    def sites(self) -> int:
        """Return how many sites must join before the first round."""
        return self.server.min_sites or self.data.clients

    def task(self) -> Task:
        """Return what the rounds need: the start, the identity and a description."""
        arrays = self.prompt.arrays()
        identity = identity_card(self.clip, self.prompt, self.classes, self.data.template)
        fixed = {key: value for key, value in self.settings.items() if key not in FREE}
        run = sha256_bytes(canonical_json([fixed, identity, sha256_arrays(arrays)]))
        return Task(arrays, identity, self.describe, run)

    def describe(self, arrays: Arrays) -> dict[str, float]:
        """Return what the record says of a prompt: its information density."""
        self.prompt.load_arrays(arrays)
        return {"information_density": self.prompt.information_density()}

    def artefact(self, arrays: Arrays, server_round: int, truncation_error: float) -> Artefact:
        """Return the artefact of a merged prompt."""
        self.prompt.load_arrays(arrays)
        extra: dict[str, Any] = {
            "round": server_round,
            "seed": self.server.seed,
            "aggregation": {"rule": self.server.rule, "truncation_error": truncation_error},
        }
        return to_artefact(self.clip, self.prompt, self.classes, self.data.template, **extra)
