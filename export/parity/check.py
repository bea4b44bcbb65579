"""Put a graph beside torch: on probes, on extreme images and on real ones."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import torch

from export.fold.constants import Constants
from export.fold.types import Answers, Pictures
from export.parity.compare import Labels, Parity, compare, compare_probes
from export.parity.conversion_report import Rung, speed
from export.parity.probes import COUNT, extreme_images, probe_images
from export.parity.reference import reference_logits
from export.parity.run_graph import answers, open_graph
from export.parity.verify import require_finite
from export.runtime.providers import CPU
from export.runtime.session import start
from export.targets import Recipe
from fedprompt.backbone.clip import FrozenClip

SEED = 0  # of the probes


class Trial:
    """Hold torch's answers, which every step of an export is compared with.

    Parameters
    ----------
    clip, constants
        What is exported.
    images
        Real ones, uint8 [images size size 3]; may be none.
    labels
        Their classes' numbers, int64 [images], if they are known.
    """

    def __init__(
        self, clip: FrozenClip, constants: Constants, images: Pictures, labels: Labels | None
    ) -> None:
        self._clip, self._constants, self._labels = clip, constants, labels
        self._images, size = images, clip.preprocessing.size
        self._pictures = np.concatenate([probe_images(SEED, COUNT, size), images])
        self._extremes = extreme_images(size)
        self._expected = reference_logits(clip, constants, self._pictures)

    @property
    def probes(self) -> Answers:
        """Return torch's answers to the probes."""
        return self._expected[:COUNT]

    def measure(self, model: onnx.ModelProto, recipe: Recipe) -> tuple[Parity | None, Parity, Rung]:
        """Return a graph's parity on real images, if any, on the probes, and its rung.

        Raises
        ------
        ParityError
            It has no answer to an extreme image.
        GraphError
            It fails.
        ProviderError
            Nothing here runs its precision.
        """
        session, precision = open_graph(model, recipe.precision), recipe.precision
        found = answers(session, self._pictures)
        require_finite(answers(session, self._extremes))
        probes = compare_probes(found[:COUNT], self.probes, precision)
        parity = None
        if len(self._images):
            parity = compare(found[COUNT:], self._expected[COUNT:], precision, self._labels)
        rung = Rung.of(
            f"{recipe.rewrite}, {recipe.flavour} operators",
            parity or probes,
            size=model.ByteSize(),
            nodes=len(model.graph.node),
            speed=self._speed(model) if precision != "bf16" else None,
        )
        return parity, probes, rung

    def _speed(self, model: onnx.ModelProto) -> float | None:
        """Compare one thread of each by its CPU time: what else a machine does hardly counts."""
        if self._clip.device != torch.device("cpu"):
            return None
        session = start(model.SerializeToString(), [CPU], threads=1)
        one = self._pictures[:1]
        with _one_thread():
            return speed(
                lambda: reference_logits(self._clip, self._constants, one),
                lambda: session.run(["logits"], {"images": one}),
                clock=time.process_time,
            )


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
