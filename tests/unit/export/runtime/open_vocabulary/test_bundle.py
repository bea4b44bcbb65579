from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import export.runtime.open_vocabulary.bundle
from export.runtime.open_vocabulary.bundle import Bundle
from fedprompt.errors import GraphError, StorageError


@pytest.mark.parametrize("name", ["classifier.onnx", "text_encoder.onnx", "tokenizer.json"])
def test_a_changed_file_is_refused(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(GraphError, match=r"found sha256 .* was changed"):
        Bundle(bundle).read(name)


def test_a_changed_or_missing_version_is_refused(bundle: Path) -> None:
    path = bundle / Bundle(bundle).manifest.served.tensors
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(GraphError, match="was changed"):
        Bundle(bundle).state(1)
    path.unlink()
    with pytest.raises(GraphError, match="could not be read"):
        Bundle(bundle).state(1)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="--open-vocabulary"):
        Bundle(tmp_path)


def test_versions_follow_each_other_and_lead_back(bundle: Path) -> None:
    opened = Bundle(bundle)
    first = opened.state(1)
    second = replace(first, classes=("x", *first.classes[1:]))
    assert opened.commit(second) == 2
    assert Bundle(bundle).manifest.served.classes[0] == "x"
    assert opened.roll_back() == 1
    third = replace(first, vectors=-first.vectors)
    assert Bundle(bundle).commit(third) == 3
    assert Bundle(bundle).manifest.served.parent == 1  # 2 was rolled back
    np.testing.assert_array_equal(Bundle(bundle).state(3).vectors, third.vectors)
    assert Bundle(bundle).roll_back() == 1
    with pytest.raises(GraphError, match="none before it"):
        Bundle(bundle).roll_back()


@pytest.mark.parametrize("written", [0, 1])
def test_a_crash_leaves_the_old_version(
    bundle: Path, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, left = (bundle / "bundle.json").read_bytes(), [written]
    write = export.runtime.open_vocabulary.bundle.write_atomic

    def crashing(path: Path, data: bytes) -> None:
        if not left[0]:
            raise StorageError("the disk is full")
        left[0] -= 1
        write(path, data)

    monkeypatch.setattr(export.runtime.open_vocabulary.bundle, "write_atomic", crashing)
    opened = Bundle(bundle)
    with pytest.raises(StorageError):
        opened.commit(replace(opened.state(1), vectors=-opened.state(1).vectors))
    assert (bundle / "bundle.json").read_bytes() == before
    assert Bundle(bundle).manifest.current == opened.manifest.current == 1
    Bundle(bundle).state(1)


def test_of_two_writers_at_a_time_the_second_is_told(bundle: Path) -> None:
    one, other = Bundle(bundle), Bundle(bundle)
    state = one.state(1)
    one.commit(replace(state, vectors=-state.vectors))
    with pytest.raises(GraphError, match="serves version 2, this change was made to version 1"):
        other.commit(replace(state, vectors=state.vectors[:, ::-1].copy()))
    np.testing.assert_array_equal(Bundle(bundle).state(2).vectors, -state.vectors)
    late = Bundle(bundle)
    one.roll_back()
    with pytest.raises(GraphError, match="do it again"):
        late.roll_back()
    assert Bundle(bundle).manifest.current == 1


def test_of_many_writers_at_a_time_none_is_lost(bundle: Path) -> None:
    """Each commits until it is its turn; a lost one would leave fewer versions."""
    state = Bundle(bundle).state(1)

    def commit(number: int) -> int:
        mine = replace(state, vectors=np.roll(state.vectors, number))
        while True:
            try:
                return Bundle(bundle).commit(mine)
            except GraphError:
                continue

    with ThreadPoolExecutor(8) as pool:
        numbers = sorted(pool.map(commit, range(1, 17)))
    assert numbers == list(range(2, 18))
    assert len(Bundle(bundle).manifest.versions) == 17


def test_vectors_that_do_not_fit_the_names_are_refused(bundle: Path) -> None:
    opened = Bundle(bundle)
    opened.commit(replace(opened.state(1), classes=("x", "y")))
    with pytest.raises(GraphError, match="2 classes and class vectors of shape"):
        Bundle(bundle).state(2)
