"""Graphs alone: fedprompt's and other ways from images in memory to logits, against eager."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.pairs import Ratio, Run, in_turn, milliseconds, ratios
from benchmarks.peers import Peer
from benchmarks.subject import Subject, open_session
from export.fold.constants import Constants, VisualPrompts
from export.fold.types import Pictures
from export.parity.check import reference_logits
from export.precision import Recipe
from export.runtime.session import Session
from export.targets import recipe_of
from fedprompt.data.fashion_mnist import CLASSES
from fedprompt.settings.data import DataConfig

Figures = dict[str, Any]
Maker = Callable[[Subject], Peer]

RECIPES: dict[str, Recipe] = {
    "fp32": recipe_of("cpu", "fp32"),
    "fp32_ort": Recipe("ort", "fp32"),
    "fp16": recipe_of("cpu", "fp16"),
    "int8": recipe_of("cpu", "int8"),
}
PEERS: dict[str, Maker] = {
    "compiled": lambda subject: peers.compiled(subject.clip, subject.constants),
    "exported": lambda subject: peers.exported(subject.clip, subject.constants),
    "two_graphs": lambda subject: peers.two_graphs(subject.clip, subject.constants),
    "text_at_every_call": lambda subject: peers.text_at_every_call(subject.clip, texts(CLASSES)),
}
FASTER = "vs_eager"
BATCHES = (1, 16)
TOKENS = 10  # visual prompts of each block
TOLERANCE = 1e-3  # of a peer's logits


def texts(names: Iterable[str]) -> list[str]:
    """Return the names in the template that the class vectors are made with."""
    return [DataConfig().template.format(name) for name in names]


def open_sessions(
    subject: Subject, names: Iterable[str] = RECIPES, constants: Constants | None = None
) -> dict[str, Session]:
    """Return fedprompt's graphs, in sessions of one thread."""
    return {name: open_session(subject.graph(RECIPES[name], constants)) for name in names}


def graph_runs(sessions: Mapping[str, Session], images: Pictures) -> dict[str, Run]:
    """Return what is timed of fedprompt's graphs."""
    return {
        name: partial(session.run, ["logits"], {"images": images})
        for name, session in sessions.items()
    }


def open_peers(subject: Subject, names: Iterable[str]) -> tuple[dict[str, Peer], dict[str, str]]:
    """Return the peers that run here and answer as torch does, and why others do not."""
    found: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    images = subject.floats(subject.real.pictures[: max(BATCHES)])
    for name in names:
        try:
            peer = PEERS[name](subject)
            for batch in BATCHES:  # what compiles does so now
                _check(peer(images[:batch]), subject.expected[:batch])
        except Exception as error:  # a compiler or an exporter that is not there raises anything
            absent[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        else:
            found[name] = peer
    return found, absent


def _check(found: peers.Logits, expected: peers.Logits) -> None:
    difference = float(np.abs(found - expected).max())
    if difference > TOLERANCE:
        raise ArithmeticError(f"its logits differ from torch's by {difference:.2g}")


def figures(prefix: str, found: Mapping[str, Ratio], suffix: str = FASTER) -> Figures:
    """Return ratios by name, the quartiles of their pairs beside each."""
    named: Figures = {}
    for name, ratio in found.items():
        named[f"{prefix}_{name}_{suffix}"] = ratio.median
        named[f"{prefix}_{name}_{suffix}_spread"] = [ratio.low, ratio.high]
    return named


def speeds(subject: Subject, model: str, others: Iterable[str], seconds: float) -> Figures:
    """Measure one model: every graph and every peer in turn with eager, one image and sixteen."""
    rivals, absent = open_peers(subject, others)
    rivals = {"eager": peers.eager(subject.clip, subject.constants), **rivals}
    sessions = open_sessions(subject)
    found: Figures = {f"{model}_{name}_absent": reason for name, reason in absent.items()}
    for precision in ("fp32", "fp32_ort", "fp16"):
        parity = subject.parity(sessions[precision], precision.partition("_")[0])
        found[f"{model}_{precision}_agreement"] = parity.agreement
        found[f"{model}_{precision}_largest"] = parity.largest
    for batch in BATCHES:
        images = subject.real.pictures[:batch]
        given = subject.floats(images)
        runs: dict[str, Run] = {name: partial(peer, given) for name, peer in rivals.items()}
        found |= _measured(f"{model}_b{batch}", runs | graph_runs(sessions, images), seconds)
    return found


def _measured(prefix: str, runs: Mapping[str, Run], seconds: float) -> Figures:
    times = in_turn(runs, seconds)
    eager = times["eager"]
    told = {f"{prefix}_rounds": len(eager), f"{prefix}_eager_ms": milliseconds(eager)}
    return told | figures(prefix, ratios(times, "eager"))


def prompted(subject: Subject, model: str, seconds: float) -> Figures:
    """Measure a tower with deep visual prompts in every block, and its graph without any."""
    constants = with_prompts(subject)
    rival = peers.eager(subject.clip, constants)
    sessions = open_sessions(subject, ("fp32", "fp32_ort", "int8"), constants)
    plain = open_sessions(subject, ("fp32",))["fp32"]
    expected = reference_logits(subject.clip, constants, subject.real.pictures)
    found: Figures = {}
    for batch in BATCHES:
        images = subject.real.pictures[:batch]
        given = subject.floats(images)
        _check(rival(given), expected[:batch])
        runs: dict[str, Run] = {"eager": partial(rival, given), **graph_runs(sessions, images)}
        runs |= graph_runs({"unprompted": plain}, images)
        found |= _measured(f"{model}_b{batch}", runs, seconds)
    return found


def with_prompts(subject: Subject) -> Constants:
    """Return the subject's constants with `TOKENS` random visual prompts in every block."""
    tower = subject.clip.image
    shape = (len(tower.blocks), TOKENS, tower.width)
    tokens = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    prompts = VisualPrompts(tokens=tokens)
    return Constants(class_vectors=subject.constants.class_vectors, visual=prompts)
