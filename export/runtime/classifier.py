"""Classify images with one ONNX file: numpy, Pillow and ONNX Runtime, no torch."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.runtime.inputs import Source, name_of, pixels_of
from export.runtime.io_binding import SIZES, runner
from export.runtime.safety.safe_graph import read_model
from export.runtime.session import open_classifier
from fedprompt.data.decode import MAX_PIXELS, checked_pixels
from fedprompt.data.preprocess import fit_to_input
from fedprompt.errors import DataError, GraphError

Feeds = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first."""

    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def top(self) -> str:
        """Return the most probable class."""
        return self.classes[0]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        ranked = zip(self.classes, self.probabilities, strict=True)
        return {
            "image": self.name,
            "predictions": [{"class": c, "probability": p} for c, p in ranked],
        }


class Classifier:
    """A classifier file, loaded safely (F26) on the best provider.

    Parameters
    ----------
    path
        Of a ``classifier.onnx`` written by ``fedprompt export``, or what `read_model` read of it.
    provider
        ``tensorrt``, ``cuda``, ``openvino``, ``coreml``, ``directml`` or ``cpu``; None takes the
        best that runs.
    allow_cpu
        Whether the CPU will do when no provider was asked for.
    threads
        On the CPU; 0 leaves the choice to ONNX Runtime.
    cuda_graphs
        Record CUDA's work once for each of a few batch sizes and replay it: less overhead for
        small batches, more memory (`export.runtime.io_binding`).
    max_pixels
        Of one image, width times height; a larger one is refused before memory is taken for it.

    Raises
    ------
    GraphError
        The file is missing, damaged, unsafe or no classifier.
    ProviderError
        ONNX Runtime is missing or doubled, or the provider asked for does not run.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | bytes,
        *,
        provider: str | None = None,
        allow_cpu: bool = True,
        threads: int = 0,
        cuda_graphs: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.max_pixels = checked_pixels(max_pixels)
        data = path if isinstance(path, bytes) else read_model(Path(path))
        try:
            session, self.metadata = open_classifier(
                data,
                provider=provider,
                allow_cpu=allow_cpu,
                threads=threads,
                cuda_graphs=cuda_graphs,
            )
        except GraphError as error:
            if isinstance(path, bytes):
                raise
            raise GraphError(f"{path}: {error}") from None
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        self._graphs = SIZES if cuda_graphs else ()
        self._runner = runner(session, cuda_graphs=cuda_graphs)
        taken = {node.name: node.shape for node in session.get_inputs()}
        self._joint: int | None = taken["class_vectors"][1] if "class_vectors" in taken else None
        # names beside what the graph is given with the images: both change in one step
        self._served: tuple[tuple[str, ...], Feeds] = self.metadata.classes, {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names, in the order of the logits."""
        return self._served[0]

    @property
    def artefact_sha256(self) -> str:
        """Return the identity of the prompt that was folded in."""
        return self.metadata.artefact_sha256

    def serve(self, classes: tuple[str, ...], vectors: npt.NDArray[np.float32]) -> None:
        """Serve other classes from now on, of a graph that takes their vectors [classes joint].

        Raises
        ------
        GraphError
            The graph has its class vectors inside, or the vectors do not fit names or graph.
        """
        if self._joint is None or vectors.shape != (len(classes), self._joint):
            raise GraphError(
                f"found class vectors {list(vectors.shape)} for {len(classes)} names; the graph "
                f"takes {'none' if self._joint is None else f'[classes {self._joint}]'}: export "
                "with --open-vocabulary for one that does"
            )
        self._served = classes, {"class_vectors": np.ascontiguousarray(vectors, np.float32)}

    def warm_up(self, batch_size: int = 16) -> None:
        """Compute black images: a batch of ``batch_size``, one of one, and those that have a graph.

        What a first call costs (memory, choice of kernels, TensorRT's engine for sizes between the
        two, a recorded graph) is then paid before the first image comes.
        """
        size = self.metadata.preprocessing.size
        for count in sorted({1, batch_size, *(s for s in self._graphs if s < batch_size)})[::-1]:
            self.logits(np.zeros((count, size, size, 3), np.uint8))

    def predict(
        self, images: Sequence[Source], *, top_k: int = 5, batch_size: int = 16
    ) -> list[Prediction]:
        """Return one prediction an image, in order.

        Parameters
        ----------
        images
            Paths, encoded bytes, Pillow images or uint8 arrays [height width 3].
        top_k
            Classes to name.
        batch_size
            Images computed at a time.

        Raises
        ------
        DataError
            An image cannot be read; the message names it.
        """
        if isinstance(images, str | bytes | os.PathLike):
            raise DataError("found one image where a list was expected; write predict([image])")
        if top_k < 1 or batch_size < 1:
            raise DataError(f"top_k = {top_k} and batch_size = {batch_size}; expected at least 1")
        predictions: list[Prediction] = []
        classes, feeds = self._served
        for names, batch in self._batches(images, batch_size):
            rows = zip(names, self._run(batch, feeds), strict=True)
            predictions += [rank(name, row, classes, top_k) for name, row in rows]
        return predictions

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return logits [batch classes] of resized images: uint8 [batch size size 3].

        Raises
        ------
        DataError
            Dtype or shape differ.
        """
        return self._run(images, self._served[1])

    def _run(self, images: npt.NDArray[np.uint8], feeds: Feeds) -> npt.NDArray[np.float32]:
        size = self.metadata.preprocessing.size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise DataError(
                f"found {images.dtype} {list(images.shape)}; expected uint8 [batch {size} {size} 3]"
            )
        if self._joint is not None and not feeds:
            raise GraphError(
                "the graph takes its class vectors as an input; open the bundle's folder with "
                "OpenClassifier"
            )
        try:
            return self._runner(images, feeds)
        except GraphError:
            raise
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types
            raise GraphError(f"ONNX Runtime failed: {' '.join(str(error).split())[:300]}") from None

    def _batches(
        self, images: Sequence[Source], batch_size: int
    ) -> Iterator[tuple[list[str], npt.NDArray[np.uint8]]]:
        for begin in range(0, len(images), batch_size):
            part = images[begin : begin + batch_size]
            names = [name_of(source, begin + offset) for offset, source in enumerate(part)]
            most, white = self.max_pixels, self.metadata.white_level
            pixels = (pixels_of(s, n, most, white) for s, n in zip(part, names, strict=True))
            yield names, np.stack([fit_to_input(p, self.metadata.preprocessing) for p in pixels])


def rank(
    name: str, logits: npt.NDArray[np.float32], classes: tuple[str, ...], top_k: int
) -> Prediction:
    """Return the ``top_k`` classes by softmax of the logits [classes]; ties keep their order."""
    exact = logits.astype(np.float64)
    shares = np.exp(exact - exact.max())
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")[:top_k]
    return Prediction(
        name, tuple(classes[i] for i in order), tuple(float(shares[i]) for i in order)
    )
