import hashlib
from pathlib import Path

import numpy as np
import pytest

from fedprompt.identity import canonical_json, sha256_arrays, sha256_bytes, sha256_file

A = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_bytes_and_files_have_the_standard_hash(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 1_000_000)
    assert sha256_bytes(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_file(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_the_order_of_names_and_of_memory_does_not_matter() -> None:
    first = sha256_arrays({"a": A, "b": A * 2})
    assert first == sha256_arrays({"b": A * 2, "a": np.asfortranarray(A)})
    assert len(first) == 64


def test_a_hash_is_pinned_so_that_releases_agree() -> None:
    text = b"a|<f4|(2, 3)|" + A.tobytes()
    assert sha256_arrays({"a": A}) == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        {"b": A},
        {"a": A.astype(np.float64)},
        {"a": A.reshape(3, 2)},
        {"a": A.T.copy().reshape(2, 3)},
        {"a": A, "b": np.zeros(0, np.float32)},
        {"a": np.copysign(A, -1)},  # -0.0 is not 0.0
    ],
)
def test_names_dtypes_shapes_and_values_all_count(other: dict) -> None:
    assert sha256_arrays(other) != sha256_arrays({"a": A})


def test_scalars_and_empty_arrays_have_hashes_of_their_own() -> None:
    kinds = [np.float32(1), np.ones(1, np.float32), np.zeros(0, np.float32), np.zeros((0, 2))]
    assert len({sha256_arrays({"a": np.asarray(kind)}) for kind in kinds}) == 4


def test_json_is_canonical() -> None:
    value = {"b": [1, 2.5, None, True], "a": "Zürich"}
    assert canonical_json(value) == '{"a":"Zürich","b":[1,2.5,null,true]}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})
