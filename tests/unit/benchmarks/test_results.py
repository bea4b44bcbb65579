import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import rates, results, results_parts, tiny_imagenet
from benchmarks.results_page import comparisons, merging_table, page, section
from benchmarks.results_parts import SEEDS, merging_case, parts
from client import site
from fedprompt.errors import ConfigError
from fedprompt.experiments import setup
from fedprompt.experiments.protocols.results import rows
from fedprompt.experiments.protocols.runner import Result
from fedprompt.prompts.methods import METHODS, UNTRAINED
from server.rounds import task_builder
from tests.pictures import image_folder

NATURAL = {"data.source": "natural", "data.class_names": "natural/classes.json"}
PARTS = {part.name: part for part in parts(NATURAL)}


def result(case, seed, **metrics):
    return Result(
        case=case, own={}, seed=seed, form="", parameters=1, sent=1, bytes_up=9, metrics=metrics,
        seconds=30.0,
    )  # fmt: skip


@pytest.mark.parametrize("name", list(PARTS))
def test_every_case_of_every_part_is_a_sound_configuration(name, tmp_path):
    part = PARTS[name]
    known = {"dip": 0.1, "dip-fixed": 0.15, "coop": 0.2, "advpt": 0.3, "vpt:lowrank": 0.4}
    one = results.part_series(part, known, {}, tmp_path)
    for case in one.cases:
        found = one.config(case, 1)
        method = found.prompt.method
        rate = known.get(f"{method}:lowrank" if case.endswith(":lowrank") else method)
        if method != "advpt" and rate:
            assert found.fit.learning_rate == rate, case
    folders = {one._folder(case, 0) for case in one.cases}
    assert len(folders) == len(one.cases)
    assert {other for pair in part.compare for other in pair[:2]} <= {*one.cases, "adapt"}


def test_every_method_has_a_row():
    rows = {name for part in PARTS.values() for name in part.cases({})}
    assert {*METHODS, *UNTRAINED} - rows == {"advpt"}
    assert PARTS["natural"].cases({}).keys() == PARTS["fashion"].cases({}).keys()
    assert PARTS["fashion"].cases({})["dip"] == {"prompt.method": "dip"}


def test_without_the_natural_images_their_parts_are_left_out():
    assert [part.name for part in parts(None)] == [
        name for name in PARTS if not name.startswith("natural")
    ]
    assert [part.name for part in results.chosen_parts("emoji, merging", None)] == [
        "emoji", "merging",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"no part is named natural; .* need --tiny-imagenet"):
        results.chosen_parts("natural", None)


def trial(name, rate, accuracy):
    own = {"fit.learning_rate": rate}
    return replace(result(f"{name} at {rate:g}", rates.SEED, accuracy=accuracy), own=own)


def test_the_rate_is_the_best_on_held_out_images_and_of_equals_the_smallest():
    trials = [
        trial("dip", 0.02, 0.5), trial("dip", 0.005, 0.5), trial("dip", 0.08, 0.4),
        trial("vpt:lowrank", 0.005, 0.1), trial("vpt:lowrank", 0.08, 0.3),
    ]  # fmt: skip
    assert rates.chosen(trials) == {"dip": 0.005, "vpt:lowrank": 0.08}
    assert rates.SEED not in SEEDS
    made = rates.choices()[results_parts.RATES].cases()
    assert made["dip at 0.02"] == {"prompt.method": "dip", "fit.learning_rate": 0.02}
    assert not any(name.startswith(UNTRAINED) for name in made)


def test_the_grid_widens_until_the_best_rate_has_a_worse_one_on_either_side():
    choice = rates.choices()[results_parts.RATES]
    first = [trial("dip", 0.005, 0.4), trial("dip", 0.02, 0.5), trial("dip", 0.08, 0.4)]
    first += [trial("coop", 0.005, 0.6), trial("coop", 0.02, 0.5), trial("coop", 0.08, 0.4)]
    assert choice.beyond(first) == {
        "coop at 0.00125": {"prompt.method": "coop", "fit.learning_rate": 0.00125}
    }
    assert choice.beyond([*first, trial("coop", 0.00125, 0.5)]) == {}
    far = [trial("coop", rates.HIGHEST, 0.9), trial("coop", 0.08, 0.5)]
    assert choice.beyond(far) == {}
    assert rates.at_the_edge(rates.chosen(far)) == ["coop"]


def test_comparisons_are_seed_by_seed():
    part = PARTS["fashion"]
    dip, coop = (0.50, 0.62, 0.40), (0.52, 0.60, 0.47)
    trials = [result("dip", s, harmonic_mean=v) for s, v in enumerate(dip)]
    trials += [result("coop", s, harmonic_mean=v) for s, v in enumerate(coop)]
    (told,) = comparisons(part, trials)
    gaps = 100 * (np.array(dip) - np.array(coop))
    assert told == (
        f"dip is {abs(gaps.mean()):.1f} ± {2.484 * gaps.std(ddof=1):.1f} points below coop in "
        "`harmonic_mean`; above it in 1 of 3 seeds."
    )


def test_equal_cases_are_called_equal():
    trials = [result(name, s, new_acc=0.1 * s) for name in ("dip", "coop") for s in range(3)]
    (told,) = comparisons(PARTS["fashion"], trials)
    assert told == "dip and coop have the same `new_acc` in all 3 seeds."


def test_merging_is_shown_by_sites_and_concentration():
    trials = [
        result(merging_case("product", 10, 0.1), s, accuracy=0.5, truncation_error=0.1 * s)
        for s in range(3)
    ]
    lines = merging_table(rows(trials)).splitlines()
    assert len(lines) == 2 + 2 * 2
    row = "| 10 | 0.1 | - | 50.0 ± 0.0 | - | - | - | 10.0 ± 10.0 | - | - |"
    assert row in lines


def test_a_page_without_trials_names_its_parts_and_tells_no_figure():
    text = page([*PARTS.values()], {}, {})
    assert "Not measured yet" in text
    told = " ".join(text.split())
    assert all(part.title in told for part in PARTS.values())
    assert "##" not in text
    assert "±" not in text
    assert "learning rate that" not in text


def test_a_part_has_its_table_with_intervals_over_the_seeds():
    trials = [result("template", seed, base_acc=0.25 + 0.01 * seed) for seed in SEEDS]
    text = section(PARTS["fashion"], trials)
    assert "| template | - | 26.0 ± 2.5 | 1 | 1 | 9 |" in text
    text = page([PARTS["fashion"]], {"fashion": trials}, {"rates": {"dip": 0.02, "coop": 5.12}})
    assert "Measured on" in text
    told = "dip 0.02, coop 5.12. The best of coop is the last that was tried."
    assert told in " ".join(text.split())


def test_a_run_leaves_trials_tables_and_the_page_and_goes_on(clip, monkeypatch, tmp_path):
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path / "cache"))
    for module in (site, task_builder, setup):
        monkeypatch.setattr(module, "shared_backbone", lambda config: clip)
    photos = image_folder(tmp_path / "photos", ("ant", "bee", "cat", "dog"), 12)
    few = {name: PARTS["fashion"].cases({})[name] for name in ("template", "dip")}
    monkeypatch.setattr(results_parts, "text_methods", lambda known: {
        name: own | {"fit.learning_rate": known["dip"]} for name, own in few.items()
    } if known else few)  # fmt: skip
    monkeypatch.setattr(rates, "text_methods", results_parts.text_methods)
    monkeypatch.setattr(results, "parts", lambda natural: [results_parts._fashion()])
    small = (f"data.source={photos}", "data.clients=2", "server.rounds=1", "data.limit=0",
             "data.partitioner=iid")  # fmt: skip
    arguments = {
        "output": tmp_path / "out", "tiny_imagenet": None, "only": "", "workers": 1,
        "override": [*small], "to": tmp_path / "results.md",
    }  # fmt: skip
    results.main(**arguments)
    text = (tmp_path / "results.md").read_text()
    assert "| template |" in text
    assert "dip 7.8125e-05" in text  # its rate: no image tells one from another
    assert (tmp_path / "out/fashion/results.csv").is_file()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("result.json")}
    assert len(kept) == 6 + 2 * 3
    results.main(**arguments)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_unseen_classes_are_unpacked_in_the_files_order(tmp_path):
    names = {f"n{i:03d}": f"name {i}, other" for i in reversed(range(60))}
    data = tmp_path / "data"
    data.mkdir()
    (data / tiny_imagenet.CLASS_FILE).write_text(json.dumps(names))
    for shard, split in (("train-0", "train"), ("train-3", "train"), ("val", "val")):
        with tarfile.open(data / f"tiny-imagenet-{shard}.tar", "w") as tar:
            for wnid in ("n055", "n049", "n000"):
                info = tarfile.TarInfo(f"{split}/{wnid}/{wnid}_{shard}.JPEG")
                info.size = 5
                tar.addfile(info, io.BytesIO(b"image"))
    found = tiny_imagenet.unpack(data, tmp_path / "unpacked")
    listed = json.loads((tmp_path / "unpacked/classes.json").read_text())
    assert list(listed.items())[:2] == [("n049", "name 49"), ("n048", "name 48")]
    assert len(listed) == 50
    files = {
        str(p.relative_to(tmp_path / "unpacked")) for p in (tmp_path / "unpacked").rglob("*.JPEG")
    }
    assert files == {
        f"{split}/{wnid}/{wnid}_{shard}.JPEG"
        for wnid in ("n049", "n000")
        for shard, split in (("train-0", "train"), ("train-3", "train"), ("val", "test"))
    }
    assert found["data.source"] == str(tmp_path / "unpacked")
    for shard in data.glob("*.tar"):
        shard.unlink()
    assert tiny_imagenet.unpack(data, tmp_path / "unpacked") == found  # not unpacked again
