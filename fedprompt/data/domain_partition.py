"""Give each simulated site images of one domain: sites whose pictures look different.

Domains go round among the sites: site ``i`` of ``count`` holds domain ``i mod domains``. The images
of a domain are divided among its sites at random, each class in equal shares. This is the setting
of one client a domain of FedBN (Li et al. 2021), with several sites a domain when there are more.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedprompt.errors import DataError

NAME = "domain"

Indices = npt.NDArray[np.int64]


def domain_of_site(site: int, domains: int) -> int:
    """Return the domain of site ``site``, counted from 0."""
    return site % domains


def check_sites(names: Sequence[str], count: int) -> None:
    """Check that ``count`` sites can each hold one of the named domains, and hold them all.

    Raises
    ------
    DataError
        There are no domains, or fewer sites than domains.
    """
    if not names:
        raise DataError(
            "the images belong to no domains, which the domain partitioner divides by; list them "
            "in a manifest with a domain column, take a source that has domains (emoji), or set "
            "another data.partitioner"
        )
    if count < len(names):
        raise DataError(
            f"cannot give {len(names)} domains ({', '.join(names)}) to {count} sites of one domain "
            f"each; take at least {len(names)} sites (data.clients)"
        )


def divide_by_domain(
    labels: Indices, domains: Indices, names: Sequence[str], count: int, seed: int
) -> list[Indices]:
    """Divide rows among ``count`` sites of one domain each.

    Of a domain, the sites' numbers of images differ by at most one, of each class too.

    Parameters
    ----------
    labels, domains
        int64 [images]; ``domains`` are indices into ``names``.

    Returns
    -------
    int64 indices into ``labels`` for each site, ascending; disjoint and complete.

    Raises
    ------
    DataError
        As `check_sites`; or a domain has fewer images than sites.
    """
    check_sites(names, count)
    parts = []
    for site in range(count):
        domain = domain_of_site(site, len(names))
        rows = _dealing_order(labels, domains, domain, seed)
        sites = range(domain, count, len(names))
        if len(rows) < len(sites):
            raise DataError(
                f"the domain {names[domain]!r} has {len(rows)} training images for {len(sites)} "
                "sites; take fewer sites (data.clients) or more of its images"
            )
        parts.append(np.sort(rows[sites.index(site) :: len(sites)]))
    return parts


def _dealing_order(labels: Indices, domains: Indices, domain: int, seed: int) -> Indices:
    """Return a domain's rows class after class, each class shuffled: dealt out, all get a share."""
    rows = np.flatnonzero(domains == domain)
    random = np.random.default_rng([seed, domain])
    rows = random.permutation(rows)
    ordered: Indices = rows[np.argsort(labels[rows], kind="stable")]
    return ordered
