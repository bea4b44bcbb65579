"""Write the folder that a static web server hands out: page, graph and runtime."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from export.parity.compare import Probes, probe_images
from export.runtime.metadata import GraphMetadata
from export.runtime.session import open_classifier
from export.targets.web.runtime import runtime_files
from fedprompt.data.decode import MAX_PIXELS
from fedprompt.errors import GraphError, StorageError
from fedprompt.identity import sha256_bytes
from fedprompt.storage import write_atomic

FACTS = "classifier.json"  # also the sign that a folder is ours
_PROBE = 3  # of the file's own: 16 x 16 cells


def write_page(folder: Path, data: bytes) -> tuple[Path, str]:
    """Write a page that classifies photos in the browser.

    Parameters
    ----------
    folder
        New, empty, or written by this function before.
    data
        Of a classifier file of the portable flavour.

    Returns
    -------
    The path of the classifier, and a line that says what the folder is.

    Raises
    ------
    GraphError
        The file is no classifier, has operators that browsers lack, or no probes.
    StorageError
        The folder holds something else, or cannot be written.
    DataError
        onnxruntime-web is not in the cache and cannot be fetched.
    """
    facts, probe = _facts(data, open_classifier(data, provider="cpu")[1])
    _check_folder(folder)
    contents = {f"runtime/{name}": content for name, content in runtime_files().items()}
    contents |= {
        path.name: path.read_bytes() for path in files(__package__).joinpath("page").iterdir()
    }
    contents |= {
        "classifier.onnx": data,
        "probe.bin": probe,
        FACTS: json.dumps(facts, ensure_ascii=False, indent=1).encode(),
    }
    for name in sorted(contents):
        write_atomic(folder / name, contents[name])
    size = sum(map(len, contents.values()))
    line = f"{folder}: a page for any static web server, {size / 1e6:.1f} MB"
    return folder / "classifier.onnx", line


def _facts(model: bytes, metadata: GraphMetadata) -> tuple[dict[str, Any], bytes]:
    """Return what the page must know, and the pixels of the image by which it checks itself."""
    if metadata.flavour != "portable":
        raise GraphError(
            f"the graph's flavour is {metadata.flavour!r}, with operators that browsers lack; "
            "export it as portable"
        )
    if metadata.white_level:
        raise GraphError(
            f"the prompt was tuned with data.white_level = {metadata.white_level}, and browsers "
            "decode 16-bit images with a white level of their own; export to another target"
        )
    if metadata.probes is None or len(metadata.probes.logits) <= _PROBE:
        raise GraphError("the file holds no probes, by which the page checks itself; export again")
    pre = metadata.preprocessing
    facts = {
        "classes": list(metadata.classes),
        "size": pre.size,
        "interpolation": pre.interpolation,
        "resize_mode": pre.resize_mode,
        "fill": pre.fill,
        "max_pixels": MAX_PIXELS,
        "model": {"bytes": len(model), "sha256": sha256_bytes(model)},
        "probe_logits": metadata.probes.logits[_PROBE].tolist(),
        "backbone": metadata.backbone.get("name", ""),
        "version": metadata.version,
    }
    return facts, _pixels(metadata.probes, pre.size)


def _pixels(probes: Probes, size: int) -> bytes:
    image = probe_images(probes.seed, _PROBE + 1, size)[_PROBE]
    return bytes(image.tobytes())


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is a file; give a folder for the page")
    if folder.exists() and any(folder.iterdir()) and not (folder / FACTS).is_file():
        raise StorageError(
            f"{folder} holds other files, which the page could overwrite; give an empty folder"
        )
