"""Run Python on an older processor than this one: QEMU's user mode, from Debian's package."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedprompt.data.cache import cache_folder

_PACKAGE, _PROGRAM = "qemu-user-static", "qemu-x86_64-static"
AVX2 = "Haswell"  # AVX2 without VNNI or AVX-512


def emulator() -> Path:
    """Return QEMU, unpacked into the cache where it is not installed; skip where there is none."""
    if platform.machine() != "x86_64" or sys.platform != "linux":
        pytest.skip("processors of x86 are emulated on Linux on x86 only")
    if installed := shutil.which(_PROGRAM):
        return Path(installed)
    place = cache_folder() / _PACKAGE
    program = place / "usr" / "bin" / _PROGRAM
    if not program.exists():
        place.mkdir(parents=True, exist_ok=True)
        try:
            _call("apt-get", "download", _PACKAGE, cwd=place)
            [package] = place.glob("*.deb")
            _call("dpkg", "-x", str(package), str(place), cwd=place)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            pytest.skip(f"{_PACKAGE} could not be fetched: {error}")
        package.unlink()
    return program


def _call(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)


def run_on(processor: str, code: str, *arguments: object) -> str:
    """Return what Python code writes on a processor of QEMU's list."""
    python = os.path.realpath(sys.executable)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [emulator(), "-cpu", processor, python, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
