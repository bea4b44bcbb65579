import multiprocessing
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from client.features.feature_store import FeatureStore
from fedprompt.errors import StorageError


def vectors(first: int, count: int) -> dict[str, np.ndarray]:
    return {
        f"{i:064x}": np.random.default_rng(i).normal(size=24).astype(np.float32)
        for i in range(first, first + count)
    }


def same(found: dict, expected: dict) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].tobytes() == expected[name].tobytes() for name in expected
    )


def test_what_was_kept_comes_back_bit_for_bit(tmp_path: Path) -> None:
    kept = vectors(0, 1200)  # more than one query asks for
    FeatureStore("k", tmp_path).write(kept)
    store = FeatureStore("k", tmp_path)
    assert same(store.read(list(kept)), kept)
    assert same(store.read(["0" * 64, "unknown"]), {"0" * 64: kept["0" * 64]})
    assert store.read([]) == {}


def test_another_key_is_another_store(tmp_path: Path) -> None:
    FeatureStore("a" * 64, tmp_path).write(vectors(0, 1))
    assert FeatureStore("b" * 64, tmp_path).read(list(vectors(0, 1))) == {}


def test_it_lies_in_the_users_cache(own_cache: Path) -> None:
    assert FeatureStore("ab" * 32).path == own_cache / "features" / f"{'ab' * 16}.sqlite"


def test_the_first_vector_of_an_image_stays(tmp_path: Path) -> None:
    store, kept = FeatureStore("k", tmp_path), vectors(0, 1)
    store.write(kept)
    store.write({name: vector + 1 for name, vector in kept.items()})
    assert same(store.read(list(kept)), kept)


def test_a_failing_write_keeps_nothing_of_it(tmp_path: Path) -> None:
    store = FeatureStore("k", tmp_path)
    with pytest.raises(StorageError):
        store.write(vectors(0, 3) | {object(): np.zeros(24, np.float32)})
    assert store.read(list(vectors(0, 3))) == {}


def work(task: tuple[str, int]) -> int:
    folder, first = task
    store = FeatureStore("k", Path(folder))
    for start in range(first, first + 20):
        store.write(vectors(start, 5))
    return len(store.read(list(vectors(first, 20))))


def test_two_processes_share_one_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(work, [(str(tmp_path), 0), (str(tmp_path), 10)])) == [20, 20]
    expected = vectors(0, 34)
    assert same(FeatureStore("k", tmp_path).read(list(expected)), expected)


def test_f22_a_damaged_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    store = FeatureStore("k", tmp_path)
    store.write(vectors(0, 400))
    store.path.write_bytes(b"this is no database" * 1000)
    hint = "remove the file, set FEDPROMPT_CACHE .* or set fit.cache = false"
    for use in (lambda: FeatureStore("k", tmp_path), lambda: store.read(["0" * 64])):
        with pytest.raises(StorageError, match=hint) as caught:
            use()
        assert str(store.path) in str(caught.value)


def test_f22_a_truncated_file_is_told(tmp_path: Path) -> None:
    store = FeatureStore("k", tmp_path)
    store.write(vectors(0, 400))
    store.path.write_bytes(store.path.read_bytes()[:20_000])
    with pytest.raises(StorageError, match="remove the file"):
        store.read(list(vectors(0, 400)))


def test_f22_a_vector_of_half_a_number_is_told(tmp_path: Path) -> None:
    store = FeatureStore("k", tmp_path)
    database = sqlite3.connect(store.path)
    with database:
        database.execute("insert into features values ('a', x'000000')")
    database.close()
    with pytest.raises(StorageError, match="remove the file"):
        store.read(["a"])


def test_f23_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be used"):
        FeatureStore("k", tmp_path / "file")
