"""Hash a CLIP and its tokenizer, so that sites can tell whether they hold the same (F12)."""

from typing import Any

import numpy as np
from torch import Tensor, nn

from fedprompt.identity import canonical_json, sha256_arrays, sha256_bytes

# what changes a feature but lies in no tensor
_SETTINGS = ("image_size", "patch_size", "pool_type", "text_pool_type", "context_length", "heads")


def model_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of all weights, activations and sizes, whatever file they came from."""
    arrays = {name: tensor.float().cpu().numpy() for name, tensor in model.state_dict().items()}
    arrays["#structure"] = np.frombuffer(canonical_json(_structure(model)), np.uint8)
    return sha256_arrays(arrays)


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Return the SHA-256 of the vocabulary, the sequence length and what fixed sentences become."""
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    vocabulary = inner.get_vocab() if hasattr(inner, "get_vocab") else getattr(inner, "encoder", {})
    sentences = ["A photo of a Shih-Tzu.", "naïve  café &amp; 12.5 kg", "日本 🙂 x_y's"]
    return sha256_bytes(
        canonical_json(
            {
                "length": int(getattr(tokenizer, "context_length", 0)),
                "tokens": tokenizer(sentences).tolist(),
                "vocabulary": dict(vocabulary),
            }
        )
    )


def _structure(model: nn.Module) -> dict[str, list[str]]:
    """List layer types and settings in order, the same in every release of torch."""
    layers = [type(module).__name__ for module in model.modules()]
    settings = [
        f"{name}.{key}={getattr(module, key)}"
        for name, module in model.named_modules()
        for key in (*_SETTINGS, "num_heads", "eps")
        if isinstance(getattr(module, key, None), int | float | str | tuple)
    ]
    masked = [  # in no state dict; one that is given makes a tower causal
        name
        for name, module in model.named_modules()
        if isinstance(getattr(module, "attn_mask", None), Tensor)
    ]
    return {"layers": layers, "settings": settings, "masked": masked}


FIRST_EDITION = (  # of the embedded CLIP: `embedded` and `embedded-cnn`
    "37d461b0b4c7c67161ab523f20a1c32b2aab387a30b493f4a3ebb4d40e66d51d",
    "136afc349b1104d2c0663b7eb0d7e7a3e060926eee440b1c3215f8050e0e4362",
)


def superseded(fingerprint: str) -> str:
    """Say what to do about a hash whose weights fedprompt no longer has; "" for any other."""
    if fingerprint not in FIRST_EDITION:
        return ""
    return (
        f"{fingerprint[:16]}… is the first edition of the embedded CLIP, which this fedprompt has "
        "replaced by a better one; tune the prompt again, or use the version that tuned it"
    )
