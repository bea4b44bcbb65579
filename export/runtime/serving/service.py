"""Turn files into predictions for many callers at once, within the limits."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from export.runtime.classifier import Classifier, Prediction, rank
from export.runtime.serving.batcher import Batcher
from export.runtime.serving.body import Arrivals, File
from export.runtime.serving.limits import ErrorResponse, Limits
from export.runtime.serving.metrics import Metrics
from fedprompt.data.decode import decode
from fedprompt.data.preprocess import fit_to_input
from fedprompt.errors import DataError, GraphError

if TYPE_CHECKING:
    from export.runtime.open_vocabulary.classifier import OpenClassifier

_MOST_DECODERS = 4  # each holds the pixels of one image, up to max_pixels


@dataclass(frozen=True)
class Unreadable:
    """A file that is no readable image, and why."""

    image: str
    message: str
    code = "unreadable_image"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"image": self.image, "code": self.code, "message": self.message}


@dataclass(frozen=True)
class Answer:
    """The predictions of a request's images, and which of them could not be read."""

    predictions: list[Prediction]
    errors: list[Unreadable]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "results": [prediction.to_dict() for prediction in self.predictions],
            "errors": [error.to_dict() for error in self.errors],
        }


class Service:
    """A classifier, the threads that decode, and the one that computes."""

    def __init__(self, classifier: "Classifier | OpenClassifier", limits: Limits) -> None:
        self.classifier, self.limits, self.metrics = classifier, limits, Metrics()
        self._batcher = Batcher(self._compute, limits.batch)
        self._decoders = ThreadPoolExecutor(
            min(_MOST_DECODERS, os.cpu_count() or 1), thread_name_prefix="decoder"
        )
        self.arrivals = Arrivals(limits.requests * limits.max_bytes)
        self._in_flight = 0
        self._failed = False

    @property
    def ready(self) -> bool:
        """Whether images can be answered: not closing, and the last batch did not fail."""
        return self._batcher.alive and not self._failed

    def enter(self) -> None:
        """Take a place for one request; `leave` gives it back.

        Raises
        ------
        ErrorResponse
            503: there is none.
        """
        if self._in_flight >= self.limits.requests:
            raise ErrorResponse(
                503, "busy", f"{self.limits.requests} requests are in work; ask again later"
            )
        self._in_flight += 1
        self.metrics.in_flight.set(self._in_flight)

    def leave(self) -> None:
        """Give a place back."""
        self._in_flight -= 1
        self.metrics.in_flight.set(self._in_flight)

    async def predict(self, files: list[File], top_k: int) -> Answer:
        """Return one prediction a file that can be read, in order, and what ails the others.

        Raises
        ------
        ErrorResponse
            422 no file is an image that can be read, 500 the graph failed.
        """
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(self._decoders, self._pixels, file) for file in files]
        decoded = await asyncio.gather(*jobs, return_exceptions=True)  # all ended: no work is left
        for result in decoded:
            if isinstance(result, BaseException):
                raise result
        errors = [predictions for predictions in decoded if isinstance(predictions, Unreadable)]
        if len(errors) == len(files):
            listed = "; ".join(f"{error.image}: {error.message}" for error in errors)
            raise ErrorResponse(422, Unreadable.code, listed)
        readable = [
            (f, d) for f, d in zip(files, decoded, strict=True) if isinstance(d, np.ndarray)
        ]
        images = np.stack([pixels for _, pixels in readable])
        try:
            logits = await asyncio.wrap_future(self._batcher.submit(images))
        except GraphError as error:
            raise ErrorResponse(500, "computation_failed", str(error)) from error
        rows = zip(readable, logits, strict=True)
        predictions = [
            rank(file.name, row, self.classifier.classes, top_k) for (file, _), row in rows
        ]
        return Answer(predictions, errors)

    def describe(self) -> dict[str, Any]:
        """Return what is served, in plain JSON values."""
        metadata = self.classifier.metadata
        return {
            "classes": len(self.classifier.classes),
            "backbone": metadata.backbone["name"],
            "artefact_sha256": self.classifier.artefact_sha256,
            "providers": list(self.classifier.providers),
        }

    def close(self) -> None:
        """Answer what waits and end the threads."""
        self._batcher.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _pixels(self, file: File) -> "npt.NDArray[np.uint8] | Unreadable":
        try:
            metadata, most = self.classifier.metadata, self.limits.max_pixels
            image = decode(file.content, max_pixels=most, white_level=metadata.white_level)
            return fit_to_input(image, metadata.preprocessing)
        except DataError as error:
            return Unreadable(file.name, str(error))

    def _compute(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.metrics.batches.observe(len(images))
        try:
            with self.metrics.computing.time():
                logits = self.classifier.logits(images)
        except BaseException:
            self._failed = True
            raise
        self._failed = False
        return logits
