"""Set up an experiment on one machine: load its backbone and images, encode the images."""

from dataclasses import dataclass

import torch

from client.features.encode import encode, store_key
from client.features.feature_store import FeatureStore
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.backbone.load import shared_backbone
from fedprompt.data.image_set import ImageSet
from fedprompt.data.load import load as load_images
from fedprompt.errors import DataError
from fedprompt.prompts.recipe import Bank
from fedprompt.settings.data import DataConfig
from fedprompt.settings.fit import FitConfig
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat
from fedprompt.types import Labels


@dataclass(frozen=True)
class Experiment:
    """A backbone and the images of a run."""

    clip: FrozenClip
    data: DataConfig
    fit: FitConfig
    train: ImageSet
    test: ImageSet

    def encode(
        self, images: ImageSet, first_layer: int | None = None, bank: Bank = "clean"
    ) -> tuple[EncodedImages, Labels]:
        """Return images as their prompt needs them, each encoded once, and their labels.

        Parameters
        ----------
        images
            Of the run, training or test.
        first_layer
            First block of the image tower that the prompt enters; None = none.
        bank
            Which features: `bank_of` the method to train on, clean ones to score.

        Raises
        ------
        DataError
            There are no images.
        """
        if not len(images):
            raise DataError(self._lacking(images))
        key = store_key(self.clip, bank, self.data.white_level)
        store = FeatureStore(key) if self.fit.cache else None
        batch, most = self.fit.encode_batch, self.data.max_pixels
        encoded = encode(images, self.clip, store, batch, first_layer, max_pixels=most, bank=bank)
        return encoded, torch.from_numpy(images.labels).to(self.clip.device)

    def _lacking(self, images: ImageSet) -> str:
        if images is not self.test:
            return "there are no images to train on; check data.source and data.limit"
        return (
            f"there are no test images to score on, beside {len(self.train)} to train on: "
            f"data.test_share = {self.data.test_share:g} leaves the last image of each class to "
            "training. Give every class two images at least, or a test folder; see data.test_limit"
        )


def open_experiment(config: RunConfig) -> Experiment:
    """Load the backbone and the images that a configuration names."""
    train, test = load_images(config.data)
    return Experiment(shared_backbone(config.backbone), config.data, config.fit, train, test)


def of_artefact(flat: Flat, artefact: Artefact) -> Flat:
    """Return settings with the artefact's backbone and template where they name none."""
    metadata = artefact.metadata
    own: Flat = {
        "backbone.name": str(metadata["backbone"]["name"]),
        "backbone.pretrained": str(metadata["backbone"]["pretrained"]),
        "data.template": str(metadata["template"]),
    }
    return own | flat
