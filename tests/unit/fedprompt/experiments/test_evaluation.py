import base64
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from fedprompt.backbone.clip import FrozenClip
from fedprompt.cli import group
from fedprompt.experiments import setup
from fedprompt.experiments.evaluation import confusion, metrics, spread_choice
from fedprompt.experiments.setup import open_experiment
from fedprompt.prompts.artefacts import to_artefact
from fedprompt.prompts.build import Prompt, build_prompt
from fedprompt.prompts.methods import prompt_config
from fedprompt.settings.run_config import RunConfig
from tests.pictures import image_folder
from tests.prompts import stir

CLASSES, TEMPLATE = ("cat", "dog", "ox"), "a photo of a {}."
PIXELS = np.zeros((5, 5, 3), np.uint8)


@pytest.fixture(autouse=True)
def photos(clip: FrozenClip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nine images to train on and six to test on, two a class."""
    monkeypatch.setattr(setup, "shared_backbone", lambda config: clip)
    image_folder(tmp_path / "photos" / "train", CLASSES, 3)
    return image_folder(tmp_path / "photos" / "test", CLASSES, 2, size=50).parent


@pytest.fixture
def prompt(clip: FrozenClip) -> Prompt:
    made = build_prompt(prompt_config(), clip, CLASSES, TEMPLATE)
    stir(made, spread=1.0)
    return made


@pytest.fixture
def run(clip: FrozenClip, prompt: Prompt, tmp_path: Path) -> Path:
    """Leave what a finished run leaves: the record and the artefact."""
    folder = tmp_path / "run"
    artefact = to_artefact(clip, prompt, CLASSES, TEMPLATE, round=1, seed=0)
    artefact.save(folder / "artefact")
    (folder / "rounds.jsonl").write_text("")
    return folder


def call(photos: Path, *arguments: object) -> Result:
    given = ["eval", *map(str, arguments), "--json", "--set", f"data.source={photos}"]
    return CliRunner().invoke(group, given)


def by_hand(photos: Path, prompt: Prompt) -> tuple[list[int], list[int], list[float]]:
    """Return true and predicted classes and the probabilities, one image at a time."""
    bench = open_experiment(RunConfig.parse({"data.source": str(photos), "fit.cache": False}))
    images, labels = bench.encode(bench.test)
    features = images.features
    with torch.no_grad():
        rows = [(bench.clip.logit_scale * prompt.class_vectors() @ f).softmax(0) for f in features]
    return labels.tolist(), [int(r.argmax()) for r in rows], [float(r.max()) for r in rows]


def test_the_numbers_are_those_of_the_prompt(photos: Path, run: Path, prompt: Prompt) -> None:
    result = json.loads(call(photos, run).stdout)
    truth, predicted, _ = by_hand(photos, prompt)
    hits = sum(a == b for a, b in zip(truth, predicted, strict=True))
    assert result["accuracy"] == hits / 6
    assert (result["images"], result["source"]) == (6, str(photos))
    zero_shot = json.loads(call(photos, "--set", "prompt.method=template").stdout)
    assert result["zero_shot_accuracy"] == zero_shot["accuracy"]


def test_the_template_equals_zero_shot(photos: Path) -> None:
    result = json.loads(call(photos, "--set", "prompt.method=template").stdout)
    assert result["accuracy"] == result["zero_shot_accuracy"]
    assert result["artefact"] is None


@pytest.mark.parametrize("method", ["dip", "coop"])
def test_an_untrained_prompt_equals_zero_shot(photos: Path, method: str) -> None:
    """Round 0 is CLIP itself."""
    result = json.loads(call(photos, "--set", f"prompt.method={method}").stdout)
    template = json.loads(call(photos, "--set", "prompt.method=template").stdout)
    assert result["nll"] == pytest.approx(template["nll"], rel=1e-5)
    assert result["accuracy"] == result["zero_shot_accuracy"]


def test_predictions_are_left_for_the_report(photos: Path, run: Path, prompt: Prompt) -> None:
    result = json.loads(call(photos, run).stdout)
    left = json.loads((run / "predictions.json").read_text())
    assert result.items() <= left.items()
    assert left["classes"] == list(CLASSES)
    truth, predicted, shares = by_hand(photos, prompt)
    counts = [[0] * 3 for _ in CLASSES]
    for true, guess in zip(truth, predicted, strict=True):
        counts[true][guess] += 1
    assert left["confusion"] == counts
    samples = {sample["name"]: sample for sample in left["samples"]}
    assert len(samples) == 6
    for index, name in enumerate(sorted(samples)):
        assert samples[name]["true"] == CLASSES[truth[index]]
        assert samples[name]["predicted"] == CLASSES[predicted[index]]
        assert samples[name]["probability"] == pytest.approx(shares[index], rel=1e-4)
        picture = Image.open(io.BytesIO(base64.b64decode(samples[name]["png"])))
        assert picture.size == (54, 50)


def test_an_artefact_without_a_run_is_left_alone(photos: Path, run: Path) -> None:
    before = sorted(run.rglob("*"))
    assert call(photos, run / "artefact").exit_code == 0
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cat,dog,cow", r"['cow', 'ox']"),
        ("dog,cat,ox", "their order"),
    ],
)
def test_other_classes_are_refused_by_name(
    run: Path, tmp_path: Path, names: str, message: str
) -> None:
    other = image_folder(tmp_path / "other", names.split(","), 10)
    settings = ("--set", f"data.class_names={names}")
    done = call(other, run, *settings)
    assert done.exit_code == 3
    assert message in done.stderr
    assert not (run / "predictions.json").exists()


def test_a_person_reads_intervals_and_what_six_images_can_tell(photos: Path, run: Path) -> None:
    done = CliRunner().invoke(group, ["eval", str(run), "--set", f"data.source={photos}"])
    accuracy, verdict, rest = done.stdout.splitlines()
    assert accuracy.startswith("accuracy ")
    assert accuracy.endswith("6 images, 95% intervals")
    assert verdict.endswith("not distinguishable on this test set")
    assert rest.startswith("macro F1")


def test_each_image_is_told_of_so_that_runs_can_be_compared(photos: Path, run: Path) -> None:
    call(photos, run)
    left = json.loads((run / "predictions.json").read_text())
    assert left["accuracy"] == sum(left["correct"]) / 6
    assert left["zero_shot_accuracy"] == sum(left["zero_shot_correct"]) / 6
    low, high = left["accuracy_interval"]
    assert 0 <= low <= left["accuracy"] <= high <= 1
    before = left["test_set"]
    call(photos, run)
    assert json.loads((run / "predictions.json").read_text())["test_set"] == before
    Image.fromarray(PIXELS).save(photos / "test" / "cat" / "0.png")
    call(photos, run)
    assert json.loads((run / "predictions.json").read_text())["test_set"] != before


def test_thumbnails_are_made_of_images_as_large_as_the_data_may_be(
    photos: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "fedprompt.data.image_set.decode",
        lambda c, *, max_pixels, white_level: asked.append(max_pixels) or PIXELS,
    )
    assert call(photos, run, "--set", "data.max_pixels=70000000").exit_code == 0
    assert set(asked) == {70_000_000}


# four images, three classes; the third class is neither true nor ever right
PROBABILITIES = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.2, 0.5]]
TRUTH = [0, 1, 1, 0]


def logits() -> torch.Tensor:
    return torch.tensor(PROBABILITIES).log()


def labels() -> torch.Tensor:
    return torch.tensor(TRUTH)


def test_values_computed_by_hand() -> None:
    found = metrics(logits(), labels())
    assert found["accuracy"] == 2 / 4
    # class 0: precision 1/2, recall 1/2; class 1: precision 1, recall 1/2; class 2 is not there
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    losses = [-math.log(0.8), -math.log(0.3), -math.log(0.7), -math.log(0.3)]
    assert found["nll"] == pytest.approx(sum(losses) / 4, rel=1e-6)
    # each confidence has a bin of its own: |0.8 - 1|, |0.6 - 0|, |0.7 - 1|, |0.5 - 0|
    assert found["ece"] == pytest.approx((0.2 + 0.6 + 0.3 + 0.5) / 4, rel=1e-5)


def test_a_sure_and_right_model() -> None:
    found = metrics(torch.eye(3) * 100, torch.arange(3))
    assert found == {"accuracy": 1.0, "macro_f1": 1.0, "ece": 0.0, "nll": 0.0}


def test_a_class_without_images_does_not_lower_f1() -> None:
    assert metrics(torch.eye(5)[:2] * 100, torch.arange(2))["macro_f1"] == 1.0


def test_confusion_has_the_truth_in_its_rows() -> None:
    assert confusion(logits(), labels()) == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]


def test_the_choice_goes_through_the_classes_in_turn() -> None:
    truth = torch.tensor([0] * 10 + [1] * 2 + [2] * 5)
    chosen = spread_choice(truth, 8, seed=0)
    assert [int(truth[i]) for i in chosen] == [0, 1, 2, 0, 1, 2, 0, 2]
    assert len(set(chosen)) == 8
    assert spread_choice(truth, 8, seed=0) == chosen
    assert spread_choice(truth, 8, seed=1) != chosen


@pytest.mark.parametrize("count", [0, 3, 9])
def test_no_more_than_there_are(count: int) -> None:
    assert sorted(spread_choice(torch.tensor([1, 0, 1]), count, 0)) == list(range(min(count, 3)))
