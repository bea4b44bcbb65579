import json
import tracemalloc

import numpy as np
import open_clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedprompt.data import preprocess
from fedprompt.data.preprocess import OPENAI_MEAN, OPENAI_STD, Preprocessing, fit_to_input
from fedprompt.errors import DataError


def open_clips(image: np.ndarray, pre: Preprocessing) -> np.ndarray:
    """Run open_clip's own transform up to its tensor conversion."""
    transform = open_clip.image_transform(
        pre.size,
        is_train=False,
        resize_mode=pre.resize_mode,
        interpolation=pre.interpolation,
        fill_color=pre.fill,
    )
    pillow = Image.fromarray(image)
    for step in transform.transforms[:-2]:  # without ToTensor and Normalize
        pillow = step(pillow)
    return np.asarray(pillow)


@settings(max_examples=150)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([1, 7, 32, 33, 64]),
    st.sampled_from(["shortest", "squash", "longest"]),
    st.sampled_from(["bicubic", "bilinear"]),
    st.sampled_from([0, 128]),
    st.integers(0, 2**32 - 1),
)
def test_equal_to_open_clip_bit_for_bit(
    height: int, width: int, size: int, mode: str, interpolation: str, fill: int, seed: int
) -> None:
    if mode == "longest" and round(size * min(height, width) / max(height, width)) == 0:
        return  # open_clip fails: it would resize to zero
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pre = Preprocessing(size=size, resize_mode=mode, interpolation=interpolation, fill=fill)
    fitted = fit_to_input(image, pre)
    assert fitted.dtype == np.uint8
    assert fitted.flags.writeable
    np.testing.assert_array_equal(fitted, open_clips(image, pre))


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (224, 224), (28, 28)])
def test_equal_to_open_clip_at_real_sizes(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for mode in ("shortest", "squash", "longest"):
        pre = Preprocessing(resize_mode=mode)
        np.testing.assert_array_equal(fit_to_input(image, pre), open_clips(image, pre))


@pytest.mark.parametrize(("height", "width"), [(3, 400), (401, 5)])
def test_a_long_strip_is_cropped_while_it_is_resized(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    monkeypatch.setattr(preprocess, "_MAX_RESIZED_PIXELS", 0)
    ours = fit_to_input(image, Preprocessing(size=64)).astype(int)
    # open_clip rounds the crop's start to a pixel of the resized image, here it is exact
    assert np.abs(ours - open_clips(image, Preprocessing(size=64))).mean() < 3


def test_a_very_long_strip_takes_little_memory() -> None:
    image = np.zeros((1, 100_000, 3), dtype=np.uint8)  # open_clip would take 15 GB
    tracemalloc.start()
    fitted = fit_to_input(image, Preprocessing(size=224))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert fitted.shape == (224, 224, 3)


def test_one_missing_row_is_padded_with_the_fill() -> None:
    pre = Preprocessing(size=7, resize_mode="longest", fill=128)
    image = np.full((6, 7, 3), 9, np.uint8)
    np.testing.assert_array_equal(fit_to_input(image, pre), open_clips(image, pre))
    assert (fit_to_input(image, pre)[-1] == 128).all()


def test_a_thin_strip_is_padded_by_longest() -> None:
    fitted = fit_to_input(
        np.full((1, 500, 3), 9, np.uint8), Preprocessing(size=8, resize_mode="longest", fill=3)
    )
    assert sorted(np.unique(fitted)) == [3, 9]


def test_a_dictionary_there_and_back() -> None:
    pre = Preprocessing(size=256, mean=(0.5, 0.5, 0.5), interpolation="bilinear")
    assert Preprocessing.from_dict(json.loads(json.dumps(pre.to_dict()))) == pre


def test_defaults_are_openais() -> None:
    assert OPENAI_MEAN == open_clip.OPENAI_DATASET_MEAN
    assert OPENAI_STD == open_clip.OPENAI_DATASET_STD
    assert Preprocessing().to_dict()["mean"] == list(OPENAI_MEAN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size = 0; expected an integer"),
        ({"size": 224.5}, "size = 224.5"),
        ({"size": True}, "size = True"),
        ({"fill": 256}, "fill = 256"),
        ({"mean": [0.5, 0.5]}, "three finite numbers"),
        ({"mean": "abc"}, "three finite numbers"),
        ({"mean": None}, "three finite numbers"),
        ({"std": [1, 1, float("nan")]}, "three finite numbers"),
        ({"std": [1, 1, 0]}, "above 0"),
        ({"interpolation": "nearest"}, "expected one of bicubic, bilinear"),
        ({"resize_mode": []}, "expected one of shortest"),
        ({"colour": 1}, "expected fill"),
    ],
)
def test_bad_values_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocessing.from_dict(Preprocessing().to_dict() | change)


def test_a_missing_key_is_refused() -> None:
    values = Preprocessing().to_dict()
    del values["std"]
    with pytest.raises(DataError, match="expected fill"):
        Preprocessing.from_dict(values)
