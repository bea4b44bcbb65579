"""A page that `export.targets.web` wrote, and a static web server as a visitor meets it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch

import export.targets.web
from export.fold.constants import Constants
from export.precision import Recipe
from fedprompt.backbone.clip import FrozenClip
from fedprompt.prompts.template import Template
from tests.classifier_file import write_classifier


def write_page(clip: FrozenClip, classes: tuple[str, ...], folder: Path) -> Path:
    """Write the page of a zero-shot classifier, and return the classifier beside it."""
    with torch.inference_mode():
        constants = Constants.of(Template(clip, classes, "a photo of a {}.").fold())
    nothing = np.zeros((0, clip.preprocessing.size, clip.preprocessing.size, 3), np.uint8)
    path = folder.parent / f"{folder.name}.onnx"
    write_classifier(
        path,
        clip,
        constants,
        classes,
        nothing,
        artefact_sha256="a" * 64,
        recipe=Recipe("portable", "fp32"),
    )
    export.targets.web.write_page(folder, path.read_bytes())
    return path


class _Listed(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
        self.server.seen.append(self.path)  # type: ignore[attr-defined]


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder on loopback; yield its address and, growing, the paths that are asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Listed, directory=str(folder)))
    seen: list[str] = []
    server.seen = seen  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
