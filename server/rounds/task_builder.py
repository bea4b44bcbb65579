"""Build what the server tunes from a run's settings, and its artefact at the end.

The server holds the same frozen CLIP as the sites: it needs the prompt's start, the hashes that
sites must share, and the merged prompt's information density.
"""

from collections.abc import Mapping
from typing import Any

from fedprompt.artefact import Artefact
from fedprompt.backbone.load import shared_backbone
from fedprompt.data.classes import configured_names
from fedprompt.data.halves import half
from fedprompt.data.load import load as load_images
from fedprompt.data.load import site_sizes
from fedprompt.errors import ConfigError, DataError
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.identity_card import identity_card
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.artefacts import to_artefact
from fedprompt.prompts.build import build_prompt, is_averaged
from fedprompt.prompts.density import change_rank
from fedprompt.prompts.domain_names import domain_names, of_data
from fedprompt.prompts.forms import forms_of
from fedprompt.settings.data import DataConfig
from fedprompt.settings.prompt import AdaptConfig, PromptConfig, SptConfig
from fedprompt.settings.run_config import RunConfig
from server.merge import domains
from server.merge.privacy.mechanism import Mechanism
from server.rounds import spt_start
from server.rounds.federation import Description, Task

# Settings that may change between a run and its resumption: they do not touch the prompt, or (the
# quarantine) must be lifted where too few sites are left.
FREE = frozenset(
    f"server.{key}"
    for key in (
        "output", "sites", "resume", "overwrite", "deadline", "join_deadline", "retries", "workers",
        "evaluate_every", "client_cpus", "client_gpus", "trackers", "quarantine",
        "quarantine_rounds",
    )
) | {"backbone.device", "fit.cache", "fit.encode_batch", "privacy.epsilon"}  # fmt: skip


class Tuning:
    """Hold the server's own prompt over a frozen CLIP.

    Raises
    ------
    ConfigError
        The prompt has nothing to train, or a setting is refused.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.server = config.server
        self.data = config.data
        self.clip = shared_backbone(config.backbone)
        self.classes = _classes(self.data)
        prompt = _with_domains(config.prompt, self.data)
        spt_start.check(prompt, config.server, config.privacy)
        domains.check(prompt, config.server, config.privacy)
        self.asks_start = isinstance(prompt, SptConfig) and prompt.start_noise > 0
        self.domains = domain_names(prompt) if isinstance(prompt, AdaptConfig) else ()
        self.prompt = build_prompt(
            prompt,
            self.clip,
            self.classes,
            self.data.template,
            rule=self.server.rule,
            any_start=self.asks_start,  # the sites' centres overwrite it
        )
        self._starts = [form.fold() for form in forms_of(self.prompt)]
        self.images = {} if self.server.sites else _images(self.data, self.server.min_sites)
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
        fixed = {key: value for key, value in self.config.flat().items() if key not in FREE}
        run = sha256_bytes(canonical_json([fixed, identity, arrays.sha256]))
        prompt = self.config.prompt
        averaged = is_averaged(prompt.method) and prompt.personal != "local"
        return Task(
            arrays,
            identity,
            self.describe,
            run,
            self.asks_start,
            self.domains,
            averaged,
            self.prompt.leaving() if self.server.rule == "fresh-basis" else PromptState(),
            self.images,
        )

    def mechanism(self, task: Task) -> Mechanism | None:
        """Return what makes the merged prompts private; None if nothing is asked to."""
        if not self.config.privacy.noise_multiplier:
            return None
        return Mechanism(self.config.privacy, self.server, task.run)

    def describe(self, arrays: PromptState) -> Description:
        """Return what the record says of a prompt.

        The rank is the largest of P - P0 over all matrices; where the sites give the start, none.
        """
        self.prompt.load_arrays(arrays)
        rank = None if self.asks_start else change_rank(forms_of(self.prompt), self._starts)
        return Description(self.prompt.information_density(), rank)

    def artefact(
        self,
        arrays: PromptState,
        server_round: int,
        truncation_error: float,
        privacy: Mapping[str, Any] | None = None,
    ) -> Artefact:
        """Return the artefact of a merged prompt; ``privacy`` says what it tells about a site."""
        self.prompt.load_arrays(arrays)
        extra: dict[str, Any] = {
            "round": server_round,
            "seed": self.server.seed,
            "white_level": self.data.white_level,
            "privacy": privacy,
            "sent": self._sent(),
            "aggregation": {"rule": self.server.rule, "truncation_error": truncation_error},
        }
        return to_artefact(self.clip, self.prompt, self.classes, self.data.template, **extra)

    def _sent(self) -> int:
        """Return how many numbers a site sends each round; the artefact's arrays may be larger."""
        if self.config.prompt.personal == "local":
            return 0
        return sum(array.size for array in self.prompt.leaving().values())


def _with_domains(config: PromptConfig, data: DataConfig) -> PromptConfig:
    """Return settings that name the domains, those of the server's images where none are named."""
    if not isinstance(config, AdaptConfig) or config.domains.strip():
        return config
    return of_data(config, load_images(data)[0])


def _images(data: DataConfig, min_sites: int) -> dict[int, int]:
    """Return how many images each simulated site has; of none, where they are not here.

    Raises
    ------
    DataError
        The images cannot be read or divided: told once, before a site is asked.
    """
    try:
        return site_sizes(data, data.clients)
    except DataError:
        # a server without images has the names alone; with min_sites, others may divide them
        if data.class_names.strip() or min_sites:
            return {}
        raise


def _classes(data: DataConfig) -> tuple[str, ...]:
    """Return the configured class names, all that a server without images has, or the data's."""
    if data.class_names.strip():
        return half(configured_names(data.class_names), data.subsample_classes)
    return load_images(data)[0].classes
