"""One site in memory: its images' features, its prompt and what it answers.

A process keeps the backbone and its sites between messages, so that a Ray worker or a simulation
loads CLIP once. Nothing here depends on how messages travel.
"""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from client.features.encode import encode, store_key
from client.features.feature_store import FeatureStore
from client.features.patch_token_centroids import noised_centres
from client.tuning.evaluate import Score, evaluate
from client.tuning.fit import ScheduleWindow, fit
from client.tuning.personal import Personal
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.backbone.load import shared_backbone
from fedprompt.data.image_set import ImageSet
from fedprompt.data.load import Images, own, share
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.identity_card import identity_card
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.build import Prompt, bank_of, build_prompt
from fedprompt.prompts.domain_names import of_site
from fedprompt.prompts.forms import begin_turn
from fedprompt.prompts.recipe import Bank
from fedprompt.settings.data import DataConfig
from fedprompt.settings.prompt import AdaptConfig, PromptConfig, SptConfig
from fedprompt.settings.run_config import RunConfig
from fedprompt.types import Labels
from fedprompt.wire import identity_digest

_loading = threading.Lock()  # sites of one process share the backbone


class Site:
    """Hold one site: train and held-out features, and the settings it trains with.

    Parameters
    ----------
    config
        Of the run, with this site's own settings where it has the say.
    number
        This site's number among all.
    load_images
        Returns this site's images; called once.
    folder
        Where this site keeps a prompt of its own (`client.tuning.personal`); None = in the user's
        cache.

    """

    def __init__(
        self,
        config: RunConfig,
        number: int,
        load_images: Callable[[DataConfig], Images],
        folder: Path | None = None,
    ) -> None:
        self.number = number
        self.config = config.fit
        self.data = config.data
        self._rule = config.server.rule
        with _loading:
            self.clip = shared_backbone(config.backbone)
            images = load_images(self.data)
        self.classes, self._own = images.train.classes, images.train
        self.prompt_config = of_site(config.prompt, images.train)
        self.domain = ""
        if isinstance(self.prompt_config, AdaptConfig):
            self.domain = self.prompt_config.domain
        self.prompt = self._build(self.prompt_config)
        self.train_images, self.train_labels = self._encode(
            images.train, bank_of(self.prompt_config.method)
        )
        self.held_images, self.held_labels = self._encode(images.holdout)
        self._prompts = {self.prompt_config.rank: self.prompt}
        own_seed = _seed(self.prompt_config.seed, number)
        self._personal = Personal(self.prompt_config, number, self._build, own_seed, folder)
        card = identity_card(self.clip, self.prompt, self.classes, self.data.template)
        self.identity, self.digest = card, identity_digest(card)

    def train(
        self, sent: PromptState, seed: int, server_round: int, rounds: int, mu: float, run: str = ""
    ) -> tuple[PromptState, float]:
        """Tune the prompt from what was sent and return what may leave of it, and the mean loss.

        A site without images abstains: it returns what it would had it learned nothing. Under
        ``prompt.personal = local`` nothing may leave. A prompt of this site's own goes on from
        where the rounds of ``run`` before this one left it.
        """
        if not len(self.train_labels):
            return sent.unmoved(self.prompt.leaving()), 0.0
        arrays = sent.truncate(self.config.rank)
        shared = self._of_rank(arrays.rank) if arrays.rank else self.prompt
        shared.load_arrays(arrays)
        window = ScheduleWindow(start=(server_round - 1) / rounds, end=server_round / rounds)
        prompt = self._personal.around(shared, run, server_round - 1)
        begin_turn(prompt, server_round - 1)
        loss = fit(
            prompt,
            self.train_images,
            self.train_labels,
            self.config,
            seed=_seed(seed, server_round, self.number),
            window=window,
            mu=mu,
            tied=list(shared.parameters()),
        )
        self._personal.keep(run, server_round)
        return self._personal.leaving(shared), loss

    def evaluate(self, arrays: PromptState, server_round: int = 0, run: str = "") -> Score:
        """Score ``arrays``, or what a round left of this site's own prompt, on held-out images."""
        self.prompt.load_arrays(arrays)
        prompt = self._personal.around(self.prompt, run, server_round)
        return evaluate(prompt, self.held_images, self.held_labels)

    def centres(self, secret: bytes) -> PromptState:
        """Return noised centres of this site's patch tokens, named and shaped as the prompt.

        A site without images returns zeros: it abstains. ``secret`` seeds the noise.
        """
        config, arrays = SptConfig.of(self.prompt_config), self.prompt.arrays()
        if not len(self._own):
            return PromptState({name: np.zeros_like(array) for name, array in arrays.items()})
        found = noised_centres(
            self._own,
            self.clip,
            range(config.first_layer, config.first_layer + len(arrays)),
            len(next(iter(arrays.values()))),
            most=config.start_images,
            noise=config.start_noise,
            seed=config.seed,
            secret=secret,
            max_pixels=self.data.max_pixels,
        )
        return PromptState(dict(zip(arrays, found, strict=True)))

    def _encode(self, images: ImageSet, bank: Bank = "clean") -> tuple[EncodedImages, Labels]:
        batch, most = self.config.encode_batch, self.data.max_pixels
        key = store_key(self.clip, bank, self.data.white_level)
        store = FeatureStore(key) if self.config.cache else None
        first = self.prompt.first_layer
        encoded = encode(images, self.clip, store, batch, first, max_pixels=most, bank=bank)
        return encoded, torch.from_numpy(images.labels).to(self.clip.device)

    def _of_rank(self, rank: int) -> Prompt:
        """Return this site's prompt of a rank; each is built once."""
        if rank not in self._prompts:
            config = self.prompt_config.model_copy(update={"rank": rank})
            self._prompts[rank] = self._build(config)
        return self._prompts[rank]

    def _build(self, config: PromptConfig) -> Prompt:
        return build_prompt(
            config,
            self.clip,
            self.classes,
            self.data.template,
            rule=self._rule,
            any_start=True,  # the server sends its own
        )


def simulated(config: RunConfig, partition: int, partitions: int) -> Site:
    """Return the site that holds one share of the run's images."""
    return Site(config, partition, lambda data: share(data, partition, partitions))


def deployed(config: RunConfig, number: int, folder: Path | None = None) -> Site:
    """Return a site with images of its own, and a folder for a prompt of its own."""
    return Site(config, number, own, folder)


def _seed(*parts: int) -> int:
    """Return one seed that differs with every part, the same on every machine."""
    return int(sha256_bytes(canonical_json(parts))[:8], 16)
