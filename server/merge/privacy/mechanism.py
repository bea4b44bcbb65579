"""Stand between the sites' updates and everybody else: clip, account, write down, add noise."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fedprompt.errors import PrivacyError
from fedprompt.run_folder import RunFolder
from fedprompt.settings.privacy import PrivacyConfig
from fedprompt.settings.server import ServerConfig
from server.merge.privacy import ledger
from server.merge.privacy.accountant import ACCOUNTANT, epsilon
from server.merge.privacy.ledger import Release
from server.merge.privacy.noise import add_noise, clipped_mean
from server.merge.rules import Dense


class Mechanism:
    """Release noised averages of a run's rounds until the budget is spent.

    Parameters
    ----------
    config
        Noise, clipping, delta and budget.
    server
        Where the run lies, and with which strategy it merges.
    run
        Digest of the run, for the ledger.

    Raises
    ------
    PrivacyError
        An earlier run's ledger in this folder is damaged.
    """

    def __init__(self, config: PrivacyConfig, server: ServerConfig, run: str) -> None:
        self.config, self.run = config, run
        self.path = RunFolder(Path(server.output)).ledger
        ledger.read(self.path)

    def resume(self, committed: int) -> None:
        """Check that the ledger knows of every round that was committed before.

        Raises
        ------
        PrivacyError
            The ledger is damaged, or misses a round.
        """
        known = {release.round for release in ledger.read(self.path) if release.run == self.run}
        if missing := set(range(1, committed + 1)) - known:
            raise PrivacyError(
                f"{self.path} misses round {min(missing)}, which was committed; what was released "
                "about the sites is not known, so nothing more is. Bring the file back from a "
                "copy, or start in another server.output and count both folders."
            )

    def check(self) -> None:
        """Refuse a round that could not be released, before any site works for it.

        Raises
        ------
        PrivacyError
            The budget does not cover one more release, or the ledger is damaged.
        """
        self._check([*ledger.read(self.path), self._next(0, 1)])

    def release(
        self, updates: Iterable[Dense], current: Dense, server_round: int, sites: int
    ) -> Dense:
        """Return the noised average of updates; it is in the ledger before the noise is drawn.

        Parameters
        ----------
        updates
            The accepted ones, lifted; their weights do not count.
        current
            The lifted arrays the sites started from.
        server_round
            For the ledger.
        sites
            How many were asked, which is what the sum is divided by.

        Raises
        ------
        PrivacyError
            The budget does not cover it, or the ledger is damaged; nothing is drawn.
        StorageError
            It could not be written down; nothing is drawn.
        """
        mean = clipped_mean(updates, current, self.config.clip_norm, sites)
        return self.hide(mean, server_round, sites)

    def hide(self, mean: Dense, server_round: int, sites: int) -> Dense:
        """Return a noised average over ``sites``, whose updates were clipped before it was taken.

        Raises
        ------
        PrivacyError, StorageError
            As ``release`` does.
        """
        ledger.append(self.path, self._next(server_round, sites), self._check)
        deviation = self.config.noise_multiplier * self.config.clip_norm / sites
        return add_noise(mean, deviation)

    def spent(self) -> float:
        """Return the epsilon of all releases in this folder."""
        return self._cost(ledger.read(self.path))

    def statement(self) -> dict[str, Any]:
        """Return what the artefact says: what was spent in this folder, and what that means."""
        releases = ledger.read(self.path)
        return {
            "epsilon": self._cost(releases),
            "delta": self.config.delta,
            "accountant": ACCOUNTANT,
            "releases": len(releases),
            "noise_multiplier": self.config.noise_multiplier,
            "clip_norm": self.config.clip_norm,
            "unit": "site",
            "neighbours": "one site's update replaced by zero",
            "amplification": "none",
        }

    def _next(self, server_round: int, sites: int) -> Release:
        c = self.config
        return Release(self.run, server_round, sites, c.clip_norm, c.noise_multiplier)

    def _check(self, releases: Sequence[Release]) -> None:
        needed = self._cost(releases)
        if needed > self.config.epsilon:
            raise PrivacyError(
                f"release {len(releases)} would cost epsilon {needed:.4g} in all at delta "
                f"{self.config.delta:g}, the budget privacy.epsilon is {self.config.epsilon:g}; it "
                f"was not made. {len(releases) - 1} releases are in {self.path}. The last "
                "committed prompt is kept; more rounds need a larger budget or more noise."
            )

    def _cost(self, releases: Sequence[Release]) -> float:
        return epsilon([release.noise_multiplier for release in releases], self.config.delta)
