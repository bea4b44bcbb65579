"""What a command on one machine works with: backbone, images, features, prompt."""

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
    """Hold a backbone and the images of a run, with features encoded once."""

    clip: FrozenClip
    data: DataConfig
    fit: FitConfig
    train: ImageSet
    test: ImageSet

    def encode(
        self, images: ImageSet, first_layer: int | None = None, bank: Bank = "clean"
    ) -> tuple[EncodedImages, Labels]:
        """Return what of some images is computed once, and their labels.

        Parameters
        ----------
        images
            Of the run.
        first_layer
            First block of the image tower that the prompt enters; None = none.
        bank
            What of an image: `bank_of` the method to train on, clean to score.

        Raises
        ------
        DataError
            There are none.
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
    """Load what a configuration names."""
    train, test = load_images(config.data)
    return Experiment(shared_backbone(config.backbone), config.data, config.fit, train, test)


def of_artefact(flat: Flat, artefact: Artefact) -> Flat:
    """Let an artefact name its own backbone and template, where nobody else does."""
    metadata = artefact.metadata
    own: Flat = {
        "backbone.name": str(metadata["backbone"]["name"]),
        "backbone.pretrained": str(metadata["backbone"]["pretrained"]),
        "data.template": str(metadata["template"]),
    }
    return own | flat
