"""Classify images into classes that may change where the classifier runs; no torch."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.runtime.classifier import Classifier, Prediction
from export.runtime.inputs import Source
from export.runtime.metadata import GraphMetadata
from export.runtime.open_vocabulary.bundle import CLASSIFIER, TEXT_ENCODER, TOKENIZER, Bundle
from export.runtime.open_vocabulary.text_encoder import TextEncoder
from fedprompt.data.classes import check_names, check_told_apart, listed, one_form, spoken
from fedprompt.data.decode import MAX_PIXELS
from fedprompt.errors import DataError, GraphError


class OpenClassifier:
    """A bundle that was written by ``fedprompt export --open-vocabulary``.

    The text tower is loaded when the first class is added: what only classifies does without.

    Parameters
    ----------
    folder
        Of the bundle.
    provider, allow_cpu, threads, cuda_graphs, max_pixels
        As `Classifier`; class names are encoded on the CPU.

    Raises
    ------
    GraphError
        The folder is no bundle, or a file of it was changed, is damaged or unsafe.
    ProviderError
        As `Classifier`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        provider: str | None = None,
        allow_cpu: bool = True,
        threads: int = 0,
        cuda_graphs: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._bundle, self._threads = Bundle(Path(folder)), threads
        self._texts: TextEncoder | None = None
        self._classifier = Classifier(
            self._bundle.read(CLASSIFIER),
            provider=provider,
            allow_cpu=allow_cpu,
            threads=threads,
            cuda_graphs=cuda_graphs,
            max_pixels=max_pixels,
        )
        self.metadata: GraphMetadata = self._classifier.metadata
        self.providers = self._classifier.providers
        self.refresh()

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names, in the order of the logits."""
        return self._classifier.classes

    @property
    def artefact_sha256(self) -> str:
        """Return the identity of the prompt that is served; a swap changes it."""
        return self._state.artefact_sha256

    def add_class(self, name: str) -> None:
        """Serve one more class, the last one.

        Raises
        ------
        DataError
            The name is there already, or the tokenizer cannot take it.
        """
        name = one_form(name)
        check_names([spoken(one) for one in (*self.classes, name)])
        check_told_apart((*self.classes, name))
        state = self._state
        vector = self._encoder.vectors([name], state.templates, state.context)
        vectors = np.concatenate([state.vectors, vector])
        self._serve((*self.classes, name), vectors)

    def remove_class(self, name: str) -> None:
        """Serve a class no longer.

        Raises
        ------
        DataError
            There is none of that name, or only one would be left.
        """
        name = one_form(name)
        if name not in self.classes:
            raise DataError(f"found no class {name!r}; there are {listed(self.classes)}")
        kept = [index for index, one in enumerate(self.classes) if one != name]
        names = tuple(self.classes[index] for index in kept)
        check_names(names)
        self._serve(names, self._state.vectors[kept])

    def save(self) -> int:
        """Keep the classes in the bundle, as a new version; return its number.

        Raises
        ------
        GraphError
            The bundle was changed by somebody else since it was read.
        StorageError
            The folder cannot be written.
        """
        bundle = self._reread()
        if bundle.manifest != self._bundle.manifest:
            raise GraphError(
                f"{bundle.folder} serves version {bundle.manifest.current}, these classes were "
                f"added to version {self._bundle.manifest.current}; refresh() and add them again"
            )
        return self._bundle.commit(self._state)

    def refresh(self) -> int:
        """Serve what the bundle's folder says now, after a swap; return the version's number.

        Classes that were added here and not saved are forgotten.

        Raises
        ------
        GraphError
            The bundle is damaged, or is another one.
        """
        bundle = self._reread()
        number = bundle.manifest.current
        state = bundle.state(number)
        self._classifier.serve(state.classes, state.vectors)
        self._bundle, self._state = bundle, state  # together: `save` compares by them
        return number

    def warm_up(self, batch_size: int = 16) -> None:
        """Pay what a first call costs: see `Classifier.warm_up`."""
        self._classifier.warm_up(batch_size)

    def predict(
        self, images: Sequence[Source], *, top_k: int = 5, batch_size: int = 16
    ) -> list[Prediction]:
        """Return one prediction an image: see `Classifier.predict`."""
        return self._classifier.predict(images, top_k=top_k, batch_size=batch_size)

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return logits [batch classes] of resized images: see `Classifier.logits`."""
        return self._classifier.logits(images)

    def _reread(self) -> Bundle:
        """Return what the folder says now; its graphs must be those that are loaded."""
        bundle, loaded = Bundle(self._bundle.folder), self._bundle.manifest.files
        for name in (CLASSIFIER, TEXT_ENCODER, TOKENIZER):
            if bundle.manifest.files.get(name) != loaded.get(name):
                raise GraphError(
                    f"{bundle.folder} holds another {name} than was loaded: it is another bundle; "
                    "open it anew"
                )
        return bundle

    @property
    def _encoder(self) -> TextEncoder:
        if self._texts is None:
            self._texts = TextEncoder.of(self._bundle, threads=self._threads)
        return self._texts

    def _serve(self, classes: tuple[str, ...], vectors: npt.NDArray[np.float32]) -> None:
        self._state = replace(self._state, classes=classes, vectors=vectors)
        self._classifier.serve(classes, vectors)
