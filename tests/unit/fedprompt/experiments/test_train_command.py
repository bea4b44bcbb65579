import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.cli import group
from fedprompt.errors import StorageError
from fedprompt.experiments import setup
from fedprompt.identity import sha256_arrays
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import prompt_config
from tests.pictures import image_folder


@pytest.fixture(autouse=True)
def photos(clip: FrozenClip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(setup, "shared_backbone", lambda config: clip)
    return image_folder(tmp_path / "photos", ("cat", "dog"), 12)


def call(photos: Path, output: Path, *settings: str, flags: tuple[str, ...] = ()) -> Result:
    sets = [f"data.source={photos}", "fit.epochs=8", "fit.batch=4", *settings]
    arguments = [part for value in sets for part in ("--set", value)]
    return CliRunner().invoke(
        group, ["train", "--output", str(output), "--json", *arguments, *flags]
    )


def test_it_leaves_the_prompt_that_it_scored(
    photos: Path, clip: FrozenClip, tmp_path: Path
) -> None:
    done = call(photos, tmp_path / "out")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert set(result) == {"artefact", "loss", "zero_shot_accuracy", "accuracy"}
    assert result["artefact"] == str(tmp_path / "out")
    artefact = Artefact.load(tmp_path / "out")
    assert artefact.metadata["classes"] == ["cat", "dog"]
    assert (artefact.metadata["round"], artefact.metadata["aggregation"]) == (0, None)
    start = build_prompt(prompt_config(), clip, ["cat", "dog"], "a photo of a {}.")
    found = from_artefact(artefact, clip).arrays()["ctx"]
    assert np.abs(found - start.frozen_arrays()["ctx.start"]).max() > 0
    again = ["eval", str(tmp_path / "out"), "--json", "--set", f"data.source={photos}"]
    scored = json.loads(CliRunner().invoke(group, again).stdout)
    assert {key: scored[key] for key in ("accuracy", "zero_shot_accuracy")} == {
        key: result[key] for key in ("accuracy", "zero_shot_accuracy")
    }


def test_the_published_dip_leaves_its_factors(
    photos: Path, clip: FrozenClip, tmp_path: Path
) -> None:
    assert call(photos, tmp_path / "out", "prompt.method=dip-fixed").exit_code == 0
    artefact = Artefact.load(tmp_path / "out")
    assert set(artefact.tensors) == {"ctx.A", "ctx.B", "ctx.start"}
    assert (artefact.metadata["form"], artefact.metadata["rank"]) == ("lowrank", 1)
    assert from_artefact(artefact, clip).arrays()["ctx.B"].any()


def test_dip_leaves_a_full_matrix_of_growing_rank(
    photos: Path, clip: FrozenClip, tmp_path: Path
) -> None:
    for epochs, rank in ((1, 1), (3, 3), (6, 4)):
        long = (f"fit.epochs={epochs}", "fit.learning_rate=0.5")
        done = call(photos, tmp_path / str(epochs), *long)
        assert done.exit_code == 0, done.output
        artefact = Artefact.load(tmp_path / str(epochs))
        assert set(artefact.tensors) == {"ctx"}
        assert artefact.metadata["form"] == "full"
        start = build_prompt(prompt_config(), clip, ["cat", "dog"], "a photo of a {}.")
        change = artefact.tensors["ctx"] - start.frozen_arrays()["ctx.start"]
        assert np.linalg.matrix_rank(change, rtol=1e-4) == rank
        assert np.array_equal(
            from_artefact(artefact, clip).arrays()["ctx"], artefact.tensors["ctx"]
        )


def test_zero_shot_is_the_template_whatever_the_prompt_starts_at(
    photos: Path, tmp_path: Path
) -> None:
    # drawn in both towers, this start answers otherwise than the template
    drawn = ["prompt.method=ivlp", "prompt.init=random", "prompt.tokens=4", "prompt.seed=3"]
    trained = json.loads(call(photos, tmp_path / "out", *drawn, "fit.epochs=1").stdout)
    sets = [part for v in (f"data.source={photos}", *drawn) for part in ("--set", v)]
    untrained = json.loads(CliRunner().invoke(group, ["eval", "--json", *sets]).stdout)
    assert untrained["accuracy"] != untrained["zero_shot_accuracy"]
    assert trained["zero_shot_accuracy"] == untrained["zero_shot_accuracy"]


def test_colours_are_learnt(photos: Path, tmp_path: Path) -> None:
    long = json.loads(call(photos, tmp_path / "out", "fit.epochs=60").stdout)
    short = json.loads(call(photos, tmp_path / "other", "fit.epochs=1").stdout)
    assert long["loss"] < short["loss"]


def test_one_seed_is_one_prompt(photos: Path, tmp_path: Path) -> None:
    def tensors(name: str, seed: int) -> str:
        assert call(photos, tmp_path / name, f"prompt.seed={seed}").exit_code == 0
        return sha256_arrays(Artefact.load(tmp_path / name).tensors)

    assert tensors("a", 0) == tensors("b", 0) != tensors("c", 1)


def test_a_person_reads_one_line(photos: Path, tmp_path: Path) -> None:
    arguments = ["train", "--output", str(tmp_path / "out"), "--set", f"data.source={photos}"]
    done = CliRunner().invoke(group, arguments)
    assert done.stdout.startswith("zero-shot ")
    assert done.stdout.endswith(f"held-out images; artefact in {tmp_path / 'out'}\n")


def test_a_prompt_of_a_sites_own_needs_sites(photos: Path, tmp_path: Path) -> None:
    done = call(photos, tmp_path / "out", "prompt.personal=both")
    assert done.exit_code == 2
    assert "use `fedprompt simulate`" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_template_has_nothing_to_train(photos: Path, tmp_path: Path) -> None:
    done = call(photos, tmp_path / "out", "prompt.method=template")
    assert done.exit_code == 5
    assert "trains nothing" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_no_artefact(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Artefact, folder: Path) -> None:
        raise StorageError("no space left on device")

    monkeypatch.setattr(Artefact, "save", full)
    done = call(photos, tmp_path / "out")
    assert done.exit_code == 12
    assert not (tmp_path / "out").exists()


def test_a_prompt_is_replaced_only_if_that_is_said(photos: Path, tmp_path: Path) -> None:
    assert call(photos, tmp_path / "out").exit_code == 0
    first = Artefact.load(tmp_path / "out").sha256
    refused = call(photos, tmp_path / "out", "prompt.seed=5")
    assert refused.exit_code == 2
    assert "holds a prompt already" in refused.stderr
    assert Artefact.load(tmp_path / "out").sha256 == first
    assert call(photos, tmp_path / "out", "prompt.seed=5", flags=("--overwrite",)).exit_code == 0
    assert Artefact.load(tmp_path / "out").sha256 != first
