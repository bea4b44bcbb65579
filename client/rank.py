"""Let a site train at a smaller rank than the server's (rule ``product``)."""

import numpy as np

from fedprompt.prompts.forms import SPREAD
from fedprompt.prompts.method import Arrays

_NEGLIGIBLE = 1e-6  # of the largest singular value: rounding of float32 factors


def shrink(arrays: Arrays, rank: int) -> Arrays:
    """Return the arrays with every pair X.A, X.B cut to its best approximation of ``rank``.

    Eckart-Young: the leading singular directions of A B, both factors carrying sqrt(sigma).
    0, or a rank that is not smaller, changes nothing. A direction with A = 0 and B = 0 would never
    get a gradient: a zero product keeps the first columns of A, and directions that a product of
    lower rank lacks keep a small A.
    """
    cut = dict(arrays)
    for name in [n.removesuffix(".A") for n in arrays if n.endswith(".A")]:
        a, b = arrays[f"{name}.A"], arrays.get(f"{name}.B")
        if b is None or not 0 < rank < a.shape[1]:
            continue
        left, spectrum, right = np.linalg.svd(a.astype(np.float64) @ b, full_matrices=False)
        if spectrum[0] < np.finfo(np.float32).tiny:
            first, second = a[:, :rank], b[:rank]
        else:
            root = np.sqrt(spectrum[:rank])
            lacking = spectrum[:rank] < _NEGLIGIBLE * spectrum[0]
            first = left[:, :rank] * np.where(lacking, SPREAD, root)
            second = np.where(lacking, 0, root)[:, None] * right[:rank]
        cut[f"{name}.A"], cut[f"{name}.B"] = first.astype(np.float32), second.astype(np.float32)
    return cut
