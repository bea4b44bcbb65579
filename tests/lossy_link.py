"""Carry packets between TUN devices of two network namespaces, losing and delaying some.

``python tests/lossy_link.py NEAR FAR DEVICE WEATHER``; the file WEATHER holds the share of the
packets that is lost and the seconds that the others take, and is read at each packet.
"""

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import sys
import threading
import time
from pathlib import Path

_TUNSETIFF, _TUN, _NO_HEADER = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
_CLONE_NEWNET = 0x40000000  # linux/sched.h; os.setns is of Python 3.12
_MTU = 2048


def attach(netns: str, device: str) -> int:
    """Return a device of another namespace as an open file."""
    found: list[int] = []

    def enter() -> None:  # only this thread changes its namespace
        import ctypes

        with Path(f"/run/netns/{netns}").open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns {netns}")
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH22x", device.encode(), _TUN | _NO_HEADER)
        fcntl.ioctl(end, _TUNSETIFF, request)
        found.append(end)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return found[0]


def carry(ends: tuple[int, int], weather: Path) -> None:
    """Carry packets until the process is ended."""
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    chance, order = random.Random(0), itertools.count()  # noqa: S311 (not for secrets)
    due: list[tuple[float, int, int, bytes]] = []
    while True:
        pause = max(0.0, due[0][0] - time.monotonic()) if due else None
        ready, _, _ = select.select(ends, [], [], pause)
        for end in ready:
            packet = os.read(end, _MTU)
            loss, delay = map(float, weather.read_text().split())
            if chance.random() >= loss:
                heapq.heappush(due, (time.monotonic() + delay, next(order), other[end], packet))
        while due and due[0][0] <= time.monotonic():
            _, _, end, packet = heapq.heappop(due)
            os.write(end, packet)


def main() -> None:
    """Read the command line and carry."""
    near, far, device, weather = sys.argv[1:]
    ends = attach(near, device), attach(far, device)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    carry(ends, Path(weather))


if __name__ == "__main__":
    main()
