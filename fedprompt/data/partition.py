"""Divide a training set among simulated sites with flwr-datasets' partitioners, by name.

Two are our own: ``domain`` (domain_partition.py) and ``disjoint`` (class_partition.py).

flwr-datasets drops rows without a word in two cases: classes that the pathological partitioner
gave to nobody, and what is left over after equal shards. Here every row arrives exactly once: a
dropped row goes to the site that holds most of its class, and where no site holds the class the
partition is refused.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedprompt.data import class_partition, domain_partition
from fedprompt.errors import DataError

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Wanted:
    rows: int
    count: int
    seed: int
    alpha: float
    classes_per_client: int
    shards_per_client: int
    min_images: int

    def equal_sizes(self) -> list[int]:
        return [len(part) for part in np.array_split(np.arange(self.rows), self.count)]


# name -> its partitioner; `flwr` is the module flwr_datasets.partitioner
_PARTITIONERS: dict[str, Callable[[Any, _Wanted], Any]] = {
    "iid": lambda flwr, w: flwr.IidPartitioner(w.count),
    "dirichlet": lambda flwr, w: flwr.DirichletPartitioner(
        w.count, "label", w.alpha, min_partition_size=w.min_images, seed=w.seed
    ),
    "inner-dirichlet": lambda flwr, w: flwr.InnerDirichletPartitioner(
        w.equal_sizes(), "label", w.alpha, seed=w.seed
    ),
    "pathological": lambda flwr, w: flwr.PathologicalPartitioner(
        w.count, "label", w.classes_per_client, "first-deterministic", seed=w.seed
    ),
    "shard": lambda flwr, w: flwr.ShardPartitioner(
        w.count, "label", w.shards_per_client, seed=w.seed
    ),
    "size": lambda flwr, w: flwr.SizePartitioner(w.equal_sizes()),
    "linear": lambda flwr, w: flwr.LinearPartitioner(w.count),
    "square": lambda flwr, w: flwr.SquarePartitioner(w.count),
    "exponential": lambda flwr, w: flwr.ExponentialPartitioner(w.count),
}
NAMES = (*_PARTITIONERS, domain_partition.NAME, class_partition.NAME)


def partition(
    labels: Indices,
    name: str,
    count: int,
    seed: int,
    *,
    alpha: float = 0.3,
    classes_per_client: int = 2,
    shards_per_client: int = 2,
    min_images: int = 0,
    domains: Indices | None = None,
    domain_names: Sequence[str] = (),
) -> list[Indices]:
    """Divide rows among ``count`` sites; a site may get none.

    Rows are shuffled first, because some partitioners cut the list as it stands.

    Parameters
    ----------
    labels
        int64 [images].
    name
        One of `NAMES`.
    alpha, min_images
        Concentration, and least images of a site, of the Dirichlet partitioners.
    classes_per_client, shards_per_client
        Of the pathological and of the shard partitioner.
    domains, domain_names
        int64 [images], indices into the names, of the domain partitioner.

    Returns
    -------
    int64 indices into ``labels`` for each site, ascending; disjoint and complete.

    Raises
    ------
    DataError
        The name is unknown, the division is impossible, or classes reach no site.
    """
    _check(labels, name, count)
    if name == domain_partition.NAME:
        known = np.zeros(0, np.int64) if domains is None else domains
        return domain_partition.divide_by_domain(labels, known, domain_names, count, seed)
    if name == class_partition.NAME:
        return class_partition.divide_by_class(labels, count, seed)
    wanted = _Wanted(
        len(labels), count, seed, alpha, classes_per_client, shards_per_client, min_images
    )
    return _complete(labels, _divided(labels, name, wanted), name)


def _check(labels: Indices, name: str, count: int) -> None:
    if name not in NAMES:
        raise DataError(f"no partitioner is named {name!r}; expected one of {', '.join(NAMES)}")
    if not 1 <= count <= len(labels):
        raise DataError(
            f"cannot divide {len(labels)} images among {count} sites; expected 1 to {len(labels)}"
        )


def _divided(labels: Indices, name: str, wanted: _Wanted) -> list[Indices]:
    try:
        return _parts(labels, name, wanted)
    except (ValueError, ZeroDivisionError) as error:  # the latter for more shards than images
        raise DataError(
            f"the {name} partitioner cannot divide {len(labels)} images among {wanted.count} "
            f"sites: {error}"
        ) from error


def _parts(labels: Indices, name: str, wanted: _Wanted) -> list[Indices]:
    import datasets
    import flwr_datasets.partitioner as flwr

    order = np.random.default_rng([wanted.seed, 0]).permutation(len(labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dropped rows, which _complete answers, and of pyarrow
        partitioner = _PARTITIONERS[name](flwr, wanted)
        partitioner.dataset = datasets.Dataset.from_dict({"row": order, "label": labels[order]})
        parts = [partitioner.load_partition(site) for site in range(wanted.count)]
    return [np.sort(np.asarray(part["row"][:], dtype=np.int64)) for part in parts]


def _complete(labels: Indices, parts: list[Indices], name: str) -> list[Indices]:
    times = np.bincount(np.concatenate(parts), minlength=len(labels))
    if times.max(initial=0) > 1:
        raise DataError(f"the {name} partitioner gave {int((times > 1).sum())} images twice")
    dropped = np.flatnonzero(times == 0)
    if not dropped.size:
        return parts
    holdings = np.stack([np.bincount(labels[part], minlength=labels.max() + 1) for part in parts])
    orphans = np.setdiff1d(labels[dropped], np.flatnonzero(holdings.any(axis=0)))
    if orphans.size:
        raise DataError(
            f"the {name} partitioner gives {len(orphans)} of {len(np.unique(labels))} classes "
            f"({int(np.isin(labels, orphans).sum())} images) to no site; take more sites or more "
            "classes a site (data.classes_per_client)"
        )
    holder = holdings.argmax(axis=0)[labels[dropped]]
    return [np.sort(np.append(part, dropped[holder == i])) for i, part in enumerate(parts)]
