"""F28, F33 and the loading of a run's and of a site's images."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedprompt.data.load import inspect, load, own, share
from fedprompt.errors import DataError
from fedprompt.settings.data import DataConfig

Encode = Callable[..., bytes]
MakeFolder = Callable[[Path, Mapping[str, int]], Path]


@pytest.fixture
def photos(tmp_path: Path, make_folder: MakeFolder) -> Path:
    make_folder(tmp_path / "photos/train", {"cat": 40, "owl": 20, "yak": 30})
    make_folder(tmp_path / "photos/test", {"cat": 10, "owl": 10, "yak": 10})
    return tmp_path / "photos"


def config(source: Path, **changes: object) -> DataConfig:
    return DataConfig.model_validate({"source": str(source)} | changes)


def test_training_and_test_images(photos: Path) -> None:
    train, test = load(config(photos))
    assert train.classes == test.classes == ("cat", "owl", "yak")
    assert train.counts().tolist() == [40, 20, 30]
    assert test.counts().tolist() == [10, 10, 10]
    assert inspect(config(photos)).notes == ()


def test_a_source_without_a_test_split_is_split(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path, {"cat": 50, "owl": 50})
    train, test = load(config(tmp_path))
    assert train.counts().tolist() == [40, 40]
    assert test.counts().tolist() == [10, 10]
    train, test = load(config(tmp_path, test_share=0))
    assert (len(train), len(test)) == (100, 0)


def test_shots_and_limits(photos: Path) -> None:
    train, test = load(config(photos, shots=3, test_limit=6))
    assert train.counts().tolist() == [3, 3, 3]
    assert test.counts().tolist() == [2, 2, 2]
    assert load(config(photos, limit=9))[0].counts().tolist() == [4, 2, 3]


def test_the_seed_decides_and_a_process_loads_once(photos: Path) -> None:
    first = load(config(photos, shots=3))[0]
    assert load(config(photos, shots=3))[0] is first
    other = load(config(photos, shots=3, seed=1))[0]
    assert first.rows.tolist() != other.rows.tolist()
    inspect.cache_clear()
    assert load(config(photos, shots=3))[0].rows.tolist() == first.rows.tolist()


def test_sites_are_disjoint_and_complete(photos: Path) -> None:
    settings = config(photos, alpha=0.1)
    sites = [share(settings, number, 8) for number in range(8)]
    rows = np.concatenate([np.append(s.train.rows, s.holdout.rows) for s in sites])
    np.testing.assert_array_equal(np.sort(rows), np.arange(90))
    assert sites[0].train.classes == ("cat", "owl", "yak")


def test_a_site_may_be_empty(photos: Path) -> None:
    settings = config(photos, limit=6, alpha=0.01)
    sites = [share(settings, number, 6) for number in range(6)]
    assert min(len(s.train) + len(s.holdout) for s in sites) == 0
    assert sum(len(s.train) + len(s.holdout) for s in sites) == 6


def test_one_site_of_one_keeps_all_it_has(photos: Path) -> None:
    mine = own(config(photos, partitioner="pathological"))
    assert (len(mine.train), len(mine.holdout)) == (72, 18)
    assert mine.holdout.counts().tolist() == [8, 4, 6]
    assert len(own(config(photos, holdout=0)).holdout) == 0


@pytest.mark.parametrize(("number", "of"), [(-1, 3), (3, 3), (0, 0)])
def test_a_site_that_is_not_there(photos: Path, number: int, of: int) -> None:
    with pytest.raises(DataError, match=f"partition-id is {number}; expected 0 to {of - 1}"):
        share(config(photos), number, of)


def test_a_deployed_site_has_some_classes_of_the_list(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    make_folder(tmp_path, {"owl": 10, "snow_yak": 10})
    settings = config(tmp_path, class_names="cat,owl,snow yak", test_share=0)
    mine = own(settings)
    assert mine.train.classes == ("cat", "owl", "snow yak")
    assert mine.train.counts().tolist() == [0, 8, 8]
    assert inspect(settings).notes == ("classes without a training image here: 'cat'",)


def test_an_unknown_folder_is_named(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path, {"owl": 2, "dog": 2})
    with pytest.raises(DataError, match=r"'dog', which data\.class_names does not list"):
        load(config(tmp_path, class_names="cat,owl"))


def test_F28_an_empty_class(photos: Path) -> None:
    (photos / "train/zebra").mkdir()
    with pytest.raises(DataError, match=r"without a training image: 'zebra'; remove them, or"):
        load(config(photos))
    load(config(photos, class_names="cat,owl,yak,zebra"))


def test_a_class_whose_files_are_all_passed_over_says_why(photos: Path) -> None:
    (photos / "train/zebra").mkdir()
    for number in range(3):
        (photos / f"train/zebra/{number}.raw").write_bytes(b"")
    with pytest.raises(DataError, match=r"image: 'zebra' \('zebra': 3 files .*: 3 \.raw\); remove"):
        load(config(photos))


def test_what_was_understood_of_a_source_is_said_with_its_errors(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    make_folder(tmp_path / "dataset", {"cat": 2, "owl": 2})
    with pytest.raises(DataError, match=r"found 1 class .*: if those are meant, set data\.source"):
        load(config(tmp_path))


def test_F28_one_class_and_none(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path / "one", {"cat": 3})
    with pytest.raises(DataError, match=r"found 1 class .* at least two"):
        load(config(tmp_path / "one"))
    make_folder(tmp_path / "none", {"cat": 0, "owl": 0})
    with pytest.raises(DataError, match="found no training images"):
        load(config(tmp_path / "none"))


def test_F28_a_single_sample_is_noted(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path, {"cat": 20, "owl": 1})
    notes = inspect(config(tmp_path)).notes
    assert notes == ("classes with a single training image: 'owl'",)


def test_F27_few_unreadable_images_are_skipped_and_listed(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "train/cat/3.png").write_bytes(b"junk")
    (photos / "test/owl/0.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        loaded = inspect(config(photos))
    assert (len(loaded.train), len(loaded.test)) == (89, 29)
    assert [name for name, _ in loaded.skipped] == ["train/cat/3.png", "test/owl/0.png"]
    assert "2 images cannot be read and are skipped: 'train/cat/3.png: the 4 bytes" in caplog.text
    assert "train/cat/3.png" not in [loaded.train.name(i) for i in range(89)]


def test_F27_more_than_a_twentieth_unreadable_is_refused(photos: Path) -> None:
    for number in range(5):
        (photos / f"train/cat/{number}.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"5 of 90 images cannot be read, more than the 5%.*cat/0"):
        load(config(photos))
    assert len(load(config(photos, unreadable_share=0.1))[0]) == 85


def test_12_bits_in_files_of_16_are_noted_until_the_white_level_is_set(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("cat", "owl"):
        (tmp_path / name).mkdir()
        for number in range(5):
            wide = random.integers(0, 4096, (8, 8), dtype=np.uint16)
            Image.fromarray(wide).save(tmp_path / name / f"{number}.png")
    notes = inspect(config(tmp_path, test_share=0)).notes
    assert any("10 images of 16 bits use less than a sixteenth" in note for note in notes)
    told = inspect(config(tmp_path, test_share=0, white_level=4095))
    assert not told.notes
    assert told.train.subset([1]).pixels(0).max() > 200


def test_F28_a_leak_is_named_and_refused_dropped_or_allowed(photos: Path) -> None:
    content = (photos / "test/owl/0.png").read_bytes()
    (photos / "train/owl/1.png").write_bytes(content)
    found = "1 training images are also in the test split: 'train/owl/1.png = test/owl/0.png'"
    with pytest.raises(DataError, match=f"{found}.* drop or allow"):
        load(config(photos, leakage="refuse"))
    dropped = inspect(config(photos))
    assert (len(dropped.train), len(dropped.test)) == (89, 30)
    assert dropped.notes == (f"{found}; they are dropped from training",)
    allowed = inspect(config(photos, leakage="allow"))
    assert len(allowed.train) == 90
    assert "too high" in allowed.notes[0]


def test_F28_a_folder_that_is_both_splits_is_refused(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    make_folder(tmp_path / "train", {"cat": 4, "owl": 4})
    (tmp_path / "test").symlink_to(tmp_path / "train")
    with pytest.raises(DataError, match=r"8 training images are also .*data\.leakage to allow"):
        load(config(tmp_path))
    assert len(load(config(tmp_path, leakage="allow"))[0]) == 8


def test_F28_copies_never_lie_on_both_sides_of_a_split(
    tmp_path: Path, make_folder: MakeFolder, encode: Encode
) -> None:
    make_folder(tmp_path, {"cat": 30, "owl": 30})
    for number in range(20):
        (tmp_path / f"cat/{number}.png").write_bytes(encode(0))
    loaded = inspect(config(tmp_path))  # the split is ours, so nothing is refused
    mine = own(config(tmp_path))
    sets = [loaded.test, mine.train, mine.holdout]
    digests = [{s.digest(i) for i in range(len(s))} for s in sets]
    assert not digests[0] & (digests[1] | digests[2])
    assert not digests[1] & digests[2]


def test_F28_copies_are_noted_with_those_of_another_label(photos: Path, encode: Encode) -> None:
    content = (photos / "train/cat/0.png").read_bytes()
    (photos / "train/cat/1.png").write_bytes(content)
    (photos / "train/owl/0.png").write_bytes(content)
    notes = inspect(config(photos)).notes
    assert notes[0].startswith("2 training images are copies of others: 'train/cat/1.png = train/")
    assert notes[1] == "1 copies have another label than the first: 'train/owl/0.png'"


@pytest.fixture
def zhou(tmp_path: Path, encode: Encode) -> Path:
    """Write a small file of CoOp's: five classes, numbered against the alphabet."""
    sizes = {
        "yak": (6, 2, 3),
        "owl": (6, 2, 3),
        "emu": (2, 1, 3),
        "cat": (6, 2, 3),
        "ant": (5, 2, 3),
    }
    tree: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    number = 0
    for label, (name, counts) in enumerate(sizes.items()):
        for split, count in zip(tree, counts, strict=True):
            for _ in range(count):
                number += 1
                (tmp_path / f"{number}.png").write_bytes(encode(number))
                tree[split].append((f"{number}.png", label, name))
    path = tmp_path / "split_zhou_Small.json"
    path.write_text(json.dumps(tree))
    return path


def test_coops_file_few_shot_and_base_to_new_are_coops(zhou: Path) -> None:
    """`generate_fewshot_dataset`: k images a class of train, all of a smaller class; test whole.

    `subsample_classes`: of five classes in order of their numbers three are base.
    """
    tree = json.loads(zhou.read_text())
    train, test = load(config(zhou, shots=4))
    assert train.classes == ("yak", "owl", "emu", "cat", "ant")
    assert train.counts().tolist() == [4, 4, 2, 4, 4]
    assert test.counts().tolist() == [3] * 5
    named = {path: name for path, _, name in tree["train"]}
    for index in range(len(train)):  # nothing of val or test, each with its own name
        assert named[Path(train.name(index)).name] == train.classes[train.labels[index]]
    assert {Path(test.name(i)).name for i in range(len(test))} == {row[0] for row in tree["test"]}
    base, base_test = load(config(zhou, shots=4, subsample_classes="base"))
    new, new_test = load(config(zhou, shots=4, subsample_classes="new"))
    assert (base.classes, new.classes) == (("yak", "owl", "emu"), ("cat", "ant"))
    assert base.counts().tolist() == [4, 4, 2]
    assert base_test.counts().tolist() == [3, 3, 3]
    assert new_test.counts().tolist() == [3, 3]
    # base shots are the same images whether or not the other classes are there
    assert base.rows.tolist() == train.rows[train.labels < 3].tolist()


def test_k_shots_hold_the_fewer_shots(zhou: Path) -> None:
    rows = [set(load(config(zhou, shots=k))[0].rows.tolist()) for k in (1, 2, 4)]
    assert rows[0] < rows[1] < rows[2]
