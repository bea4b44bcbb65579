import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch.nn import functional as F

from fedprompt.backbone.frozen_block import FrozenBlock


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    query, key, value = (rows.transpose(0, 1) for rows in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(0, 1)


@pytest.mark.parametrize("scale", [None, 0.5])
def test_the_parts_make_up_open_clips_block(scale: float | None) -> None:
    torch.manual_seed(0)
    block = ResidualAttentionBlock(32, 4, ls_init_value=scale).eval().requires_grad_(False)
    rows = torch.randn(7, 32)
    expected = block(rows[None])[0]
    frozen = FrozenBlock(block, last=False)
    found = frozen.close(rows, attend(*frozen.project(rows)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    last, chosen = FrozenBlock(block, last=True), torch.tensor([4, 1])
    some = last.close(rows[chosen], attend(*last.project_some(rows, chosen)))
    torch.testing.assert_close(some, expected[chosen], rtol=1e-5, atol=1e-5)
