"""Turn releases into epsilon with dp-accounting's privacy loss distributions.

No amplification by sampling is claimed: which sites a round asks follows from the run's seed, which
every site is told, so that an observer knows who contributed. Every release counts for every site.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

ACCOUNTANT = f"dp-accounting {version('dp-accounting')}, PLDAccountant"


def epsilon(noise_multipliers: Sequence[float], delta: float) -> float:
    """Return what Gaussian releases cost together, an upper bound at ``delta``.

    Parameters
    ----------
    noise_multipliers
        Of each release: the noise's standard deviation over the most one site can change.
    delta
        Probability that epsilon does not hold.
    """
    counts = sorted(Counter(noise_multipliers).items())
    return _compose(tuple(counts), delta)


@functools.lru_cache(maxsize=64)  # a round asks for the same sum up to three times
def _compose(counts: tuple[tuple[float, int], ...], delta: float) -> float:
    # takes seconds to import, and a run without privacy does not need it
    from dp_accounting import GaussianDpEvent
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant()
    for noise_multiplier, count in counts:
        accountant.compose(GaussianDpEvent(noise_multiplier), count)
    return float(accountant.get_epsilon(delta))
