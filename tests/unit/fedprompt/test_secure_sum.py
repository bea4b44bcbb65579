import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.secure_sum import agreed_clip, flatten, levels, shorten, step, unflatten

DENSE = {
    "b": np.arange(6.0).reshape(2, 3),
    "a": np.asarray(7.0),
    "c": np.zeros((0, 4)),
}


@pytest.mark.parametrize(
    ("sites", "bits"), [(3, 22), (1023, 22), (1024, 21), (2047, 21), (2048, 20), (65535, 16)]
)
def test_steps_are_as_fine_as_the_modulus_allows(sites, bits):
    assert levels(sites) == 2**bits


def test_more_sites_than_one_sum_takes():
    assert levels(65536) == 0


def test_a_step_is_the_range_over_the_levels():
    assert step(5.0, 1000) == 0.01


def test_what_is_laid_out_is_found_again():
    vector = flatten(DENSE)
    np.testing.assert_array_equal(vector, [7, 0, 1, 2, 3, 4, 5])
    found = unflatten(vector, DENSE)
    assert sorted(found) == sorted(DENSE)
    for name, array in DENSE.items():
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=50), st.floats(1e-3, 1e3))
def test_a_short_change_stays_and_a_long_one_points_the_same_way(values, clip):
    vector = np.array(values)
    limit = clip - np.sqrt(len(values)) * step(clip, 2**22)
    found = shorten(vector, clip, 2**22)
    if np.linalg.norm(vector) <= limit:
        assert found is vector
    else:
        assert np.linalg.norm(found) == pytest.approx(limit, rel=1e-12)
        np.testing.assert_allclose(
            found / limit, vector / np.linalg.norm(vector), rtol=1e-9, atol=1e-300
        )


def test_a_change_of_zero_divides_by_nothing():
    assert not shorten(np.zeros(3), 1.0, 2**22).any()


@pytest.mark.parametrize(
    ("settings", "clip"),
    [
        ({}, 0.0),
        ({"server.clip_norm": 3.0}, 3.0),
        ({"server.clip_norm": 3.0, "privacy.noise_multiplier": 0.0, "privacy.clip_norm": 1.0}, 3.0),
        ({"server.clip_norm": 3.0, "privacy.noise_multiplier": 2.0, "privacy.clip_norm": 1.0}, 1.0),
    ],
)
def test_privacy_names_the_clip_where_it_is_on(settings, clip):
    assert agreed_clip(settings) == clip
