"""Hold tensors to where they started: FedProx's term (arXiv 1812.06127)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Proximal:
    """Weigh half the squared distance of some tensors to their start by ``mu``; 0 = no term."""

    def __init__(self, tied: Sequence[nn.Parameter], mu: float) -> None:
        self._tied, self._mu = tied, mu
        self._anchors = [tensor.detach().clone() for tensor in tied]

    def penalty(self) -> Tensor:
        """Return mu / 2 * ||now - start||^2 over all the tensors, a scalar."""
        if not self._mu:
            return self._tied[0].new_zeros(())
        pairs = zip(self._tied, self._anchors, strict=True)
        return self._mu / 2 * torch.stack([((new - old) ** 2).sum() for new, old in pairs]).sum()
