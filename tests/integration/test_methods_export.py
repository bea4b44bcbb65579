"""Every method's artefact, folded and written, answers as the prompt itself does.

The methods are those of ``METHODS``: a new one is tested without a line here, in both forms. The
two flavours of the graph are shared out among the forms.
"""

import inspect
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional as F

from export.fold.load import fold
from export.parity.verify import verify
from export.precision import Flavour, Recipe
from export.runtime import Classifier
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.errors import PromptError
from fedprompt.prompts.artefacts import from_artefact, to_artefact
from fedprompt.prompts.build import Prompt, build_prompt, recipe_of
from fedprompt.prompts.methods import METHODS, UNTRAINED, prompt_config
from fedprompt.prompts.recipe import HeadRecipe
from tests.classifier_file import write_classifier
from tests.prompts import stir

CLASSES = ("great grey owl", "great white shark", "tench", "sea", "maple tree")
TEMPLATE = "a photo of a {}."
BOUND = 1e-3  # of a logit, fp32 (issue 5)
FLAVOURS: dict[str, Flavour] = {"full": "ort", "lowrank": "portable"}

NEVER_FOLD = ("cocoop",)  # each image has class vectors of its own; the docstring says so
SETTINGS = {method: {"method": method} for method in METHODS if method not in NEVER_FOLD}
SETTINGS |= {
    "adapt": {"method": "adapt", "domains": "ink, clay, photo"},
    "vpt, shallow": {"method": "vpt", "depth": 1},
    "vpt, from block 1": {"method": "vpt", "first_layer": 1},
    "vpt, staying from block 1": {"method": "vpt", "first_layer": 1, "depth": 1},
    "coop, name in the middle": {"method": "coop", "name_position": "middle"},
    "dip, vectors of each class": {"method": "dip", "class_specific": True},
    "maple, words that stay": {"method": "maple", "tokens": 2},
    "ivlp, two blocks": {"method": "ivlp", "depth": 2},
    "mudpt, transformer maps": {"method": "mudpt", "maps": "transformer"},
    "mudpt, frozen maps": {"method": "mudpt", "freeze_maps": True},
}

Logits = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.uint8]:
    """Return what differs as photographs do: coarse cells, and one of noise."""
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 256, (11, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    return np.concatenate([cells, rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)])


def build(clip: FrozenClip, **settings: object) -> Prompt:
    config = prompt_config(**settings)  # type: ignore[arg-type]
    return build_prompt(config, clip, CLASSES, TEMPLATE, any_start=True)


def moved(prompt: Prompt) -> Prompt:
    """Move a prompt off its start."""
    stir(prompt)
    return prompt


def predict(clip: FrozenClip, prompt: Prompt, images: npt.NDArray[np.uint8]) -> Logits:
    """Return the method's own logits, of images encoded as a site encodes them."""
    with torch.no_grad():
        pixels = clip.normalise(torch.from_numpy(images))
        features = F.normalize(clip.encode_image(pixels), dim=-1)
        layer = prompt.first_layer
        rows = None if layer is None else clip.image.activations(pixels, layer)
        logits: Logits = prompt.predict(EncodedImages(features, rows)).numpy()
    return logits


def exported(
    clip: FrozenClip, prompt: Prompt, images: npt.NDArray[np.uint8], folder: Path, flavour: Flavour
) -> Logits:
    """Return the answers of the file, from an artefact on disk to one image, two and the rest."""
    to_artefact(clip, prompt, CLASSES, TEMPLATE, round=1, seed=0).save(folder / "artefact")
    artefact = Artefact.load(folder / "artefact")
    written = write_classifier(
        folder / "classifier.onnx",
        clip,
        fold(artefact, clip),
        CLASSES,
        images[:3],
        artefact_sha256=artefact.sha256,
        recipe=Recipe(flavour, "fp32"),
    )
    classifier = Classifier(written.path, provider="cpu", threads=1)
    assert verify(classifier).holds
    assert classifier.metadata.flavour == flavour
    parts = np.split(images, [1, 3])
    return np.concatenate([classifier.logits(part) for part in parts])


def check(found: Logits, expected: Logits) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < BOUND
    assert (found.argmax(-1) == expected.argmax(-1)).all()


@pytest.mark.parametrize("form", FLAVOURS)
@pytest.mark.parametrize("case", SETTINGS)
def test_the_file_answers_as_the_method(
    clip: FrozenClip, images: npt.NDArray[np.uint8], tmp_path: Path, case: str, form: str
) -> None:
    settings = SETTINGS[case] | {"form": form}
    prompt = moved(build(clip, **settings))
    expected = predict(clip, prompt, images)
    start = predict(clip, build(clip, **settings), images)
    assert np.abs(expected - start).max() > 10 * BOUND  # else a dropped prompt were not seen
    check(exported(clip, prompt, images, tmp_path, FLAVOURS[form]), expected)


@pytest.mark.parametrize("method", UNTRAINED)
def test_the_file_of_hand_written_words_answers_as_they(
    clip: FrozenClip, images: npt.NDArray[np.uint8], tmp_path: Path, method: str
) -> None:
    prompt = build(clip, method=method)
    expected = predict(clip, prompt, images)
    check(exported(clip, prompt, images, tmp_path, "ort"), expected)


@pytest.mark.parametrize("method", NEVER_FOLD)
def test_what_never_folds_says_so(clip: FrozenClip, method: str) -> None:
    recipe = recipe_of(method)
    made = recipe.head if isinstance(recipe, HeadRecipe) else recipe.host
    assert "Nothing folds" in (inspect.getmodule(made).__doc__ or "")
    prompt = build(clip, method=method)
    artefact = to_artefact(clip, prompt, CLASSES, TEMPLATE, round=1, seed=0)
    assert from_artefact(artefact, clip).arrays().keys() == prompt.arrays().keys()
    with pytest.raises(PromptError, match="does not fold"):
        fold(artefact, clip)
