"""The general path: let torch export a tower that is not written by hand (timm, CoCa, ResNet).

Facts that shape this file (onnx.md): a batch of one as example freezes the batch in silence, so the
example has three images; the exporter writes source lines and local paths into the graph, so they
are taken out.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import Tensor, nn

from export.graph.builder import OPSET
from fedprompt.backbone.image_tower import ImageTower, encode_images
from fedprompt.backbone.prompts import ImagePrompts
from fedprompt.data.preprocess import Preprocessing
from fedprompt.errors import GraphError

FEATURES = "features"
_EXAMPLES = 3


class _FromBytes(nn.Module):
    """Put normalisation in front of an image tower, and prompts into it."""

    def __init__(
        self, visual: nn.Module, pre: Preprocessing, prompts: ImagePrompts | None = None
    ) -> None:
        super().__init__()
        self.visual, self.prompts = visual, prompts
        self.factor: Tensor
        self.offset: Tensor
        mean, std = (torch.tensor(v, dtype=torch.float64) for v in (pre.mean, pre.std))
        device = next(visual.parameters()).device
        self.register_buffer("factor", (1 / (255 * std)).float().view(1, 3, 1, 1).to(device))
        self.register_buffer("offset", (-mean / std).float().view(1, 3, 1, 1).to(device))

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).float() * self.factor + self.offset
        return encode_images(self.visual, pixels, self.prompts)


def trace_tower(
    visual: nn.Module, pre: Preprocessing, prompts: ImagePrompts | None = None
) -> onnx.ModelProto:
    """Return a graph from uint8 ``images`` [batch size size 3] to ``features`` [batch joint].

    Raises
    ------
    GraphError
        torch cannot export the tower, or leaves functions in the graph.
    BackboneError
        There are prompts, and the tower takes none.
    """
    if prompts is not None:
        ImageTower(visual)
    device = next(visual.parameters()).device
    example = torch.zeros(_EXAMPLES, pre.size, pre.size, 3, dtype=torch.uint8, device=device)
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _FromBytes(visual, pre, prompts).eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=[FEATURES],
                dynamic_shapes={"images": {0: batch}},
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises its own and torch's many types
        raise GraphError(
            f"torch could not export the image tower {type(visual).__name__}: "
            f"{str(error).strip().splitlines()[0][:200]}"
        ) from error
    if program is None:
        raise GraphError("torch.onnx.export returned no graph; expected one")
    return _plain(program.model_proto)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress and deprecation notes; errors still raise."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take out what the exporter says about this machine."""
    if model.functions:
        raise GraphError("the exported graph holds functions; expected plain operators")
    graph = model.graph
    noted = [model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output]
    for item in [*noted, *graph.initializer]:
        del item.metadata_props[:]
        item.doc_string = ""
    return model
