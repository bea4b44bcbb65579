import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fedprompt.backbone.clip import FrozenClip
from fedprompt.cli import group
from fedprompt.errors import ConfigError
from fedprompt.experiments import setup
from fedprompt.experiments.protocols import PROTOCOLS
from fedprompt.experiments.protocols.run import chosen_methods, chosen_seeds
from fedprompt.prompts.methods import METHODS, UNTRAINED
from tests.pictures import image_folder


@pytest.fixture
def photos(clip: FrozenClip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(setup, "shared_backbone", lambda config: clip)
    return image_folder(tmp_path / "photos", ("ant", "bee", "cat", "dog"), 10)


def call(photos: Path, *arguments: object) -> Result:
    given = ["eval", *map(str, arguments), "--set", f"data.source={photos}"]
    return CliRunner().invoke(group, [*given, "--set", "fit.epochs=1"])


def test_it_leaves_tables_plots_and_trials(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("--protocol", "base-to-new", "--methods", "template,dip", "--seeds", "0,1")
    done = call(photos, *arguments, "--output", out)
    assert done.exit_code == 0, done.output
    assert "| dip | lowrank |" in done.stdout
    assert {path.name for path in out.glob("*.*")} == {
        "results.md", "results.csv", "results.json", "protocol.json", "accuracy_against_sent.png",
        "base_against_new.png",
    }  # fmt: skip
    assert "over seeds 0, 1" in (out / "results.md").read_text()
    table = json.loads((out / "results.json").read_text())["rows"]
    assert [row["case"] for row in table] == ["template", "dip"]
    assert table[1]["parameters"] == table[1]["sent"] == 32
    again = call(photos, *arguments, "--output", out, "--json")
    assert again.stderr.count("kept") == 4
    assert json.loads(again.stdout)["methods"] == ["template", "dip"]


def test_what_was_done_is_in_the_tables_when_a_trial_fails(photos: Path, tmp_path: Path) -> None:
    arguments = ("--protocol", "base-to-new", "--methods", "template,dip", "--seeds", "0")
    done = call(photos, *arguments, "--output", tmp_path / "out", "--set", "prompt.rank=9")
    assert done.exit_code == 5
    assert "1 of 2 trials failed, first: prompt.rank = 9" in done.stderr
    assert "| template |" in (tmp_path / "out/results.md").read_text()


def test_targets_bring_their_own_data(photos: Path, tmp_path: Path) -> None:
    image_folder(tmp_path / "fruit", ("fig", "lime"), 10)
    (tmp_path / "fruit.toml").write_text(f'[data]\nsource = "{tmp_path / "fruit"}"\n')
    done = call(
        photos, "--protocol", "cross-dataset", "--methods", "template", "--seeds", 0, "--target",
        tmp_path / "fruit.toml", "--output", tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "accuracy_fruit" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--protocol", "base-2-new"), "no protocol is named 'base-2-new'; expected base-to-new"),
        (("--protocol", "base-to-new", "--methods", "deep"), "--methods: found 'deep'"),
        (("--protocol", "base-to-new", "--methods", "dip:half"), "found 'dip:half'"),
        (("--protocol", "base-to-new", "--methods", ","), "names no method"),
        (("--protocol", "base-to-new", "--seeds", "one"), "--seeds: found 'one'"),
        (("--protocol", "base-to-new", "--seeds", "-1"), "--seeds: found '-1'"),
        (("run", "--protocol", "base-to-new"), "takes no run, found run"),
    ],
)
def test_what_is_not_known_is_named(photos: Path, arguments: tuple, message: str) -> None:
    done = call(photos, *arguments)
    assert done.exit_code == ConfigError.exit_code
    assert message in done.stderr


def test_lists() -> None:
    assert chosen_methods("all") == [*UNTRAINED, *METHODS]
    assert chosen_methods("dip, coop:lowrank,dip") == ["dip", "coop:lowrank"]
    assert chosen_seeds("2,0, 1") == [2, 0, 1]


def test_every_protocol_has_its_page() -> None:
    page = (Path(__file__).parents[5] / "docs/protocols.md").read_text()
    assert all(f"`{name}`" in page for name in PROTOCOLS)
