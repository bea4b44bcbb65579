"""Pack checkpoints into ``fedprompt/assets``, and expand assets into files for open_clip."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fedprompt.backbone.embedded import embedded_config, expanded_state_dict
from tools.embedded_clip.joint import JointSpace, cache_joint

ASSETS = Path(__file__).parents[2] / "fedprompt/assets"


def half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Round floating tensors to float16."""
    return {
        name: (t.half() if t.is_floating_point() else t).contiguous() for name, t in tensors.items()
    }


def write(tensors: dict[str, Tensor], name: str) -> None:
    """Write an asset in float16, readable by everyone: safetensors alone keeps it to its owner."""
    save_file(half(tensors), ASSETS / f"{name}.safetensors")
    (ASSETS / f"{name}.safetensors").chmod(0o644)


def eighths(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round rows ``(n, width)`` to int8 and give their scales ``(n,)``: row = int8 * scale."""
    scales = (rows.abs().amax(dim=1) / 127).half()
    return (rows / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scales


def pack_text(work: Path) -> None:
    """Write the text tower."""
    text = torch.load(work / "text.pt", weights_only=True)
    text["token_rows"], text["token_scales"] = eighths(text["token_rows"])
    write(text, "embedded-text")


def projection(joint: JointSpace) -> dict[str, Tensor]:
    """Return the map from the trunk's features to the joint space, one bias a size."""
    name = "visual.head.proj"
    biases = {f"{name}.bias.{size}": -joint.axes @ c for size, c in joint.centres.items()}
    return {f"{name}.weight": joint.axes} | biases


def pack_cnn(work: Path, teacher: nn.Module) -> None:
    """Write the projection of the convolutional tower."""
    write(projection(cache_joint(work, teacher)), "embedded-cnn")


def pack_image(work: Path) -> None:
    """Write the image tower."""
    parts = torch.load(work / "image.pt", weights_only=True)["parts"]
    tower = {f"visual.{k[2:]}": v for k, v in parts.items() if k.startswith("0.")}
    write(tower, "embedded")


def expand(name: str, folder: Path) -> None:
    """Write ``open_clip_config.json`` and ``open_clip_model.safetensors``.

    open_clip reads the folder as ``local-dir:folder``, and the weights alone as ``pretrained``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(embedded_config(name), indent=4)
    (folder / "open_clip_config.json").write_text(config)
    state = {k: v.contiguous() for k, v in expanded_state_dict(name).items()}
    save_file(state, folder / "open_clip_model.safetensors")
