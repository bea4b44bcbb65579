"""Compare a graph with torch at export: on probes, on extreme images and on real ones.

The reference is what torch's plain towers answer. Every conversion step is measured, so that the
file can say what each cost and gained.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from export.fold.constants import Constants
from export.fold.types import Logits, Pictures
from export.parity.compare import (
    PROBES,
    Labels,
    Parity,
    compare,
    compare_probes,
    extreme_images,
    probe_images,
    require_finite,
)
from export.precision import Recipe
from export.runtime.providers import CPU, CUDA, onnx_runtime
from export.runtime.session import Session, start
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.prompts import ImagePrompts
from fedprompt.errors import GraphError, ProviderError
from fedprompt.types import Images

SEED = 0  # of the probes
_TORCH_BATCH = 32  # images at a time
_BATCHES = (1, 2, 5)  # then 16s: an exporter that froze the batch fails at one of them
_REPEATS = 9  # of a timed pair


@dataclass(frozen=True, kw_only=True)
class ConversionStep:
    """What one step from torch to a file cost and gained.

    Attributes
    ----------
    step
        The rewrite that was added.
    size
        Bytes of the file so far.
    nodes
        Operators.
    agreement, largest, loss
        Against torch: see `export.parity.compare.Parity`.
    speed
        CPU time of open_clip over the graph's, one image at a time in one thread each; None where
        torch or the graph ran elsewhere.
    """

    step: str
    size: int
    nodes: int
    agreement: float
    largest: float
    loss: float | None
    speed: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lost = "" if self.loss is None else f", accuracy {0 - 100 * self.loss:+.2f} points"
        fast = "" if self.speed is None else f", {self.speed:.2f} times as fast as open_clip here"
        return (
            f"{self.step}: {self.size / 1e6:.1f} MB, same first class on {self.agreement:.2%}"
            f"{lost}{fast}"
        )


class Measurement(NamedTuple):
    """A graph's parity on real images, if there are any, and on probes; and its step."""

    images: Parity | None
    probes: Parity
    step: ConversionStep


class ParityCheck:
    """Compare the steps of a conversion with torch's answers, which are computed once.

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
        self._clip, self._constants = clip, constants
        self._images, self._labels = images, labels
        size = clip.preprocessing.size
        self._compared = np.concatenate([probe_images(SEED, PROBES, size), images])
        self._extremes = extreme_images(size)
        self._reference = reference_logits(clip, constants, self._compared)

    @property
    def probes(self) -> Logits:
        """Return torch's logits of the probes."""
        return self._reference[:PROBES]

    def measure(self, model: onnx.ModelProto, recipe: Recipe) -> Measurement:
        """Compare a graph with torch.

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
        logits = run_graph(session, self._compared)
        require_finite(run_graph(session, self._extremes))
        probes = compare_probes(logits[:PROBES], self.probes, precision)
        images = None
        if len(self._images):
            images = compare(logits[PROBES:], self._reference[PROBES:], precision, self._labels)
        parity = (images or probes).to_dict()
        step = ConversionStep(
            step=str(recipe),
            size=model.ByteSize(),
            nodes=len(model.graph.node),
            agreement=parity["agreement"],
            largest=parity["largest"],
            loss=parity["loss"],
            speed=self._speed(model) if precision != "bf16" else None,
        )
        return Measurement(images, probes, step)

    def _speed(self, model: onnx.ModelProto) -> float | None:
        """Compare the CPU times of one thread each: other work on the machine hardly counts."""
        if self._clip.device != torch.device("cpu"):
            return None
        session = start(model.SerializeToString(), [CPU], threads=1)
        image = self._compared[:1]
        with _one_thread():
            return time_ratio(
                lambda: reference_logits(self._clip, self._constants, image),
                lambda: session.run(["logits"], {"images": image}),
                clock=time.process_time,
            )


def open_graph(model: onnx.ModelProto, precision: str = "fp32") -> Session:
    """Return a session that measures a graph: on the CPU, or for bf16 on CUDA.

    Raises
    ------
    ProviderError
        Nothing here has kernels for bf16.
    GraphError
        ONNX Runtime refuses the graph.
    """
    data = model.SerializeToString()
    if precision != "bf16":
        return start(data, [CPU])
    if CUDA in onnx_runtime().get_available_providers():
        session = start(data, [CUDA, CPU])
        if CUDA in session.get_providers():
            return session
    raise ProviderError(
        "bf16 runs on CUDA only, which is not here, so the graph cannot be compared with torch; "
        "export on a machine with fedprompt[gpu] and its driver, or choose fp16"
    )


def run_graph(session: Session, images: Pictures) -> Logits:
    """Return logits of resized images, in batches of several sizes.

    Raises
    ------
    GraphError
        The graph fails at some batch size.
    """
    parts, begin, sizes = [], 0, iter(_BATCHES)
    try:
        while begin < len(images):
            end = begin + next(sizes, 16)
            parts += session.run(["logits"], {"images": images[begin:end]})
            begin = end
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        raise GraphError(f"the graph fails on some batch size: {error}") from None
    return np.concatenate(parts)


def time_ratio(
    reference: Callable[[], object],
    changed: Callable[[], object],
    *,
    repeats: int = _REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return how many times faster ``changed`` is: both in turn, the ratio of the medians."""
    times: tuple[list[float], list[float]] = ([], [])
    reference()  # what is only done once
    changed()
    for _ in range(repeats):
        for run, seconds in zip((reference, changed), times, strict=True):
            begin = clock()
            run()
            seconds.append(clock() - begin)
    return statistics.median(times[0]) / max(statistics.median(times[1]), 1e-9)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reference_logits(clip: FrozenClip, constants: Constants, images: Pictures) -> Logits:
    """Return torch's logits [images classes] of resized images: uint8 [images size size 3]."""
    prompts = constants.prompts(clip.device)
    adapter = None if constants.adapter is None else constants.adapter.on(clip.device)
    bias = 0 if constants.bias is None else torch.from_numpy(constants.bias).to(clip.device)
    batches = []
    with torch.inference_mode():
        for begin in range(0, len(images), _TORCH_BATCH):
            pixels = clip.normalise(torch.from_numpy(images[begin : begin + _TORCH_BATCH]))
            features, classes = _encode(clip, constants, pixels, prompts)
            features = features if adapter is None else adapter(features)
            cosines = (features.unsqueeze(1) @ classes.mT).squeeze(1)
            logits = cosines * clip.logit_scale + clip.logit_bias + bias
            batches.append(logits.cpu().numpy())
    return np.concatenate(batches)


def _encode(
    clip: FrozenClip, constants: Constants, images: Images, prompts: ImagePrompts | None
) -> tuple[Tensor, Tensor]:
    """Return unit features [batch joint], and class vectors [1 or batch, classes joint]."""
    if constants.mixture is None or prompts is None:
        features = F.normalize(clip.encode_image(images, prompts).float(), dim=-1)
        return features, torch.from_numpy(constants.class_vectors).to(clip.device).unsqueeze(0)
    entering: list[Tensor] = []
    last = clip.image.blocks[-1]
    hook = last.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    try:
        features = F.normalize(clip.encode_image(images, prompts).float(), dim=-1)
    finally:
        hook.remove()
    weights = _domain_weights(last, entering[0], len(constants.mixture))
    mixture = torch.from_numpy(constants.mixture).to(clip.device)
    mixed = torch.einsum("bd,dcj->bcj", weights, mixture)
    return features, F.normalize(mixed, dim=-1)


def _domain_weights(block: Any, rows: Tensor, domains: int) -> Tensor:
    """Return the mean over heads of softmax_i(q . k_i / sqrt(head width)): [batch domains].

    ``q`` is of the class token, ``k_i`` of the ``domains`` last rows.
    """
    heads, width = block.attn.num_heads, rows.shape[-1]
    normed = block.ln_1(rows)
    projected = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias)
    query, key, _ = projected.unflatten(-1, (3, heads, width // heads)).unbind(2)
    scores = torch.einsum("bhe,bdhe->bhd", query[:, 0], key[:, -domains:])
    weights: Tensor = (scores * (width // heads) ** -0.5).softmax(-1).mean(1)
    return weights
