"""ONNX equals torch on real images, and round 0 equals CLIP."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client.tuning.evaluate import predict
from export.fold.constants import Constants
from export.fold.load import fold
from export.precision import Flavour, Recipe
from export.runtime import Classifier
from fedprompt.artefact import Artefact
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.backbone.load import load_backbone
from fedprompt.data.decode import decode
from fedprompt.data.load import load
from fedprompt.data.preprocess import fit_to_input
from fedprompt.experiments.setup import Experiment
from fedprompt.prompts.artefacts import from_artefact, to_artefact
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import prompt_config
from fedprompt.prompts.template import Template, zero_shot_vectors
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.data import DataConfig
from fedprompt.settings.fit import FitConfig
from fedprompt.types import Labels
from tests.classifier_file import write_classifier
from tests.prompts import stir

IMAGES = 1000
BOUND = 1e-3  # of a logit, fp32 (issue 2)


@pytest.fixture(scope="module")
def bench() -> Experiment:
    """Open the embedded backbone and 1,000 test images of Fashion-MNIST."""
    data = DataConfig(source="fashion-mnist", limit=20, test_limit=IMAGES)
    clip = load_backbone(BackboneConfig(name="embedded", device="cpu"))
    return Experiment(clip, data, FitConfig(cache=False), *load(data))


@pytest.fixture(scope="module")
def encoded(bench: Experiment) -> tuple[EncodedImages, Labels]:
    return bench.encode(bench.test)


@pytest.fixture(scope="module")
def artefact(bench: Experiment) -> Artefact:
    """Return a prompt that is far from its start."""
    classes, template = bench.test.classes, bench.data.template
    prompt = build_prompt(prompt_config(rank=2), bench.clip, classes, template)
    stir(prompt)
    return to_artefact(bench.clip, prompt, classes, template, round=1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["ort", "portable"])
def test_onnx_equals_torch_on_real_images(
    bench: Experiment,
    encoded: tuple[EncodedImages, Labels],
    artefact: Artefact,
    tmp_path: Path,
    flavour: Flavour,
) -> None:
    prompt = from_artefact(artefact, bench.clip)
    expected = predict(prompt, encoded[0]).numpy()
    images = np.stack(
        [
            fit_to_input(decode(bench.test.content(i)), bench.clip.preprocessing)
            for i in range(len(bench.test))
        ]
    )
    written = write_classifier(
        tmp_path / "classifier.onnx",
        bench.clip,
        fold(artefact, bench.clip),
        bench.test.classes,
        images[:16],
        artefact_sha256=artefact.sha256,
        recipe=Recipe(flavour, "fp32"),
    )
    assert written.conversion.metadata.flavour == flavour
    classifier = Classifier(written.path, provider="cpu")
    found = np.concatenate([classifier.logits(part) for part in np.split(images, 20)])
    assert found.shape == (IMAGES, 10)
    assert np.abs(found - expected).max() < BOUND
    assert (found.argmax(-1) == expected.argmax(-1)).all()
    assert len(set(expected.argmax(-1))) > 5  # the answers do differ


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [Recipe("ort", "fp16"), Recipe("portable", "int8-dynamic")])
def test_short_numbers_lose_less_than_a_point(
    bench: Experiment, tmp_path: Path, recipe: Recipe
) -> None:
    """On the template's classes: labels are right more often than chance, so a loss can be seen."""
    classes, pre = bench.test.classes, bench.clip.preprocessing
    vectors = zero_shot_vectors(bench.clip, classes, bench.data.template).detach().numpy()
    decoded = (decode(bench.test.content(i)) for i in range(len(bench.test)))
    images = np.stack([fit_to_input(pixels, pre) for pixels in decoded])
    written = write_classifier(
        tmp_path / "classifier.onnx",
        bench.clip,
        Constants(class_vectors=vectors),
        classes,
        images,
        artefact_sha256="",
        recipe=recipe,
        labels=bench.test.labels,
        calibration=images[:16],
    )
    parity = written.conversion.parity
    assert parity is not None
    assert parity.loss is not None
    assert parity.loss < 0.01
    assert parity.agreement > (0.995 if recipe.precision == "fp16" else 0.9)
    assert parity.largest > BOUND  # it is another graph


@pytest.mark.slow
def test_the_tuned_prompt_is_not_the_template(
    bench: Experiment, encoded: tuple[EncodedImages, Labels], artefact: Artefact
) -> None:
    """Else the comparison above would not see a prompt that was dropped."""
    template = Template(bench.clip, bench.test.classes, bench.data.template)
    tuned = from_artefact(artefact, bench.clip)
    difference = predict(tuned, encoded[0]) - predict(template, encoded[0])
    assert float(difference.abs().max()) > 100 * BOUND


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dip", "coop"])
def test_round_0_equals_clip(
    bench: Experiment, encoded: tuple[EncodedImages, Labels], method: str
) -> None:
    """open_clip's own forward of the template's sentences, no part of the prompts package."""
    clip, classes, template = bench.clip, bench.test.classes, bench.data.template
    prompt = build_prompt(prompt_config(method=method), clip, classes, template)
    tokens = clip.tokenize([template.format(name) for name in classes])
    with torch.no_grad():
        plain = F.normalize(clip.model.encode_text(tokens), dim=-1)
        expected = clip.logit_scale * encoded[0].features @ plain.T
    found = predict(prompt, encoded[0])
    # open_clip's own logits are up to 0.7e-4 from those in float64, and these up to 1.1e-4
    torch.testing.assert_close(found, expected, rtol=0, atol=BOUND)
    assert bool((found.argmax(-1) == expected.argmax(-1)).all())
