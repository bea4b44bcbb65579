"""Give each simulated site classes of its own: no class lies at two sites.

The setting of FedTPG and FedPGP (clients with disjoint base classes). Which classes a site gets is
drawn; their numbers differ by at most one.
"""

import numpy as np
import numpy.typing as npt

from fedprompt.errors import DataError

NAME = "disjoint"

Indices = npt.NDArray[np.int64]


def divide_by_class(labels: Indices, count: int, seed: int) -> list[Indices]:
    """Divide rows among ``count`` sites, all rows of a class to one site.

    Returns
    -------
    int64 indices into ``labels`` for each site, ascending; disjoint and complete, none empty.

    Raises
    ------
    DataError
        There are more sites than classes with images.
    """
    found = np.unique(labels)
    if count > len(found):
        raise DataError(
            f"cannot give {count} sites classes of their own: {len(found)} classes have images; "
            f"take at most {len(found)} sites (data.clients) or another data.partitioner"
        )
    drawn = np.random.default_rng([seed, len(found)]).permutation(found)
    shares = np.array_split(drawn, count)
    return [np.flatnonzero(np.isin(labels, share)).astype(np.int64) for share in shares]
