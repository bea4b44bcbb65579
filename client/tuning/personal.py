"""Whose prompt a site tunes: everyone's, its own, or both mixed (docs/personalisation.md)."""

from collections.abc import Callable
from pathlib import Path

from client.tuning.personal_checkpoints import LocalState
from fedprompt.data.cache import cache_folder
from fedprompt.errors import PromptError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.build import Prompt
from fedprompt.prompts.mixed import Mixed, Single
from fedprompt.settings.prompt import PromptConfig


class Personal:
    """Hold a site's own prompt, if it has one.

    Parameters
    ----------
    config
        ``prompt.personal`` and ``prompt.local_share``.
    site
        This site's number.
    build
        Builds a prompt of some settings.
    seed
        Of the own prompt's random start, another at each site.
    folder
        Where own prompts are kept; None = in the user's cache.
    """

    def __init__(
        self,
        config: PromptConfig,
        site: int,
        build: Callable[[PromptConfig], Prompt],
        seed: int,
        folder: Path | None,
    ) -> None:
        self.kind, self._share, self._site = config.personal, config.local_share, site
        self._folder = folder or cache_folder() / "local"
        self._own: Single | None = None
        if self.kind != "global":
            own = build(config.model_copy(update={"seed": seed}))
            if not isinstance(own, Single):
                raise PromptError(
                    f"prompt.personal = {self.kind} needs a prompt to tune, prompt.method is "
                    f"{config.method}; set prompt.personal = global"
                )
            self._own, self._start = own, own.arrays()

    def around(self, shared: Prompt, run: str, after: int) -> Prompt:
        """Return the prompt to tune or score, own part as the last round up to ``after`` left it.

        Parameters
        ----------
        shared
            With what travelled in it.
        run
            The run's digest.
        after
            A round.
        """
        if self._own is None:
            return shared
        state = LocalState(self._folder, run, self._site)
        if after == 0:  # a run begins; what lies here is an earlier one's
            state.forget(0)
        self._own.load_arrays(state.before(after + 1) or self._start)
        if self.kind == "both" and isinstance(shared, Single):
            return Mixed(shared, self._own, self._share)
        return self._own

    def keep(self, run: str, server_round: int) -> None:
        """Keep the own part as it is after a round.

        Raises
        ------
        StorageError
            The disk is full or read-only: then the round has not been trained.
        """
        if self._own is not None:
            LocalState(self._folder, run, self._site).commit(server_round, self._own.arrays())

    def leaving(self, shared: Prompt) -> PromptState:
        """Return what may leave the site: the shared prompt's arrays, or nothing."""
        return PromptState() if self.kind == "local" else shared.leaving()
