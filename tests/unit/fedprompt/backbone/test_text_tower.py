import open_clip
import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.prompts import TextPrompts
from fedprompt.backbone.text_tower import TextTower
from fedprompt.errors import BackboneError, PromptError
from tests.conftest import CLASSES, tiny_clip
from tests.prompts import placeholder_texts


def coop_forward(model: torch.nn.Module, names: list[str], context: torch.Tensor) -> torch.Tensor:
    """CoOp's published forward (TextEncoder and PromptLearner), in its own order of operations."""
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    prompts = tokenizer([" ".join(["X"] * len(context)) + " " + name + "." for name in names])
    embedding = model.token_embedding(prompts)
    prefix, suffix = embedding[:, :1], embedding[:, 1 + len(context) :]
    x = torch.cat([prefix, context.unsqueeze(0).expand(len(names), -1, -1), suffix], dim=1)
    x = model.transformer(x + model.positional_embedding, attn_mask=model.attn_mask)
    x = model.ln_final(x)
    return x[torch.arange(len(names)), prompts.argmax(dim=-1)] @ model.text_projection


def test_without_prompts_it_is_open_clip_bit_for_bit(clip: FrozenClip) -> None:
    tokens = clip.tokenize([f"a photo of a {name}." for name in CLASSES])
    expected = clip.model.encode_text(tokens)
    assert torch.equal(clip.encode_text(tokens), expected)
    assert torch.equal(clip.text.encode(tokens), expected)


def test_with_a_context_it_is_coops_published_forward(clip: FrozenClip) -> None:
    context = torch.randn(5, 32)
    tokens = clip.tokenize(placeholder_texts(CLASSES, "a photo of a {}.", 5))
    found = clip.encode_text(tokens, TextPrompts(tokens=context[None]))
    assert torch.equal(found, coop_forward(clip.model, list(CLASSES), context))


def test_the_embeddings_of_words_as_context_are_the_words(clip: FrozenClip) -> None:
    tokens = clip.tokenize(placeholder_texts(CLASSES, "{}.", 4))
    found = clip.encode_text(tokens, TextPrompts(tokens=clip.embed_words("a photo of a")[None]))
    plain = clip.tokenize([f"a photo of a {name}." for name in CLASSES])
    assert torch.equal(found, clip.model.encode_text(plain))


@pytest.mark.parametrize("layers", [2, 3])
def test_deep_prompts_overwrite_what_enters_their_block(clip: FrozenClip, layers: int) -> None:
    """MaPLe's forward: hooks put each further matrix behind the start token."""
    prompts = torch.randn(layers, 5, 32)
    tokens = clip.tokenize(placeholder_texts(CLASSES, "{}.", 5))

    def overwrite(index):
        def hook(module, inputs):
            rows = inputs[0].clone()
            rows[:, 1:6] = prompts[index]
            return (rows, *inputs[1:])

        return hook

    blocks = clip.model.transformer.resblocks
    hooks = [blocks[i].register_forward_pre_hook(overwrite(i)) for i in range(1, layers)]
    expected = coop_forward(clip.model, list(CLASSES), prompts[0])
    for hook in hooks:
        hook.remove()
    found = clip.encode_text(tokens, TextPrompts(tokens=prompts))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    first = clip.encode_text(tokens, TextPrompts(tokens=prompts[:1]))
    assert not torch.allclose(found, first, atol=1e-2)


def test_cutting_behind_the_longest_end_changes_nothing(clip: FrozenClip) -> None:
    tokens = clip.tokenize(list(CLASSES))
    torch.testing.assert_close(
        clip.text.encode(tokens, cut=True), clip.encode_text(tokens), rtol=1e-5, atol=1e-5
    )


def test_towers_of_another_design_agree_with_open_clip() -> None:
    """No causal mask, last token read, projection with bias: SigLIP's text tower."""
    clip = tiny_clip(no_causal_mask=True, pool_type="last", proj_bias=True, context_length=16)
    custom = open_clip.CustomTextCLIP(
        24,
        {"image_size": 32, "patch_size": 8, "width": 48, "head_width": 12, "layers": 1},
        {"width": 32, "heads": 4, "layers": 2, "pool_type": "eos", "eos_id": 49407},
    ).eval()
    for model, length in ((clip.model, 16), (custom, 77)):
        tokens = open_clip.get_tokenizer("ViT-B-32")(list(CLASSES), context_length=length)
        tower = TextTower(model)
        assert torch.equal(tower.encode(tokens), model.encode_text(tokens))
        torch.testing.assert_close(
            tower.encode(tokens, cut=True), model.encode_text(tokens), rtol=1e-5, atol=1e-5
        )


def test_a_context_that_leaves_no_room_is_refused(clip: FrozenClip) -> None:
    tokens = clip.tokenize(["tench"])
    with pytest.raises(PromptError, match="leaves no room"):
        clip.encode_text(tokens, TextPrompts(tokens=torch.zeros(1, 76, 32)))


def test_a_tower_without_token_embeddings_is_refused() -> None:
    model = torch.nn.Module()
    model.text = torch.nn.Linear(2, 2)
    with pytest.raises(BackboneError, match="Linear takes no prompt tokens"):
        TextTower(model)
