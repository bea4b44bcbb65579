"""Images that anyone can make again from a seed, so that a file carries its own test.

Each probe is a grid of coloured cells, from 2 x 2 to 32 x 32. The colours are bytes of SHAKE-256:
the same on every machine, in every language, in every release of numpy.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedprompt.errors import GraphError

COUNT = 8
_CELLS = (2, 4, 8, 16, 32)  # along one side
_MOST = 64  # probes a file may ask for, each an image of the graph's size


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Hold what torch answers to the probes of one seed.

    Attributes
    ----------
    seed
        Which probes.
    logits
        float32 [probes classes], from torch.
    """

    seed: int
    logits: npt.NDArray[np.float32]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, inverse of `from_dict`."""
        data = np.ascontiguousarray(self.logits, "<f4").tobytes()
        return {
            "seed": self.seed,
            "shape": list(self.logits.shape),
            "logits": base64.b64encode(data).decode(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Probes":
        """Read what `to_dict` wrote.

        Raises
        ------
        GraphError
            The values are damaged.
        """
        try:
            seed, (count, classes) = int(values["seed"]), values["shape"]
            flat = np.frombuffer(base64.b64decode(values["logits"], validate=True), "<f4")
            logits = flat.reshape(int(count), int(classes)).astype(np.float32)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise GraphError(f"the stored probes are damaged: {error}; export again") from None
        if not 1 <= len(logits) <= _MOST or not np.isfinite(logits).all():
            raise GraphError("the stored probes hold no finite answers; export again")
        return cls(seed=seed, logits=logits)


def probe_images(seed: int, count: int, size: int) -> npt.NDArray[np.uint8]:
    """Return the probes of a seed: uint8 [count size size 3]."""
    return np.stack([_probe(seed, index, size) for index in range(count)])


def extreme_images(size: int) -> npt.NDArray[np.uint8]:
    """Return black, white and noise, uint8 [3 size size 3]: where short numbers would overflow."""
    drawn = hashlib.shake_256(b"fedprompt noise").digest(size * size * 3)
    noise = np.frombuffer(drawn, np.uint8).reshape(size, size, 3)
    return np.stack([np.zeros_like(noise), np.full_like(noise, 255), noise])


def _probe(seed: int, index: int, size: int) -> npt.NDArray[np.uint8]:
    cells = _CELLS[index % len(_CELLS)]
    drawn = hashlib.shake_256(f"fedprompt probe {seed} {index}".encode()).digest(cells * cells * 3)
    colours = np.frombuffer(drawn, np.uint8).reshape(cells, cells, 3)
    place = np.arange(size) * cells // size
    return colours[place][:, place]
