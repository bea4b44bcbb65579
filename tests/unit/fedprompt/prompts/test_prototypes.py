import numpy as np
import pytest
import torch

from fedprompt.errors import PromptError
from fedprompt.prompts.prototypes import PICKS, pick, rounded


def tokens(images: int = 5, patches: int = 10, width: int = 6) -> torch.Tensor:
    draws = np.random.default_rng(0)
    return torch.from_numpy(draws.normal(size=(images, patches, width)))


def rows(found: torch.Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in found.tolist()}


def test_random_ones_are_tokens_none_twice() -> None:
    found = pick("random", tokens(), 50, 3)
    assert rows(found) == rows(rounded(tokens().reshape(50, 6)))


@pytest.mark.parametrize(("how", "over"), [("mean", np.mean), ("max", np.max)])
@pytest.mark.parametrize(
    ("patches", "length", "spans"),
    [
        (11, 4, [(0, 3), (3, 6), (6, 9), (9, 11)]),  # 3 of 3, the last 11 mod 3
        (12, 4, [(0, 4), (4, 8), (8, 12), (0, 12)]),  # nothing is left: the whole image
        (10, 4, [(0, 3), (3, 6), (6, 9), (9, 10)]),
        (14, 5, [(0, 3), (3, 6), (6, 9), (9, 12), (12, 14)]),
        (16, 6, [(0, 3), (3, 6), (6, 9), (9, 12), (12, 15), (15, 16)]),
        (9, 3, [(0, 4), (4, 8), (8, 9)]),
        (7, 1, [(0, 7)]),
    ],
)
def test_windows_lie_within_an_image_and_some_are_drawn(
    how: str, over, patches: int, length: int, spans: list[tuple[int, int]]
) -> None:
    values = tokens(3, patches).numpy()
    pooled = [over(image[a:b], axis=0) for image in values for a, b in spans]
    candidates = rows(rounded(torch.from_numpy(np.stack(pooled))))
    drawn = [rows(pick(how, tokens(3, patches), length, seed)) for seed in range(40)]
    assert all(len(one) == length and one <= candidates for one in drawn)
    assert set.union(*drawn) == candidates


@pytest.mark.parametrize("how", ["mean", "max"])
def test_pooled_prototypes_are_no_more_alike_than_windows_of_images(how: str) -> None:
    """Windows over all images in a row would average whole images, all of them nearly equal."""
    values = tokens(64, 196) + 3 * tokens(64, 1)  # each image has a direction of its own
    found = pick(how, values, 20, 0).double()
    unit = found / found.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T)[~torch.eye(20, dtype=torch.bool)]
    assert cosines.mean() < 0.5


@pytest.mark.parametrize("how", PICKS)
def test_equal_seeds_give_equal_bytes_and_so_do_last_digits(how: str) -> None:
    nearly = tokens() * (1 + 1e-13)
    one, other = pick(how, tokens(), 8, 1), pick(how, nearly, 8, 1)
    assert (one.shape, one.dtype) == ((8, 6), torch.float32)
    assert torch.equal(one, other)
    assert not torch.equal(one, pick(how, tokens(), 8, 2))


def test_too_few_tokens_are_refused() -> None:
    with pytest.raises(PromptError, match=r"5 patch tokens make no 8 prototypes; lower prompt"):
        pick("random", tokens(1, 5), 8, 0)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_more_windows_than_an_image_has_tokens_are_refused(how: str) -> None:
    assert len(pick(how, tokens(3, 5), 6, 0)) == 6
    with pytest.raises(PromptError, match=r"5 patch tokens, too few for 6 windows; set prompt\.t"):
        pick(how, tokens(3, 5), 7, 0)
