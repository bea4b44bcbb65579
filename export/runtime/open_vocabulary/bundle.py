"""A bundle on disk: graphs, tokenizer, and versions of prompt and classes that can change.

    bundle.json  classifier.onnx  text_encoder.onnx  tokenizer.json  versions/HASH.safetensors

The manifest names the version that is served and the SHA-256 of every file; graphs and tokenizer
never change. A change writes the new version's file, which nobody reads yet, and then replaces the
manifest in one step: whatever moment a crash chooses, the old version is served or the new one.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.runtime.open_vocabulary.manifest import Manifest, Version
from export.runtime.safety.safe_graph import read_model
from export.runtime.signature import signature_of
from fedprompt import tensor_file
from fedprompt.errors import GraphError
from fedprompt.files.file_lock import lock
from fedprompt.identity import sha256_bytes
from fedprompt.storage import write_atomic

MANIFEST, CLASSIFIER, TEXT_ENCODER, TOKENIZER = (
    "bundle.json",
    "classifier.onnx",
    "text_encoder.onnx",
    "tokenizer.json",
)
_MOST = 1 << 30  # bytes of any other file

log = logging.getLogger("fedprompt.bundle")

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class State:
    """What a version serves.

    Attributes
    ----------
    classes
        Names.
    vectors
        float32 [classes joint], each of length one.
    templates
        Texts with ``{}`` for the name.
    context
        float32 [layers length width], the text prompt; None = words alone.
    artefact_sha256
        Identity of the prompt.
    """

    classes: tuple[str, ...]
    vectors: Vectors
    templates: tuple[str, ...]
    context: Vectors | None
    artefact_sha256: str


class Bundle:
    """Read and change a bundle's folder.

    Raises
    ------
    GraphError
        The folder is no bundle, or its manifest is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.parse(_read(folder / MANIFEST))

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises
        ------
        GraphError
            The file is missing, unsafe, or was changed.
        """
        path = self.folder / name
        data = read_model(path) if path.suffix == ".onnx" else _read(path)
        found, expected = sha256_bytes(data), self.manifest.files.get(name, "nothing")
        if found != expected:
            raise GraphError(
                f"{path}: found sha256 {found[:16]}…, {MANIFEST} says {expected[:16]}…; the file "
                "was changed: copy the bundle again, or export it again"
            )
        return data

    def state(self, number: int) -> State:
        """Return what a version serves.

        Raises
        ------
        GraphError
            Its file is missing or was changed.
        """
        version = self.manifest.versions[number - 1]
        arrays = tensor_file.parse(self.read(version.tensors))
        vectors = arrays.get("class_vectors", np.zeros(0, np.float32))
        if vectors.ndim != 2 or len(vectors) != len(version.classes):
            raise GraphError(
                f"version {number} has {len(version.classes)} classes and class vectors of shape "
                f"{list(vectors.shape)}; the bundle is damaged: export it again"
            )
        return State(
            version.classes,
            vectors,
            version.templates,
            arrays.get("context"),
            version.artefact_sha256,
        )

    def commit(self, state: State) -> int:
        """Write a new version, serve it from now on, and return its number.

        Raises
        ------
        GraphError
            Somebody else changed the bundle since it was read.
        StorageError
            The folder cannot be written; what was served is served.
        """
        before = self.manifest
        name, digest = write_tensors(self.folder, state)
        version = Version(
            number=len(before.versions) + 1,
            parent=before.current,
            artefact_sha256=state.artefact_sha256,
            classes=state.classes,
            templates=state.templates,
            tensors=name,
        )
        self._replace(
            replace(
                before,
                files=before.files | {name: digest},
                versions=(*before.versions, version),
                current=version.number,
            )
        )
        return version.number

    def roll_back(self) -> int:
        """Serve the version before the current one, and return its number.

        Raises
        ------
        GraphError
            There is none before it, its file was changed, or somebody else changed the bundle.
        """
        parent = self.manifest.served.parent
        if not parent:
            raise GraphError(
                f"{self.folder} serves version {self.manifest.current}, as it was exported; there "
                "is none before it"
            )
        self.state(parent)
        self._replace(replace(self.manifest, current=parent))
        return parent

    def _replace(self, manifest: Manifest) -> None:
        with _alone(self.folder):
            current = Manifest.parse(_read(self.folder / MANIFEST))
            if current != self.manifest:  # else that change would be lost without a word
                raise GraphError(
                    f"{self.folder} serves version {current.current}, this change was made to "
                    f"version {self.manifest.current}: somebody else changed it meanwhile; do it "
                    "again"
                )
            write_atomic(self.folder / MANIFEST, manifest.to_json())
        self.manifest = manifest
        if (signature := signature_of(self.folder)).exists():
            log.warning("%s holds no longer, the bundle was changed: sign it again", signature)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time replace a manifest, where the file system has locks."""
    with ExitStack() as stack:
        with suppress(OSError):  # some network file systems and Windows have none for folders
            stack.enter_context(lock(folder))
        yield


def write_tensors(folder: Path, state: State) -> tuple[str, str]:
    """Write a version's file; return its path below the folder and its SHA-256.

    Its name is its hash, so that two writers at a time cannot write into each other's.
    """
    arrays = {"class_vectors": state.vectors}
    arrays |= {} if state.context is None else {"context": state.context}
    data = tensor_file.dump(arrays)
    digest = sha256_bytes(data)
    name = f"versions/{digest[:16]}.safetensors"
    write_atomic(folder / name, data)
    return name, digest


def hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of files of a folder, by name."""
    return {name: sha256_bytes((folder / name).read_bytes()) for name in names}


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST or not path.is_file():
            raise GraphError(f"{path} is no file of at most {_MOST:,} bytes; export again")
        return path.read_bytes()
    except OSError as error:
        raise GraphError(
            f"{path} could not be read: {error.strerror}; a bundle is a folder written by "
            "`fedprompt export --open-vocabulary`"
        ) from None
