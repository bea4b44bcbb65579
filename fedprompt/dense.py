"""Turn prompts into what can be averaged exactly: the products of low-rank factors."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Dense = dict[str, npt.NDArray[np.float64]]  # what is averaged, by name


def products(arrays: Mapping[str, npt.NDArray[np.floating]]) -> Dense:
    """Replace each pair of factors X.A, X.B by its product X; other arrays pass.

    Sites of unequal rank meet here without padding: every product is [length width].
    """
    paired = pairs(arrays)
    dense = {m: arrays[f"{m}.A"].astype(np.float64) @ arrays[f"{m}.B"] for m in paired}
    factors = {f"{m}.{side}" for m in paired for side in "AB"}
    dense |= {name: a.astype(np.float64) for name, a in arrays.items() if name not in factors}
    return {name: dense[name] for name in sorted(dense)}


def pairs(names: Mapping[str, object]) -> list[str]:
    """Return the sorted matrices ``m`` that come as two factors, ``m.A`` and ``m.B``."""
    return sorted(name[:-2] for name in names if name.endswith(".A") and f"{name[:-2]}.B" in names)


def unmoved(
    current: Mapping[str, npt.NDArray[np.float32]], reply: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Return what a site would send instead of ``reply`` had it learned nothing.

    That is what it was sent; an update, which it was not sent, is zero (rule ``fresh-basis``).
    """
    return {
        name: current[name] if name in current else np.zeros_like(array)
        for name, array in reply.items()
    }
