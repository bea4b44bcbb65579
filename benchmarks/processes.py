"""Look at the processes of a deployment on this machine: what each is, and its own memory."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# what stands in a command line -> the kind of process
_KINDS = {
    "server.deployment.superlink": "superlink",
    "flwr-serverapp": "serverapp",
    "flower-superexec": "superexec",
    "client.deployment.supernode": "supernode",
    "client.deployment.worker": "worker",
    "benchmarks.fleet": "fleet",
    "flower-server": "supervisor",
    "flower-client": "client",
}


@dataclass(frozen=True)
class Life:
    """Name one process for as long as it lives; numbers of processes are given again."""

    kind: str
    pid: int
    started: int  # clock ticks since the machine started


def life(pid: int) -> Life | None:
    """Return what a process is; None if it is gone or of no kind that is known."""
    try:
        command = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    kinds = [kind for text, kind in _KINDS.items() if text in command]
    return Life(kinds[0], pid, int(fields[19])) if kinds else None


def lives(pids: Iterable[int]) -> list[Life]:
    """Return the known ones among some processes."""
    return [found for pid in pids if (found := life(pid))]


def children(pid: int) -> list[int]:
    """Return the processes that a process started itself and that still run."""
    found: list[int] = []
    with suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def memory(pid: int) -> int | None:
    """Return the bytes that a process holds for itself, in RAM or swapped out; None if it is gone.

    Anonymous pages: what files are mapped is not counted, because the system takes such pages and
    gives them back as it likes.
    """
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return None
    sizes = [line.split() for line in text.splitlines()[1:]]
    return sum(int(size[1]) for size in sizes if size[0] in ("Anonymous:", "Swap:")) * 1024 or None
