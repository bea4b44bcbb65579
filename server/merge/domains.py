"""Keep the domains' prompts apart: sites of one domain alone move its prompt (ADAPT, 2310.03103).

A site gets its own domain's text prompt as it is, and the others' as they follow by momentum, in
the space that is averaged; it returns its own and the visual prompts. Of each round

    P_d = mean over the sites of domain d      V = mean over all      Q_d <- m Q_d + (1 - m) P_d

with Q_d what sites of other domains get. The paper's clients keep Q themselves; here the server
does, once a round, so that sites hold nothing between rounds and may stay away (ours). Q is part of
every checkpoint, in float64. Other methods have no domains, and everything passes as it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord

from fedprompt.errors import ConfigError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.domain_names import METHOD, domain_of
from fedprompt.settings.privacy import PrivacyConfig
from fedprompt.settings.prompt import PromptConfig
from fedprompt.settings.server import ServerConfig
from fedprompt.wire import to_array_record
from server.gate.verdict import Accepted
from server.joining.admission import Site
from server.merge import robust
from server.merge.rules import Dense, Rule

MOMENTUM = 0.99  # m; published
_PREFIX = "domains/"  # of Q's arrays in a checkpoint


class Domains:
    """Hold Q, what sites get of the domains that are not theirs.

    Parameters
    ----------
    names
        Of the domains, in the prompt's order; none for a method without domains.
    rule
        Takes arrays to the space that is averaged, and back.
    """

    def __init__(self, names: Sequence[str], rule: Rule) -> None:
        self.names, self._rule = tuple(names), rule
        self._following: Dense = {}

    def records(
        self, arrays: PromptState, sites: Iterable[Site], dtype: str
    ) -> dict[int, ArrayRecord]:
        """Return what to send to each node; one object for all that get the same."""
        if not self.names:
            return dict.fromkeys((site.node for site in sites), to_array_record(arrays, dtype))
        others = self._others(arrays)
        by_domain = {}
        for number, name in enumerate(self.names):
            foreign = [n for n in arrays if domain_of(n) not in (None, number)]
            by_domain[name] = to_array_record(arrays | others.select(foreign), dtype)
        return {site.node: by_domain[site.domain] for site in sites}

    def returned(self, arrays: PromptState, site: Site) -> PromptState:
        """Return those of the arrays that a site may send back."""
        if not self.names:
            return arrays
        own = (None, self.names.index(site.domain))
        return arrays.select([name for name in arrays if domain_of(name) in own])

    def pooled(self, updates: Sequence[Accepted], sites: Iterable[Site]) -> Sequence[Accepted]:
        """Return the updates with each domain's prompt as its own sites' weighted mean.

        They then agree on it, so that whatever a strategy averages leaves it as it is.
        """
        if not self.names:
            return updates
        domains = {site.partition: self.names.index(site.domain) for site in sites}
        pooled: Dense = {}
        for number in set(domains.values()):
            own = [update for update in updates if domains[update.site] == number]
            if own:
                pooled |= _mean(own, number)
        return [replace(update, update={**update.update, **pooled}) for update in updates]

    def after(self, arrays: PromptState) -> None:
        """Let Q follow the prompts of a round that is over; of round 0, begin with them."""
        if not self.names:
            return
        for name, array in self._rule.lift(arrays).items():
            if domain_of(name) is not None:
                before = self._following.get(name, array)
                self._following[name] = MOMENTUM * before + (1 - MOMENTUM) * array

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return Q's arrays, named so that ``restore`` finds them again."""
        return {_PREFIX + name: array for name, array in self._following.items()}

    def restore(self, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from Q in a checkpoint."""
        found = {n: array for n, array in tensors.items() if n.startswith(_PREFIX)}
        self._following = {n.removeprefix(_PREFIX): array for n, array in found.items()}

    def _others(self, arrays: PromptState) -> PromptState:
        """Return Q as it travels: of the arrays' ranks."""
        return self._rule.project({**self._rule.lift(arrays), **self._following}, arrays).arrays


def check(prompt: PromptConfig, server: ServerConfig, privacy: PrivacyConfig) -> None:
    """Refuse settings under which sites of one domain cannot own a prompt.

    Raises
    ------
    ConfigError
        Names the setting and what to choose.
    """
    if prompt.method != METHOD:
        return
    alone = "a domain's prompt is the mean of its own sites"
    for wrong, setting, why in (
        (server.secure_aggregation, "server.secure_aggregation", f"{alone}, which a sum hides"),
        (
            bool(privacy.noise_multiplier),
            f"privacy.noise_multiplier = {privacy.noise_multiplier}",
            f"{alone}, and the ledger counts all sites",
        ),
        (
            server.strategy in robust.LEAST,
            f"server.strategy = {server.strategy}",
            f"{alone}, too few to tell who is hostile",
        ),
        (
            server.rule == "fresh-basis",
            "server.rule = fresh-basis",
            "what the other domains' sites get is no update of a round",
        ),
        (
            prompt.personal != "global",
            f"prompt.personal = {prompt.personal}",
            "the domains' prompts are personal already",
        ),
    ):
        if wrong:
            told = f"{setting} under prompt.method = {METHOD}: {why}"
            raise ConfigError(f"{told}; change one of them")


def _mean(updates: Sequence[Accepted], domain: int) -> Dense:
    """Return the weighted mean of one domain's arrays."""
    weights = np.array([update.weight for update in updates], np.float64)
    names = [name for name in updates[0].update if domain_of(name) == domain]
    return {
        name: np.average([update.update[name] for update in updates], axis=0, weights=weights)
        for name in names
    }
