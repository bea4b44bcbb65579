import numpy as np
import pytest
import torch

from fedprompt.errors import PromptError
from fedprompt.prompts.prototypes import PICKS, pick, rounded


def tokens(count: int = 50, width: int = 6) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, width)))


def test_random_ones_are_tokens_none_twice() -> None:
    found = pick("random", tokens(), 50, 3)
    assert {tuple(row) for row in found.tolist()} == {
        tuple(row) for row in rounded(tokens()).tolist()
    }


@pytest.mark.parametrize(("how", "over"), [("mean", np.mean), ("max", np.max)])
def test_windows_are_pooled(how: str, over) -> None:
    values = tokens(12).numpy()
    found = pick(how, tokens(12), 4, 0)
    expected = np.stack([over(values[3 * i : 3 * i + 3], axis=0) for i in range(4)])
    np.testing.assert_array_equal(found.numpy(), expected.astype(np.float16).astype(np.float32))
    uneven = pick(how, tokens(11), 4, 0).numpy()  # 3, 3, 3, 2
    last = over(values[9:11], axis=0).astype(np.float16)
    np.testing.assert_array_equal(uneven[3], last.astype(np.float32))


@pytest.mark.parametrize("how", PICKS)
def test_equal_seeds_give_equal_bytes_and_so_do_last_digits(how: str) -> None:
    nearly = tokens() * (1 + 1e-13)
    one, other = pick(how, tokens(), 8, 1), pick(how, nearly, 8, 1)
    assert (one.shape, one.dtype) == ((8, 6), torch.float32)
    assert torch.equal(one, other)
    changed = pick(how, tokens(), 8, 2)
    assert torch.equal(one, changed) == (how in ("mean", "max"))


def test_too_few_tokens_are_refused() -> None:
    with pytest.raises(PromptError, match=r"5 patch tokens make no 8 prototypes; lower prompt"):
        pick("random", tokens(5), 8, 0)
