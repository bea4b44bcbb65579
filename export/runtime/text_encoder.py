"""Class names to class vectors at the edge: tokenizer, ``text_encoder.onnx``, no torch."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from export.runtime.bundle import TEXT_ENCODER, TOKENIZER, Bundle, Vectors
from export.runtime.providers import CPU
from export.runtime.session import start
from export.runtime.tokenizer import Tokenizer
from fedprompt.errors import DataError, GraphError
from fedprompt.prompts.words import class_text

_AT_ONCE = 64  # classes; each is a pass of the text tower


class TextEncoder:
    """Encode class names, on the CPU: once a class, not at every image.

    Parameters
    ----------
    tokenizer, graph
        Bytes of the bundle's files.
    threads
        0 leaves the choice to ONNX Runtime.

    Raises
    ------
    GraphError
        A file is damaged.
    FedpromptError
        The tokenizer's packages are not installed.
    """

    def __init__(self, tokenizer: bytes, graph: bytes, *, threads: int = 0) -> None:
        self._tokenizer = Tokenizer.parse(tokenizer)
        self._session = start(graph, [CPU], threads)

    @classmethod
    def of(cls, bundle: Bundle, *, threads: int = 0) -> "TextEncoder":
        """Return the text encoder of a bundle; GraphError where a file was changed."""
        return cls(bundle.read(TOKENIZER), bundle.read(TEXT_ENCODER), threads=threads)

    def vectors(
        self, names: Sequence[str], templates: Sequence[str], context: Vectors | None
    ) -> Vectors:
        """Return float32 [names joint], each of length one.

        Parameters
        ----------
        names
            Class names.
        templates
            Texts with ``{}``; of several the mean of their unit vectors, made of length one.
        context
            The text prompt, or None.

        Raises
        ------
        DataError
            The tokenizer cannot take a name, or its text is too long.
        """
        for name in names:
            self._check(name, templates)
        found = [self._unit([class_text(t, name) for name in names], context) for t in templates]
        if len(found) == 1:
            return found[0]
        mean = np.mean(found, axis=0)
        unit: Vectors = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return unit

    def context_shape(self) -> tuple[int, ...] | None:
        """Return the shape of the prompt that the graph takes; None = it takes none."""
        given = {node.name: node.shape for node in self._session.get_overridable_initializers()}
        return tuple(given["context"]) if "context" in given else None

    def _check(self, name: str, templates: Sequence[str]) -> None:
        """Refuse what open_clip would read as nothing, cut in silence, or end early."""
        ids = self._tokenizer.encode(name.replace("_", " "))
        if not ids or not name.isprintable():
            raise DataError(
                f"the class name {name[:60]!r} has nothing that the tokenizer reads, or characters "
                "that cannot be printed; give a name in words"
            )
        if set(ids) & set(self._tokenizer.special.values()):
            raise DataError(f"the class name {name[:60]!r} holds a special token; leave it out")
        longest = max(len(self._tokenizer.encode(class_text(t, name))) for t in templates) + 2
        if longest > (most := self._tokenizer.context_length):
            raise DataError(
                f"the class name {name[:60]!r} makes a text of {longest} tokens; the text tower "
                f"reads {most}: shorten it"
            )

    def _unit(self, texts: Sequence[str], context: Vectors | None) -> Vectors:
        ids = self._tokenizer(texts)
        parts = [ids[begin : begin + _AT_ONCE] for begin in range(0, len(ids), _AT_ONCE)]
        return np.concatenate([self._run(part, context) for part in parts])

    def _run(self, ids: npt.NDArray[np.int64], context: Vectors | None) -> Vectors:
        """Run the graph up to the longest end: what stands behind is never read."""
        length = int((ids == self._tokenizer.end).argmax(1).max()) + 1
        feeds = {"tokens": ids[:, :length]} | ({} if context is None else {"context": context})
        try:
            vectors: Vectors = self._session.run(["class_vectors"], feeds)[0]
        except GraphError:
            raise
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types
            raise GraphError(f"ONNX Runtime failed: {' '.join(str(error).split())[:300]}") from None
        return vectors
