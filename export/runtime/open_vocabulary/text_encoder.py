"""Class names to class vectors at the edge: tokenizer, ``text_encoder.onnx``, no torch."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from export.runtime.open_vocabulary.bundle import TEXT_ENCODER, TOKENIZER, Bundle, Vectors
from export.runtime.open_vocabulary.tokenizer import Tokenizer
from export.runtime.providers import CPU
from export.runtime.session import start
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
        by_template = [self._unit(names, template, context) for template in templates]
        if len(by_template) == 1:
            return by_template[0]
        mean = np.mean(by_template, axis=0)
        unit: Vectors = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return unit

    def context_shape(self) -> tuple[int, ...] | None:
        """Return the shape of the prompt that the graph takes; None = it takes none."""
        given = {node.name: node.shape for node in self._session.get_overridable_initializers()}
        return tuple(given["context"]) if "context" in given else None

    @property
    def is_placed(self) -> bool:
        """Whether the graph's prompt stands elsewhere than in front of the name."""
        return any(node.name == "places" for node in self._session.get_inputs())

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

    def _unit(self, names: Sequence[str], template: str, context: Vectors | None) -> Vectors:
        parts = [names[begin : begin + _AT_ONCE] for begin in range(0, len(names), _AT_ONCE)]
        return np.concatenate([self._run(part, template, context) for part in parts])

    def _run(self, names: Sequence[str], template: str, context: Vectors | None) -> Vectors:
        """Run the graph up to the longest end: what stands behind is never read."""
        ids = self._tokenizer([class_text(template, name) for name in names])
        length = int((ids == self._tokenizer.end).argmax(1).max()) + 1
        feeds = {"tokens": ids[:, :length]} | ({} if context is None else {"context": context})
        if self.is_placed:
            feeds["places"] = self._places(names, template)[:, :length]
        try:
            vectors: Vectors = self._session.run(["class_vectors"], feeds)[0]
        except GraphError:
            raise
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types
            raise GraphError(f"ONNX Runtime failed: {' '.join(str(error).split())[:300]}") from None
        return vectors

    def _places(self, names: Sequence[str], template: str) -> npt.NDArray[np.int64]:
        """Return which row of the prompt stands where [names context_length]; n = a word does.

        Of the template's n times X some stand in front of the name, the others right behind it.
        """
        [_, count, _] = self.context_shape() or (0, 0, 0)
        head = template.partition("{}")[0]
        leading = min(count, len(head.split()))
        places = np.full((len(names), self._tokenizer.context_length), count, np.int64)
        places[:, 1 : 1 + leading] = np.arange(leading)
        for row, name in zip(places, names, strict=True):
            begin = 1 + len(self._tokenizer.encode(class_text(head + "{}", name)))
            row[begin : begin + count - leading] = np.arange(leading, count)
        return places
