import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fedprompt.backbone.class_encoder import PLAIN
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import Encoded
from fedprompt.backbone.prompts import TextPrompts
from fedprompt.errors import DataError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.density import information_density, tail
from fedprompt.prompts.methods import prompt_config
from fedprompt.prompts.prompted import PromptedClip
from fedprompt.prompts.template import Template
from fedprompt.prompts.words import Layout
from tests.conftest import CLASSES, tiny_clip
from tests.prompts import stir
from tests.unit.fedprompt.prompts.hosts import EXACT
from tests.unit.fedprompt.prompts.naive import placed_vectors

TEMPLATE = "a photo of a {}."


def make(clip: FrozenClip, speedups=None, rule: str = "product", **config) -> PromptedClip:
    return build_prompt(
        prompt_config(**config),
        clip,
        CLASSES,
        TEMPLATE,
        rule=rule,
        speedups=speedups,
    )


def trained(clip: FrozenClip, seed: int = 0, **config) -> PromptedClip:
    """Return a prompt away from its start."""
    prompt = make(clip, **config)
    stir(prompt, seed, spread=1.0)
    return prompt


@pytest.mark.parametrize("method", ["dip", "coop"])
def test_round_0_is_zero_shot_clip(clip: FrozenClip, method: str) -> None:
    """Bit for bit through the plain tower; through the fast one up to fp32 rounding."""
    zero_shot = Template(clip, CLASSES, TEMPLATE).class_vectors()
    with torch.no_grad():  # torch's attention has a faster path there, which the template took
        assert torch.equal(make(clip, PLAIN, method=method).class_vectors(), zero_shot)
    assert torch.equal(make(clip, method=method).fold().class_vectors, zero_shot)
    fast = make(clip, method=method).class_vectors().detach()
    torch.testing.assert_close(fast, zero_shot, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "shapes"),
    [
        ({}, {"ctx.A": (4, 1), "ctx.B": (1, 32)}),
        ({"rank": 3}, {"ctx.A": (4, 3), "ctx.B": (3, 32)}),
        ({"tokens": 2, "init": "random"}, {"ctx.A": (2, 1), "ctx.B": (1, 32)}),
        ({"method": "coop"}, {"ctx": (4, 32)}),
        ({"rule": "shared-basis", "rank": 2}, {"ctx.B": (2, 32)}),
    ],
)
def test_only_the_prompt_travels(clip: FrozenClip, config: dict, shapes: dict) -> None:
    prompt = make(clip, **config)
    arrays = prompt.arrays()
    assert {name: array.shape for name, array in arrays.items()} == shapes
    numbers = sum(array.size for array in arrays.values())
    assert numbers == sum(parameter.numel() for parameter in prompt.parameters())
    if prompt.describe()["form"] == "lowrank" and "ctx.A" in shapes:
        (length, rank), width = shapes["ctx.A"], 32
        assert numbers == length * rank + rank * width


def test_what_is_frozen_is_told_apart(clip: FrozenClip) -> None:
    start = clip.embed_words("a photo of a").numpy()
    assert list(make(clip).frozen_arrays()) == ["ctx.start"]
    assert np.array_equal(make(clip).frozen_arrays()["ctx.start"], start)
    assert sorted(make(clip, rule="shared-basis").frozen_arrays()) == ["ctx.A", "ctx.start"]
    assert not make(clip, method="coop").frozen_arrays()


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**20),
    rank=st.integers(1, 4),
    method=st.sampled_from(["dip", "coop"]),
    dropout=st.sampled_from([0.0, 0.5]),
)
def test_folding_is_exact(
    clip: FrozenClip, seed: int, rank: int, method: str, dropout: float
) -> None:
    prompt = trained(clip, seed, rank=rank, method=method, dropout=dropout)
    folded = prompt.fold().class_vectors
    torch.testing.assert_close(folded, prompt.class_vectors().detach(), rtol=1e-4, atol=1e-6)
    assert not folded.requires_grad
    torch.testing.assert_close(folded.norm(dim=-1), torch.ones(len(CLASSES)))
    arrays = prompt.arrays() | prompt.frozen_arrays()
    context = arrays["ctx"] if method == "coop" else None
    if context is None:
        context = arrays["ctx.start"] + arrays["ctx.A"] @ arrays["ctx.B"]
    tokens = clip.tokenizer([f"X X X X {name}." for name in CLASSES])
    plain = clip.encode_text(tokens, TextPrompts(tokens=torch.tensor(context)[None]))
    torch.testing.assert_close(folded, F.normalize(plain, dim=-1), rtol=1e-4, atol=1e-6)


def test_what_travels_is_all_that_changes(clip: FrozenClip) -> None:
    sent = trained(clip, 1)
    received = make(clip)
    received.load_arrays(sent.arrays())
    assert torch.equal(received.class_vectors(), sent.class_vectors())


def test_dropout_is_drawn_from_the_callers_generator(clip: FrozenClip) -> None:
    prompt = trained(clip, dropout=0.5)
    draw = lambda seed: prompt.class_vectors(torch.Generator().manual_seed(seed))  # noqa: E731
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert not torch.equal(draw(1), prompt.class_vectors())


LAYOUTS = [
    {"name_position": "middle"},
    {"name_position": "front"},
    {"tokens": 2},
    {"class_specific": True},
    {"class_specific": True, "tokens": 3, "name_position": "middle"},
    {"class_specific": True, "tokens": 2, "init": "random", "name_position": "front"},
]


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("config", LAYOUTS)
def test_logits_and_gradients_of_every_layout_equal_texts_put_together(
    config: dict, form: str
) -> None:
    """In float64, by the embeddings of context, name and words one after the other."""
    clip = tiny_clip().double()
    prompt = trained(clip, method="coop", form=form, rank=2, dropout=0.0, **config).double()
    own = dict(prompt.host.named_parameters()) | dict(prompt.host.named_buffers())
    matrix = own["ctx.matrix"] if form == "full" else own["ctx.start"] + own["ctx.A"] @ own["ctx.B"]
    words = {"words": "", 2: "of a", 3: "a"}[
        "words" if config.get("init") else config.get("tokens", "words")
    ]
    layout = Layout(
        config.get("tokens", 4),
        words,
        config.get("name_position", "end"),
        config.get("class_specific", False),
    )
    draws = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(8, 24, generator=draws, dtype=torch.float64), dim=-1)
    labels = torch.arange(8) % len(CLASSES)
    vectors = placed_vectors(clip, CLASSES, TEMPLATE, layout, matrix)
    expected = clip.logit_scale * features @ vectors.T
    parameters = list(prompt.parameters())
    wanted = torch.autograd.grad(F.cross_entropy(expected, labels), parameters)
    prompt.backward(Encoded(features), labels, None)
    found = prompt(Encoded(features)).logits
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)
    for parameter, gradient in zip(parameters, wanted, strict=True):
        assert gradient.norm() > 0
        assert (parameter.grad - gradient).norm() <= EXACT * gradient.norm()


@pytest.mark.parametrize(
    ("config", "shapes"),
    [
        ({"method": "coop"}, {"ctx": (6 * 4, 32)}),
        ({"method": "coop", "tokens": 2, "init": "random"}, {"ctx": (6 * 2, 32)}),
        ({"rank": 2}, {"ctx.A": (6 * 4, 2), "ctx.B": (2, 32)}),
    ],
)
def test_each_class_trains_and_sends_vectors_of_its_own(
    clip: FrozenClip, config: dict, shapes: dict
) -> None:
    prompt = make(clip, class_specific=True, **config)
    assert {name: array.shape for name, array in prompt.arrays().items()} == shapes
    assert prompt.describe()["class_specific"] is True


def test_a_class_is_moved_by_its_own_vectors_alone(clip: FrozenClip) -> None:
    prompt = make(clip, method="coop", class_specific=True)
    before, arrays = prompt.class_vectors(), prompt.arrays()
    signs = np.repeat([1, -1, 1, 1, 1, 1], 4)[:, None]  # of class 1 the other
    prompt.load_arrays(PromptState({"ctx": arrays["ctx"] * signs}))
    moved = (prompt.class_vectors() - before).abs().amax(1) > 1e-4
    assert moved.tolist() == [False, True, False, False, False, False]


@pytest.mark.parametrize("config", [{"tokens": 2}, {"class_specific": True}, {"tokens": 1}])
@pytest.mark.parametrize("method", ["dip", "coop"])
def test_round_0_is_zero_shot_clip_with_words_that_stay_and_for_each_class(
    clip: FrozenClip, config: dict, method: str
) -> None:
    zero_shot = Template(clip, CLASSES, TEMPLATE).class_vectors()
    assert torch.equal(make(clip, method=method, **config).fold().class_vectors, zero_shot)
    fast = make(clip, method=method, **config).class_vectors().detach()
    torch.testing.assert_close(fast, zero_shot, rtol=1e-5, atol=1e-6)


def step(prompt: PromptedClip, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the prompt matrix before and after one gradient step on the penalty."""
    before = prompt.host.ctx.fold()
    prompt.penalty().backward()
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter -= rate * parameter.grad
    return before, prompt.host.ctx.fold()


@pytest.mark.parametrize("method", ["dip", "coop"])
@pytest.mark.parametrize("k", [1, 2])
def test_do_raises_information_density(clip: FrozenClip, method: str, k: int) -> None:
    before, after = step(trained(clip, method=method, density_weight=1.0, density_k=k), 1e-2)
    assert information_density(after, k) > information_density(before, k) + 1e-6


@pytest.mark.parametrize("method", ["dip", "coop"])
@pytest.mark.parametrize("k", [1, 2])
def test_pp_lowers_late_singular_values(clip: FrozenClip, method: str, k: int) -> None:
    before, after = step(trained(clip, method=method, tail_weight=1.0, density_k=k), 1e-2)
    assert tail(after, k) < tail(before, k) - 1e-6


def test_the_penalty_is_the_stated_sum(clip: FrozenClip) -> None:
    prompt = trained(clip, density_weight=0.3, tail_weight=0.2, density_k=2)
    spectrum = np.linalg.svd(prompt.host.ctx.fold().numpy(), compute_uv=False)
    expected = -0.3 * spectrum[:2].sum() / spectrum.sum() + 0.2 * spectrum[2:].sum()
    assert prompt.penalty().item() == pytest.approx(expected, rel=1e-5)
    assert prompt.information_density() == pytest.approx(spectrum[:2].sum() / spectrum.sum())
    assert float(trained(clip).penalty()) == 0.0


def test_a_name_too_long_for_the_tower_is_refused(clip: FrozenClip) -> None:
    with pytest.raises(DataError, match=r"'very very .* 77 tokens"):
        build_prompt(prompt_config(), clip, ["cat", "very " * 80], TEMPLATE)


def test_it_describes_itself(clip: FrozenClip) -> None:
    assert make(clip, rank=2).describe() == {
        "method": "dip",
        "host": "coop",
        "form": "lowrank",
        "rank": 2,
        "tokens": 4,
    }
    assert make(clip, method="coop").describe() == {
        "method": "coop",
        "host": "coop",
        "form": "full",
        "rank": 0,
        "tokens": 4,
    }
