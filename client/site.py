"""One site in memory: its images' features, its prompt and what it answers.

A process keeps the backbone and its sites between messages, so that a Ray worker or a simulation
loads CLIP once. Nothing here depends on how messages travel.
"""

import threading
from collections.abc import Mapping

import torch

from client.config import FitConfig
from client.evaluate import Score, evaluate
from client.feature_store import FeatureStore
from client.features import image_features, store_key
from client.fit import Span, fit
from client.rank import shrink
from fedprompt.backbone.config import BackboneConfig
from fedprompt.backbone.load import shared_backbone
from fedprompt.config import Scalar, section
from fedprompt.data.config import DataConfig
from fedprompt.data.image_set import ImageSet
from fedprompt.data.load import site as site_images
from fedprompt.errors import ConfigError
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.identity_card import identity_card
from fedprompt.prompts.build import Prompt, build_prompt
from fedprompt.prompts.config import PromptConfig
from fedprompt.prompts.method import Arrays
from fedprompt.types import ImageFeatures, Labels
from fedprompt.wire import identity_digest

_loading = threading.Lock()  # sites of one process share the backbone


class Site:
    """Hold one site: train and held-out features, and the settings it trains with.

    Parameters
    ----------
    settings
        The flat configuration of the run.
    partition, partitions
        Which share of the data is this site's.

    Raises
    ------
    ConfigError
        A setting is refused, or the aggregation rule takes no rank of a site's own.
    """

    def __init__(self, settings: Mapping[str, Scalar], partition: int, partitions: int) -> None:
        self.partition = partition
        self.config = section(settings, "fit", FitConfig)
        self.data = section(settings, "data", DataConfig)
        self.prompt_config = section(settings, "prompt", PromptConfig)
        rule = settings.get("server.rule", "product")
        if self.config.rank and rule != "product":
            raise ConfigError(
                f"fit.rank = {self.config.rank} under server.rule = {rule}: sites of unequal rank "
                "meet under product only; set fit.rank = 0 or server.rule = product"
            )
        self.shared_basis = rule == "shared-basis"
        with _loading:
            self.clip = shared_backbone(section(settings, "backbone", BackboneConfig))
            images = site_images(self.data, partition, partitions)
        self.classes = images.train.classes
        self._store = FeatureStore(store_key(self.clip)) if self.config.cache else None
        self.train_features, self.train_labels = self._encode(images.train)
        self.held_features, self.held_labels = self._encode(images.holdout)
        self.prompt = self._build(self.prompt_config)
        self._prompts = {self.prompt_config.rank: self.prompt}
        card = identity_card(self.clip, self.prompt, self.classes, self.data.template)
        self.identity, self.digest = card, identity_digest(card)

    def train(
        self, arrays: Arrays, seed: int, server_round: int, rounds: int, mu: float
    ) -> tuple[Arrays, float]:
        """Tune the prompt from ``arrays`` and return what was trained, and the mean loss.

        A site without images returns the arrays as they came: it abstains.
        """
        if not len(self.train_labels):
            return arrays, 0.0
        arrays = shrink(arrays, self.config.rank)
        low = "ctx.A" in arrays
        prompt = self._of_rank(arrays["ctx.A"].shape[1]) if low else self.prompt
        prompt.load_arrays(arrays)
        span = Span(start=(server_round - 1) / rounds, end=server_round / rounds)
        loss = fit(
            prompt,
            self.train_features,
            self.train_labels,
            self.clip.logit_scale,
            self.config,
            seed=_seed(seed, server_round, self.partition),
            span=span,
            mu=mu,
        )
        return prompt.arrays(), loss

    def evaluate(self, arrays: Arrays) -> Score:
        """Score ``arrays`` on this site's held-out images."""
        self.prompt.load_arrays(arrays)
        scale = self.clip.logit_scale
        return evaluate(self.prompt, self.held_features, self.held_labels, scale)

    def _encode(self, images: ImageSet) -> tuple[ImageFeatures, Labels]:
        batch, most = self.config.encode_batch, self.data.max_pixels
        features = image_features(images, self.clip, self._store, batch, max_pixels=most)
        return features, torch.from_numpy(images.labels).to(self.clip.device)

    def _of_rank(self, rank: int) -> Prompt:
        """Return this site's prompt of a rank; each is built once."""
        if rank not in self._prompts:
            config = self.prompt_config.model_copy(update={"rank": rank})
            self._prompts[rank] = self._build(config)
        return self._prompts[rank]

    def _build(self, config: PromptConfig) -> Prompt:
        return build_prompt(
            config, self.clip, self.classes, self.data.template, shared_basis=self.shared_basis
        )


def _seed(*parts: int) -> int:
    """Return one seed that differs with every part, the same on every machine."""
    return int(sha256_bytes(canonical_json(parts))[:8], 16)
