"""Build the open_clip model of the embedded configuration and run its text tower quickly."""

import json
from collections.abc import Sequence
from importlib.resources import files

import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

TOKENIZER = SimpleTokenizer()


def build(name: str = "embedded") -> CLIP:
    """Build the untrained open_clip model of ``fedprompt/assets/{name}.json``."""
    config = json.loads((files("fedprompt") / f"assets/{name}.json").read_text())
    return CLIP(**config["model_cfg"])


def tokenize(texts: Sequence[str]) -> Tensor:
    """Tokenize texts and cut the padding off: ``(n, longest)``."""
    tokens = TOKENIZER(list(texts))
    return tokens[:, : int(tokens.argmax(dim=1).max()) + 1]


def text_hidden(model: CLIP, tokens: Tensor) -> Tensor:
    """Return the end token's final state ``(n, width)``; exact, since attention is causal."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    return model.ln_final(x[torch.arange(len(x)), tokens.argmax(dim=1)])


def text_vectors(model: CLIP, texts: Sequence[str]) -> Tensor:
    """Return the joint vectors ``(n, 256)`` of texts, not normalised."""
    return text_hidden(model, tokenize(texts)) @ model.text_projection


def text_model(state: dict[str, Tensor]) -> CLIP:
    """Build the model with the text tower of `solve.assemble`; its image tower is untrained."""
    model, state = build().eval().requires_grad_(False), dict(state)
    table = state.pop("token_neutral").repeat(len(model.token_embedding.weight), 1)
    table[state.pop("token_ids").long()] = state.pop("token_rows")
    state["token_embedding.weight"] = table
    unknown = model.load_state_dict(state, strict=False).unexpected_keys
    if unknown:
        raise KeyError(f"the text tower has no {', '.join(unknown)}")
    return model
