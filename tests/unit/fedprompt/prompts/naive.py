"""Small re-implementations of prompted towers, on open_clip's modules and hooks alone."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.prompts.words import Layout


def image_features(clip: FrozenClip, images: Tensor, prompts: Sequence[Tensor], first: int = 0):
    """Return unit features of images whose towers get prompts behind the patches, by hooks."""
    visual = clip.model.visual
    own, blocks = visual.positional_embedding.shape[0], visual.transformer.resblocks

    def append(module, inputs):
        rows = inputs[0][:, :own]
        return (torch.cat([rows, prompts[0].expand(len(rows), -1, -1)], 1), *inputs[1:])

    def overwrite(matrix):
        def hook(module, inputs):
            rows = inputs[0][:, :own]
            return (torch.cat([rows, matrix.expand(len(rows), -1, -1)], 1), *inputs[1:])

        return hook

    entrance = visual.ln_pre if first == 0 else blocks[first]
    hooks = [entrance.register_forward_pre_hook(append)]
    hooks += [
        blocks[first + i].register_forward_pre_hook(overwrite(prompts[i]))
        for i in range(1, len(prompts))
    ]
    features = visual(images)
    for hook in hooks:
        hook.remove()
    return F.normalize(features, dim=-1)


def class_vectors(clip: FrozenClip, names: Sequence[str], rest: str, prompts: Sequence[Tensor]):
    """Return unit vectors of "[prompt] NAME REST", deep prompts put in place by hooks."""
    model, length = clip.model, len(prompts[0])
    ids = clip.tokenizer([" ".join(["X"] * length) + f" {name}{rest}" for name in names])
    rows = model.token_embedding(ids)
    context = prompts[0].expand(len(ids), -1, -1)
    rows = torch.cat([rows[:, :1], context, rows[:, 1 + length :]], 1)

    def overwrite(matrix):
        def hook(module, inputs):
            inside = inputs[0]
            shared = matrix.expand(len(inside), -1, -1)
            changed = torch.cat([inside[:, :1], shared, inside[:, 1 + length :]], 1)
            return (changed, *inputs[1:])

        return hook

    blocks = model.transformer.resblocks
    hooks = [
        blocks[i].register_forward_pre_hook(overwrite(prompts[i])) for i in range(1, len(prompts))
    ]
    rows = model.transformer(rows + model.positional_embedding, attn_mask=model.attn_mask)
    for hook in hooks:
        hook.remove()
    last = model.ln_final(rows)[torch.arange(len(ids)), ids.argmax(-1)]
    return F.normalize(last @ model.text_projection, dim=-1)


def placed_vectors(
    clip: FrozenClip, names: Sequence[str], template: str, layout: Layout, prompt: Tensor
):
    """Return unit vectors of class texts that are put together of pieces, as CoOp's code does.

    A piece is the embeddings of some words, or rows of ``prompt`` [length width], of each class its
    own where the layout says so.
    """
    model, rows = clip.model, []
    rest = template.partition("{}")[2]
    end = int(clip.tokenizer([""])[0].max())

    def embed(words: str) -> Tensor:
        ids = clip.tokenizer([words])[0]
        return model.token_embedding(ids[1 : ids.argmax()])

    ends = []
    for c, name in enumerate(names):
        own = prompt[c * layout.length :] if layout.class_specific else prompt
        own = own[: layout.length]
        name_rows, words = embed(name.replace("_", " ")), embed(layout.frozen_words)
        half = layout.length // 2
        middle = {
            "end": [own, words, name_rows],
            "middle": [own[:half], name_rows, own[half:], words],
            "front": [name_rows, own, words],
        }[layout.name_position]
        text = torch.cat([*middle, embed(rest)])
        first, last = (model.token_embedding(torch.tensor([i])) for i in (end - 1, end))
        ends.append(1 + len(text))
        padding = model.token_embedding(torch.zeros(75 - len(text), dtype=torch.long))
        rows.append(torch.cat([first, text, last, padding]))
    mask = model.attn_mask
    hidden = model.transformer(torch.stack(rows) + model.positional_embedding, attn_mask=mask)
    hidden = model.ln_final(hidden)
    kind = model.text_pool_type
    pooled = hidden[:, -1] if kind == "last" else hidden[torch.arange(len(names)), ends]
    return F.normalize(pooled @ model.text_projection, dim=-1)
