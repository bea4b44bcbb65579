"""Run a protocol over cases and seeds, and keep each trial as it is done.

The folder holds ``protocol.json`` (the settings asked for) and, for each case and seed,
``CASE/seed-N/result.json`` beside the artefacts of that trial. A finished trial is not run again.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from fedprompt.errors import ConfigError, FedpromptError
from fedprompt.experiments.protocols.trial import Protocol, Trial
from fedprompt.identity import canonical_json
from fedprompt.prompts.methods import applicable
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat
from fedprompt.storage import write_atomic

_SETTINGS, _RESULT = "protocol.json", "result.json"
_SAFE = re.compile(r"[^A-Za-z0-9.]+")  # all else in a case's name becomes one dash
Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One case at one seed: its size and metrics."""

    case: str  # its name
    own: Flat  # its settings
    seed: int
    form: str
    parameters: int  # that a site trains
    sent: int  # of them, in a round
    bytes_up: int  # of a site's reply
    metrics: dict[str, float | None]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """The trials of a protocol: every case at every seed.

    Attributes
    ----------
    name, protocol
        Of each trial.
    cases
        Settings by name, such as a method and its form.
    seeds
        Of images, prompt and federation.
    given
        Settings of all cases; they win over the protocol's.
    output
        Folder of the results.
    targets
        Settings of further data sets, by name.
    """

    name: str
    protocol: Protocol
    cases: Mapping[str, Flat]
    seeds: Sequence[int]
    given: Flat
    output: Path
    targets: Mapping[str, Flat] = field(default_factory=dict)

    def config(self, case: str, seed: int) -> RunConfig:
        """Return the configuration of one trial.

        A setting that is given for all cases is left out where a case's method has no such one.

        Raises
        ------
        ConfigError
            One is unknown or refused.
        """
        seeds: Flat = {f"{owner}.seed": seed for owner in ("data", "prompt", "server")}
        own = self.cases[case]
        method: Flat = {key: own[key] for key in own if key == "prompt.method"}
        shared = applicable(self.protocol.defaults | self.given | method)
        return RunConfig.parse(shared | own | seeds)

    def results(self, log: Log, workers: int = 1) -> list[Result]:
        """Run the unfinished trials and return all results, seeds within cases.

        Parameters
        ----------
        log
            Receives one line a trial.
        workers
            Processes that run trials at the same time.

        Raises
        ------
        ConfigError
            The folder holds results of other settings, or a setting is unknown.
        FedpromptError
            Trials failed; the first one's kind, after all others have run.
        """
        if failed := self.failures(log, workers):
            count = len(self._trials())
            raise type(failed[0])(f"{len(failed)} of {count} trials failed, first: {failed[0]}")
        return self.kept()

    def failures(self, log: Log, workers: int = 1) -> list[FedpromptError]:
        """Run the unfinished trials, as `results`, and return the errors of those that failed.

        Raises
        ------
        ConfigError
            The folder holds results of other settings, or a setting is unknown.
        """
        todo = self._trials()
        for trial in todo:  # all, before any runs
            self.config(*trial)
        self._claim()
        failed = []
        for (case, seed), error in self._run_all(todo, log, workers):
            if error:
                failed.append(error)
                log(f"{case}, seed {seed}: failed: {error}")
        return failed

    def kept(self) -> list[Result]:
        """Return the trials that are done with the settings asked for, seeds within cases."""
        paths = [(case, self._folder(case, seed) / _RESULT) for case, seed in self._trials()]
        kept = [(case, _read(path)) for case, path in paths if path.is_file()]
        return [result for case, result in kept if result.own == self.cases[case]]

    def _trials(self) -> list[tuple[str, int]]:
        return [(case, seed) for case in self.cases for seed in self.seeds]

    def _run_all(
        self, todo: Sequence[tuple[str, int]], log: Log, workers: int
    ) -> Iterator[tuple[tuple[str, int], FedpromptError | None]]:
        """Yield each trial as it ends, and the error that ended it."""
        if workers == 1:
            for trial in todo:
                yield trial, _attempted(self, trial, log)
            return
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            futures = {pool.submit(_attempted, self, trial, log): trial for trial in todo}
            for future in as_completed(futures):
                yield futures[future], future.result()

    def run(self, case: str, seed: int, log: Log) -> None:
        """Run one trial and keep its result, unless it is kept already.

        Raises
        ------
        ConfigError
            The folder holds a result of other settings.
        FedpromptError
            What the trial raises.
        """
        folder, config = self._folder(case, seed), self.config(case, seed)
        if (folder / _RESULT).is_file():
            if (kept := _read(folder / _RESULT)).own != self.cases[case]:
                raise ConfigError(
                    f"{folder} holds a result of {kept.own}, asked for is {self.cases[case]}; "
                    "remove it or give another --output"
                )
            log(f"{case}, seed {seed}: kept")
            return
        began = monotonic()
        torch.set_num_threads(config.fit.threads)  # as a site does
        trial = Trial(config=config, folder=folder, targets=self.targets)
        measured = self.protocol.run(trial)
        result = Result(
            case=case,
            own=self.cases[case],
            seed=seed,
            form=measured.method.form,
            **asdict(measured.method.size),
            metrics=measured.metrics,
            seconds=monotonic() - began,
        )
        # not canonical: metrics keep the protocol's order
        write_atomic(folder / _RESULT, json.dumps(asdict(result), indent=1).encode())
        log(f"{case}, seed {seed}: {_shown(measured.metrics)}")

    def _folder(self, case: str, seed: int) -> Path:
        return self.output / _SAFE.sub("-", case) / f"seed-{seed}"

    def _claim(self) -> None:
        """Record the settings of the folder, or refuse one of other settings."""
        asked = {"protocol": self.name, "given": self.given, "targets": dict(self.targets)}
        path = self.output / _SETTINGS
        if not path.is_file():
            write_atomic(path, canonical_json(asked))
            return
        held = json.loads(path.read_bytes())
        if held != json.loads(canonical_json(asked)):
            raise ConfigError(
                f"{self.output} holds results of {held}, asked for is {asked}; give another "
                "--output"
            )


def _attempted(series: Series, trial: tuple[str, int], log: Log) -> FedpromptError | None:
    """Run one trial and return the error that ended it, if one did."""
    try:
        series.run(*trial, log)
    except FedpromptError as error:
        return error
    return None


def _read(path: Path) -> Result:
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        return Result(**values)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: {error}; remove it to run the trial again") from None


def _shown(metrics: Mapping[str, float | None]) -> str:
    return ", ".join(f"{k} {'-' if v is None else f'{v:.4f}'}" for k, v in metrics.items())
