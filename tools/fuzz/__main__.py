"""``python -m tools.fuzz TARGET --inputs 1000000``: try to break one parser, print one JSON line.

With atheris (``pip install 'fedprompt[fuzz]'``, Linux) the inputs follow the coverage of our own
code; ``--engine mutate`` edits honest inputs blindly and needs nothing. Targets are those of
``tests/fuzz/targets.py``. Inputs that broke something are kept below ``--findings``; how each
count is measured is told in `tools.fuzz.meter`. Exit code 1 if there is any finding.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fuzz.scratch import MEMORY, PLACE
from tools.fuzz.child import last_input

_STUCK = 60.0  # seconds without a new input
_LOOK = 0.5  # seconds between two looks at the child


def main() -> int:
    """Run a child, watch it, and say what it found."""
    chosen = _arguments()
    folder = Path(chosen.findings, chosen.target)
    command = [sys.executable, "-m", "tools.fuzz.child", chosen.target, str(chosen.inputs)]
    command += [chosen.engine, str(folder), str(chosen.seed)]
    memory = MEMORY if MEMORY.is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as place,
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(
            command, stdout=output, env=os.environ | {"OMP_NUM_THREADS": "1", PLACE: place}
        ) as child,
    ):
        stuck = _watch(child, folder)
        output.seek(0)
        lines = output.read().splitlines()
    report = _report(lines, child.returncode, folder, stuck=stuck)
    report = {"target": chosen.target, "engine": chosen.engine, **report}
    print(json.dumps(report))
    return int(bool(report["crashes"] or report["hangs"] or report.get("over_limit")))


def _arguments() -> argparse.Namespace:
    from tests.fuzz.targets import TARGETS

    has_atheris = importlib.util.find_spec("atheris") is not None
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--inputs", type=int, default=1_000_000)
    default = "atheris" if has_atheris else "mutate"
    parser.add_argument("--engine", choices=("atheris", "mutate"), default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", default=str(Path(tempfile.gettempdir(), "fedprompt-fuzz")))
    return parser.parse_args()


def _watch(child: "subprocess.Popen[bytes]", folder: Path) -> bool:
    """Wait for the child; end it and return True if one input keeps it for too long."""
    seen, since = -1, time.monotonic()
    while child.poll() is None:
        time.sleep(_LOOK)
        count, _ = last_input(folder)
        if count != seen:
            seen, since = count, time.monotonic()
        elif time.monotonic() - since > _STUCK and count:
            child.kill()
            child.wait()
            return True
    return False


def _report(lines: list[str], code: int, folder: Path, *, stuck: bool) -> dict[str, Any]:
    """Return the child's own report, or what its death says."""
    if code == 0 and lines:
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    count, data = last_input(folder)
    (folder / f"death-{count}.bin").write_bytes(data)
    told = {"inputs": count, "crashes": int(not stuck), "hangs": int(stuck)}
    return told | {"kinds": {f"the process ended with {code}": 1}}


if __name__ == "__main__":
    sys.exit(main())
