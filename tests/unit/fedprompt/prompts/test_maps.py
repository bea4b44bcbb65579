import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedprompt.prompts.forms import Full, LowRank, form_maker
from fedprompt.prompts.maps import LinearMap, TransformerMap


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def low_rank(rank: int = 2, dropout: float = 0.0):
    return form_maker("lowrank", rank, dropout)


def numbers(module: nn.Module) -> dict[str, np.ndarray]:
    """Return every tensor; matrices of both forms as their equation has them."""
    own = {n: t.detach().numpy() for n, t in module.named_parameters()}
    own |= {n: t.numpy() for n, t in module.named_buffers()}
    found = {n.removesuffix(".matrix"): a for n, a in own.items()}
    for name in [n.removesuffix(".B") for n in own if n.endswith(".B")]:
        found[name] = own[f"{name}.start"] + own[f"{name}.A"] @ own[f"{name}.B"]
    return found


def layer_norm(x, own, name):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * own[f"{name}.weight"] + own[f"{name}.bias"]


def linear(x, own, name):
    return x @ own[f"{name}.weight"].T + own[f"{name}.bias"]


def transformer(x, own, heads):
    """Return the mapped tokens of one layer [length width]: a second writing of the equation."""
    x = layer_norm(x, own, "entrance")
    width, read = x.shape[1], []
    parts = linear(layer_norm(x, own, "attention_norm"), own, "attention")
    query, key, value = parts[:, :width], parts[:, width : 2 * width], parts[:, 2 * width :]
    for columns in np.split(np.arange(width), heads):
        scores = query[:, columns] @ key[:, columns].T / math.sqrt(len(columns))
        weights = np.exp(scores)
        read.append(weights / weights.sum(1, keepdims=True) @ value[:, columns])
    x = x + linear(np.concatenate(read, 1), own, "attended")
    wide = linear(layer_norm(x, own, "mlp_norm"), own, "widen")
    bent = wide / (1 + np.exp(-1.702 * wide))
    x = x + linear(bent, own, "narrow")
    return linear(layer_norm(x, own, "exit"), own, "out")


def stirred(module: nn.Module) -> nn.Module:
    """Return a map in float64 away from its start, LayerNorms and B included."""
    draws = seeded(3)
    with torch.no_grad():
        for tensor in module.double().parameters():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=draws))
    return module


@pytest.mark.parametrize("form", [Full, low_rank()])
def test_a_linear_map_is_its_equation(form) -> None:
    module = stirred(LinearMap(8, 12, form, seeded()))
    x = torch.randn(3, 4, 8, generator=seeded(1), dtype=torch.float64)
    own = numbers(module)
    expected = x.numpy() @ own["weight"].T + own["bias"]
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", [Full, low_rank()])
@pytest.mark.parametrize(("inputs", "heads"), [(128, 2), (48, 1)])
def test_a_transformer_map_is_its_equation(form, inputs: int, heads: int) -> None:
    module = stirred(TransformerMap(inputs, 12, form, seeded()))
    assert module.heads == heads
    x = torch.randn(3, 4, inputs, generator=seeded(1), dtype=torch.float64)
    own = numbers(module)
    expected = [transformer(layer, own, heads) for layer in x.numpy()]
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("width", [128, 64])
def test_a_transformer_map_is_the_released_light_transformer(width: int) -> None:
    """Values and gradients, with torch's own attention, whose layout the code relies on."""
    module = stirred(TransformerMap(width, 12, Full, seeded()))
    own = dict(module.named_parameters())
    theirs = nn.MultiheadAttention(width, width // 64, batch_first=True).double()
    layers = torch.randn(3, 4, width, generator=seeded(1), dtype=torch.float64)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (width,), own[f"{name}.weight"], own[f"{name}.bias"])

    def through(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, own[f"{name}.weight.matrix"], own[f"{name}.bias"])

    x = norm(layers, "entrance")
    given = {
        "in_proj_weight": own["attention.weight.matrix"],
        "in_proj_bias": own["attention.bias"],
        "out_proj.weight": own["attended.weight.matrix"],
        "out_proj.bias": own["attended.bias"],
    }
    asked = (norm(x, "attention_norm"),) * 3
    x = x + torch.func.functional_call(theirs, given, asked, {"need_weights": False})[0]
    wide = through(norm(x, "mlp_norm"), "widen")
    x = x + through(wide * torch.sigmoid(1.702 * wide), "narrow")
    expected = through(norm(x, "exit"), "out")
    found = module(layers)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(found.shape, generator=seeded(2), dtype=torch.float64)
    wanted = torch.autograd.grad((expected * weights).sum(), [*own.values()])
    gradients = torch.autograd.grad((found * weights).sum(), [*own.values()])
    for one, other in zip(gradients, wanted, strict=True):
        assert other.norm() > 0
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_its_attention_starts_as_torchs_own_does() -> None:
    module = TransformerMap(256, 12, Full, seeded())
    theirs = nn.MultiheadAttention(256, 4)
    for mine, reference in (
        (module.attention.weight.fold(), theirs.in_proj_weight),
        (module.attended.weight.fold(), theirs.out_proj.weight),
    ):
        assert mine.abs().max().item() == pytest.approx(reference.abs().max().item(), rel=0.01)
        assert mine.std().item() == pytest.approx(reference.std().item(), rel=0.05)
    assert not module.attention.bias.any()
    assert not module.attended.bias.any()
    assert module.widen.bias.any()


def test_it_starts_as_torchs_own_linear_layer_does() -> None:
    module = LinearMap(400, 300, Full, seeded())
    own = nn.Linear(400, 300)
    for mine, reference in (
        (module.weight.fold(), own.weight),
        (module.bias.detach(), own.bias.detach()),
    ):
        assert mine.abs().max() <= 1 / math.sqrt(400)
        assert mine.std().item() == pytest.approx(reference.std().item(), rel=0.1)
        assert abs(mine.mean().item()) < 0.1 / math.sqrt(400)


@pytest.mark.parametrize("kind", [LinearMap, TransformerMap])
def test_every_matrix_takes_the_form_and_vectors_stay_full(kind) -> None:
    module = kind(16, 24, low_rank(), seeded())
    forms = [m for m in module.modules() if isinstance(m, LowRank)]
    assert len(forms) == (1 if kind is LinearMap else 5)
    factors = {id(p) for form in forms for p in form.parameters()}
    assert all(p.ndim == 1 for p in module.parameters() if id(p) not in factors)


@pytest.mark.parametrize("kind", [LinearMap, TransformerMap])
def test_the_generator_alone_decides_start_and_dropout(kind) -> None:
    def made(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return kind(16, 24, low_rank(dropout=0.5), seeded())

    one, other = made(1), made(2)
    x = torch.randn(2, 4, 16, generator=seeded(1))
    assert torch.equal(one(x), other(x))
    stirred(one)
    x = x.double()
    assert torch.equal(one(x, seeded(4)), one(x, seeded(4)))
    assert not torch.allclose(one(x, seeded(4)), one(x))
