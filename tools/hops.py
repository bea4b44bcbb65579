"""Count the product files whose code runs in three stories: ``python -m tools.hops``.

A reader who follows a story has to open each of them. The stories are one plain round of dip with
two sites, one fp32 export, and one site that joins, up to its first answer. Bodies of modules and
classes are left out: they run once, on import.
"""

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
from click.testing import CliRunner
from flwr.app import ConfigRecord, Context, Message, RecordDict
from PIL import Image

ROOT = Path(__file__).parents[1]
PACKAGES = ("fedprompt", "server", "client", "export")
# the most files a story may run through; lowered with every file that falls away
LIMITS = {"round": 58, "export": 68, "join": 69}
GOALS = {"round": 16, "export": 20, "join": 16}
_OPTIMIZED = 0x1  # code of a function, not of a module or a class
CLASSES = ("circle", "square")


@contextmanager
def traced(when: Callable[[], bool] = lambda: True) -> Iterator[set[str]]:
    """Yield the set that fills with the product files whose functions run, in this and new threads.

    ``when`` says whether a call counts: threads are traced only if they start in here, so what
    they do later is switched on and off.
    """
    files, seen = set[str](), set[CodeType]()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or code in seen or not when():
            return
        seen.add(code)
        path = Path(code.co_filename)
        if code.co_flags & _OPTIMIZED and path.is_relative_to(ROOT):
            name = path.relative_to(ROOT)
            if name.parts[0] in PACKAGES:
                files.add(str(name))

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield files
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def photos(folder: Path) -> Path:
    """Draw a few images of two classes."""
    noise = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        for number in range(12):
            pixels = noise.integers(0, 60, (48, 48, 3), dtype=np.uint8)
            pixels[10:38, 10:38, label] += 150
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return folder


def run(group: Any, *words: object) -> None:
    """Run a command in this process."""
    result = CliRunner().invoke(group, [str(word) for word in words], catch_exceptions=False)
    if result.exit_code:
        raise SystemExit(f"{' '.join(map(str, words))}: {result.output}")


def one_round(folder: Path) -> set[str]:
    """Return the files of the second round of a simulation: every site is warm."""
    from fedprompt.cli import group
    from server.rounds.loop import Rounds

    plain, running = Rounds._round, [0]

    def counted(*arguments: Any) -> Any:
        running[0] += 1
        try:
            return plain(*arguments)
        finally:
            running[0] += 1

    Rounds._round = counted  # type: ignore[method-assign]
    try:
        settings = {"data.clients": 2, "server.rounds": 2, "data.source": photos(folder / "photos")}
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        with traced(lambda: running[0] == 3) as files:  # begun and ended once, and begun again
            run(group, "simulate", *words, "--output", folder / "run")
    finally:
        Rounds._round = plain  # type: ignore[method-assign]
    return files


def one_export(folder: Path) -> set[str]:
    """Return the files of an fp32 export of the run that `one_round` left."""
    from fedprompt.cli import group

    with traced() as files:
        run(group, "export", folder / "run", "--output", folder / "classifier.onnx")
    return files


def one_join(folder: Path) -> set[str]:
    """Return the files of ``flower-client join --no-start`` and of the site's first answer."""
    from client.app import app
    from client.deployment import tls_probe
    from client.deployment.command import group as flower_client
    from server.deployment.command import group as flower_server

    place, names = folder / "deployment", ",".join(CLASSES)
    run(flower_server, "init", place, "--address", "127.0.0.1:9092", "--classes", names)
    bundle = folder / "north.fedprompt"
    run(flower_server, "enrol", "north", "--output", bundle, "--folder", place)
    greet, tls_probe.probe = (
        tls_probe.probe,
        lambda *_: tls_probe.ProbeResult(None, None),
    )  # no server is up
    site, sent = folder / "north", _sent(place)
    try:
        with traced() as files:
            words = ("--data", folder / "photos", "--folder", site, "--no-start")
            run(flower_client, "join", bundle, *words)
            message = Message(RecordDict({"config": ConfigRecord({})}), 7, "query")
            message.metadata.__dict__["_message_id"] = message.object_id
            app(message, Context(1, 7, {"site-folder": str(site)}, RecordDict(), sent))
    finally:
        tls_probe.probe = greet
    return files


def _sent(place: Path) -> dict[str, Any]:
    """Return the settings that a deployment sends to its sites."""
    from server.deployment.folder import DeploymentFolder

    return dict(DeploymentFolder(place).run_settings())


def count() -> dict[str, list[str]]:
    """Return the files of each story, sorted."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        stories = {"round": one_round, "export": one_export, "join": one_join}
        return {name: sorted(story(folder)) for name, story in stories.items()}


def main() -> None:
    """Print each story's files and fail where one has too many."""
    found = count()
    for name, files in found.items():
        print(f"{name}: {len(files)} files, at most {LIMITS[name]}; the goal is {GOALS[name]}")
        print("\n".join(f"  {file}" for file in files))
    if too_long := [name for name, files in found.items() if len(files) > LIMITS[name]]:
        raise SystemExit(f"too many files in {', '.join(too_long)}")


if __name__ == "__main__":
    main()
