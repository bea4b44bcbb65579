"""Classify images with one ONNX file: numpy, Pillow and ONNX Runtime, no torch."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.runtime.inputs import Source, name_of, pixels_of
from export.runtime.prediction import Prediction, rank
from export.runtime.session import open_classifier
from export.safety import read_model
from fedprompt.data.preprocess import fit_to_input
from fedprompt.errors import DataError, GraphError


class Classifier:
    """Hold a classifier file, loaded safely (F26) on the best provider.

    Parameters
    ----------
    path
        Of a ``classifier.onnx`` written by ``fedprompt export``.
    provider
        ``tensorrt``, ``cuda`` or ``cpu``; None takes the best that runs.
    allow_cpu
        Whether the CPU will do when no provider was asked for.
    threads
        On the CPU; 0 leaves the choice to ONNX Runtime.

    Raises
    ------
    GraphError
        The file is missing, damaged, unsafe or no classifier.
    ProviderError
        ONNX Runtime is missing or doubled, or the provider asked for does not run.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        provider: str | None = None,
        allow_cpu: bool = True,
        threads: int = 0,
    ) -> None:
        data = read_model(Path(path))
        try:
            self._session, self.metadata = open_classifier(
                data, provider=provider, allow_cpu=allow_cpu, threads=threads
            )
        except GraphError as error:
            raise GraphError(f"{path}: {error}") from None
        self.classes = self.metadata.classes
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())

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
        found: list[Prediction] = []
        for names, batch in self._batches(images, batch_size):
            rows = zip(names, self.logits(batch), strict=True)
            found += [rank(name, row, self.classes, top_k) for name, row in rows]
        return found

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return logits [batch classes] of resized images: uint8 [batch size size 3].

        Raises
        ------
        DataError
            Dtype or shape differ.
        """
        size = self.metadata.preprocessing.size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise DataError(
                f"found {images.dtype} {list(images.shape)}; expected uint8 [batch {size} {size} 3]"
            )
        try:
            logits: npt.NDArray[np.float32] = self._session.run(["logits"], {"images": images})[0]
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types
            raise GraphError(f"ONNX Runtime failed: {' '.join(str(error).split())[:300]}") from None
        return logits

    def _batches(
        self, images: Sequence[Source], batch_size: int
    ) -> Iterator[tuple[list[str], npt.NDArray[np.uint8]]]:
        for begin in range(0, len(images), batch_size):
            part = images[begin : begin + batch_size]
            names = [name_of(source, begin + offset) for offset, source in enumerate(part)]
            pixels = (pixels_of(s, name) for s, name in zip(part, names, strict=True))
            yield names, np.stack([fit_to_input(p, self.metadata.preprocessing) for p in pixels])
