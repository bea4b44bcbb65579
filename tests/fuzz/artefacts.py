"""Prompt artefacts: the configuration, a blank line, then the tensors.

A file that fails its hash tells nothing of what lies behind it, so an odd first byte asks the
harness to write the hashes that fit: then every later check is reached.
"""

import copy
import functools
import json
from typing import Any

import numpy as np
import torch

from fedprompt import tensor_file
from fedprompt.artefact import CONFIG, WEIGHTS, Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.prompts.artefacts import from_artefact, to_artefact
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import prompt_config
from tests.fuzz.scratch import folder

CAP = 1 << 16
_BETWEEN = b"\n\n"
_CLASSES = ("cat", "dog")


def feed(data: bytes) -> None:
    """Load an artefact folder, and its tensors alone."""
    artefact = _load(data, {})
    canonical_json({"sha256": artefact.sha256})


def feed_prompt(data: bytes) -> None:
    """Build the prompt of an artefact that names the right CLIP."""
    clip = tiny()
    right = {"tokenizer_sha256": clip.tokenizer_fingerprint}
    artefact = _load(data, right, {"sha256": clip.fingerprint})
    vectors = from_artefact(artefact, clip).fold().class_vectors
    if vectors.shape != (len(artefact.metadata["classes"]), 8):
        raise AssertionError(f"class vectors of shape {vectors.shape}")


def seeds() -> list[bytes]:
    """Return honest artefacts of each method, with their hashes and with ones to be made."""
    found = []
    for method in ("dip", "coop", "template"):
        start = {} if method == "template" else {"tokens": 2, "init": "random"}
        config = prompt_config(method=method, **start)
        prompt = build_prompt(config, tiny(), _CLASSES, "a {}.")
        artefact = to_artefact(tiny(), prompt, _CLASSES, "a {}.", round=1, seed=0)
        weights = tensor_file.dump(artefact.tensors)
        text = canonical_json(artefact._sealed(weights))
        found += [mode + text + _BETWEEN + weights for mode in (b"\0", b"\1")]
    return found


def tensors() -> list[bytes]:
    """Return honest safetensors bytes."""
    values = np.linspace(-1, 1, 8, dtype=np.float32)
    return [
        tensor_file.dump({"ctx.A": values.reshape(2, 4), "ctx.B": values.reshape(4, 2)}),
        tensor_file.dump({"a": values.astype(np.float16), "b": np.arange(3), "c": np.zeros(())}),
    ]


def feed_tensors(data: bytes) -> None:
    """Parse safetensors bytes, raw or with the header's length set right (odd first byte)."""
    if data[:1] and data[0] % 2:
        header, _, values = data[1:].partition(_BETWEEN)
        data = len(header).to_bytes(8, "little") + header + values
    else:
        data = data[1:]
    tensor_file.parse(data)


def tensor_seeds() -> list[bytes]:
    """Return both forms that `feed_tensors` takes."""
    raw = [b"\0" + data for data in tensors()]
    for data in tensors():
        length = int.from_bytes(data[:8], "little")
        raw.append(b"\1" + data[8 : 8 + length].rstrip() + _BETWEEN + data[8 + length :])
    return raw


@functools.cache
def tiny() -> FrozenClip:
    """Return a random CLIP of one narrow layer a tower."""
    import open_clip

    from fedprompt.data.preprocess import Preprocessing

    torch.manual_seed(0)
    torch.set_num_threads(1)
    vision = {"image_size": 8, "patch_size": 8, "width": 8, "head_width": 8, "layers": 1}
    text = {"context_length": 16, "width": 8, "heads": 1, "layers": 1}
    model = open_clip.CLIP(8, vision, text).eval()
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    return FrozenClip(model, tokenizer, Preprocessing(size=8), name="tiny")


def _load(data: bytes, right: dict[str, Any], backbone: dict[str, Any] | None = None) -> Artefact:
    text, _, weights = data[1:].partition(_BETWEEN)
    if data[:1] and data[0] % 2:
        text = _resealed(text, weights, right, backbone or {})
    place = folder("artefact")
    (place / CONFIG).write_bytes(text)
    (place / WEIGHTS).write_bytes(weights)
    return Artefact.load(place)


def _resealed(
    text: bytes, weights: bytes, right: dict[str, Any], backbone: dict[str, Any]
) -> bytes:
    """Return the configuration with hashes that fit; as it is where it cannot be read."""
    try:
        config = copy.deepcopy(json.loads(text))
        config |= right | {"weights_sha256": sha256_bytes(weights)}
        config["classes_sha256"] = sha256_bytes(canonical_json(config["classes"]))
        config["backbone"] |= backbone
        return json.dumps(config).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return text
