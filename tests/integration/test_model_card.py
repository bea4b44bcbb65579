"""A model card from the first round to the signature: its figures are the run's own."""

import json
from pathlib import Path

import pytest

from fedprompt.artefact import load_artefact
from tests.doors import passed, refused
from tests.pictures import image_folder
from tests.signing_keys import write_keys


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private run of two sites over two rounds."""
    root = tmp_path_factory.mktemp("card")
    photos = image_folder(root / "photos", ("blue", "green", "red"), 12)
    settings = {
        "data.source": photos,
        "data.clients": 2,
        "data.partitioner": "iid",
        "server.rounds": 2,
        "privacy.noise_multiplier": 3,
    }
    chosen = [f"--set={key}={value}" for key, value in settings.items()]
    passed("simulate", *chosen, "--output", root / "run")
    return root / "run"


@pytest.mark.parametrize("inside", ["", "artefact"])
def test_the_card_has_the_run_s_own_figures(run: Path, tmp_path: Path, inside: str) -> None:
    model = tmp_path / "classifier.onnx"
    passed("export", run / inside, "--output", model)
    told = (tmp_path / "classifier.onnx.md").read_text()
    first, *_, last = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    spent = load_artefact(run).metadata["privacy"]
    held_out = sum(site["examples"] for site in last["sites"].values())
    for name, value in (
        ("round", "2"),
        ("sites that joined", "2"),
        ("strategy", "fedavg"),
        ("accuracy of the untrained prompt", f"{first['accuracy']:.1%}"),
        ("accuracy", f"{last['accuracy']:.1%}"),
        ("training loss", f"{last['loss']:.4f}"),
        ("accuracies are of", f"{held_out} held-out images of the sites"),
        ("epsilon", repr(spent["epsilon"])),
        ("releases", "2"),
    ):
        assert f"| {name} | {value} |" in told, name
    assert spent["epsilon"] == last["epsilon"]
    assert str(run.parent) not in told


def test_a_signed_folder_and_a_later_word_in_its_card(run: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path / "keys")
    bundle = tmp_path / "bundle"
    passed("export", run, "--open-vocabulary", "--output", bundle)
    passed("sign", bundle, "--key", private)
    passed("verify", bundle, "--public-key", public)
    card = bundle / "README.md"
    card.write_text(card.read_text().replace("| accuracy |", "| best accuracy |"))
    refused(11, "verify", bundle, "--public-key", public, says="changed: 'README.md'")
