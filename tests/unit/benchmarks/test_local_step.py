import torch
from torch import nn

from benchmarks.local_step import KINDS, LENGTH, Bench, in_turn, names
from fedprompt.prompts.class_texts import placed_tokens
from fedprompt.prompts.words import Layout
from tests.conftest import tiny_clip


def test_class_names_are_real_and_distinct() -> None:
    assert len(set(names(100))) == 100
    assert names(100)[1] == "aquarium fish"
    assert len(names(1000)) == 1000
    assert "tench" in names(1000)


def tiny_bench() -> Bench:
    """Return the benchmark's bench on the tests' tiny CLIP."""
    bench = Bench.__new__(Bench)
    bench.clip = tiny_clip()
    bench.tokens, _ = placed_tokens(bench.clip, names(10), "{}.", Layout(LENGTH))
    bench.images, bench.labels = torch.randn(4, 3, 32, 32), torch.randint(10, (4,))
    bench.context = nn.Parameter(0.3 * torch.randn(1, LENGTH, 32))
    bench.features = bench.clip.encode_image(bench.images)
    return bench


def test_every_stage_computes_the_same_gradient() -> None:
    bench = tiny_bench()
    expected = bench.step(bench.encoder(KINDS["plain"]), images=True)
    for encoder in (bench.encoder(KINDS["all"]), bench.packed_encoder()):
        torch.testing.assert_close(bench.step(encoder), expected, rtol=1e-3, atol=1e-5)


def test_steps_are_run_in_turn() -> None:
    order: list[str] = []
    steps = {name: lambda name=name: order.append(name) for name in "ab"}
    assert set(in_turn(steps, {"a": 3, "b": 1})) == {"a", "b"}
    assert order == ["a", "b", "a", "a"]
