import numpy as np

from fedprompt.dense import pairs, products


def test_factors_become_their_product_and_others_pass_in_float64():
    arrays = {
        "z": np.float32([1, 2]),
        "ctx.B": np.float32([[1, 2, 3]]),
        "ctx.A": np.float32([[2], [4]]),
    }
    found = products(arrays)
    assert list(found) == ["ctx", "z"]
    np.testing.assert_array_equal(found["ctx"], [[2, 4, 6], [4, 8, 12]])
    assert {array.dtype for array in found.values()} == {np.dtype(np.float64)}


def test_a_factor_alone_is_no_pair():
    """Rule shared-basis sends B only: A stands at every site."""
    arrays = {"ctx.B": np.float32([[1, 2, 3]])}
    assert pairs(arrays) == []
    assert list(products(arrays)) == ["ctx.B"]
