import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.targets.card.run_record import RunRecord
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.identity import sha256_arrays
from tests.prompts import tuned


@pytest.fixture
def artefact(clip: FrozenClip) -> Artefact:
    return tuned(clip)


def record(run: Path, artefact: Artefact, *lines: dict[str, Any]) -> Path:
    """Write a run of which the last round made the artefact."""
    prompt = sha256_arrays({name: artefact.tensors[name] for name in artefact.metadata["trained"]})
    written = [{"round": 0, "prompt": "0" * 64, "joined": [0, 1]}, *lines]
    written.append({"round": len(written), "prompt": prompt, "accuracy": 0.5})
    (run / "artefact").mkdir(parents=True)
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
    (run / "settings.json").write_text(json.dumps({"server.strategy": "fedavg"}))
    return run


def test_the_round_that_made_the_prompt_is_found(artefact: Artefact, tmp_path: Path) -> None:
    run = record(tmp_path / "run", artefact, {"round": 1, "prompt": "1" * 64, "accuracy": 0.4})
    found = RunRecord.find(run, artefact)
    assert found is not None
    assert found.first is not None
    assert (found.first.joined, found.last.round) == ((0, 1), 2)
    assert found.settings == {"server.strategy": "fedavg"}
    assert RunRecord.find(run / "artefact", artefact) == found


def test_it_counts_whatever_round_came_after(artefact: Artefact, tmp_path: Path) -> None:
    run = record(tmp_path / "run", artefact)
    with (run / "rounds.jsonl").open("a") as file:
        file.write(json.dumps({"round": 2, "prompt": "2" * 64, "accuracy": 0.9}) + '\n{"round": ')
    found = RunRecord.find(run, artefact)
    assert found is not None
    assert found.last.accuracy == 0.5


def test_round_0_is_first_or_nothing_is(artefact: Artefact, tmp_path: Path) -> None:
    run = record(tmp_path / "run", artefact, {"round": 1, "prompt": "1" * 64, "accuracy": 0.4})
    lines = (run / "rounds.jsonl").read_text().splitlines(keepends=True)
    (run / "rounds.jsonl").write_text("".join(["{\n", *lines[1:]]))
    found = RunRecord.find(run, artefact)
    assert found is not None
    assert (found.first, found.last.round) == (None, 2)


def test_the_record_of_another_prompt_is_none(artefact: Artefact, tmp_path: Path) -> None:
    run = record(tmp_path / "run", artefact)
    changed = {name: array + np.float32(1e-6) for name, array in artefact.tensors.items()}
    assert RunRecord.find(run, replace(artefact, tensors=changed)) is None
    assert RunRecord.find(tmp_path / "nothing", artefact) is None


@pytest.mark.parametrize("name", ["rounds.jsonl", "settings.json"])
@pytest.mark.parametrize("damage", [b"\xff", b"[]", b"[" * 100_000, b"", b"3"])
def test_damage_leaves_out_what_is_lost(
    artefact: Artefact, tmp_path: Path, name: str, damage: bytes
) -> None:
    run = record(tmp_path / "run", artefact)
    (run / name).write_bytes(damage)
    found = RunRecord.find(run, artefact)
    if name == "rounds.jsonl":
        assert found is None
    else:
        assert found is not None
        assert found.settings == {}
