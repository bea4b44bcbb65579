import numpy as np
import pytest
import torch
from torch import nn

from fedprompt.errors import PromptError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.forms import Full, LowRank
from fedprompt.prompts.method import load_module_arrays, module_arrays


class Host(nn.Module):
    def __init__(self, form: nn.Module) -> None:
        super().__init__()
        self.ctx = form


def low() -> Host:
    return Host(LowRank(torch.zeros(4, 8), 2, 0.0))


def test_arrays_are_named_float32_copies() -> None:
    host = low()
    arrays = module_arrays(host)
    assert {n: (a.shape, a.dtype) for n, a in arrays.items()} == {
        "ctx.A": ((4, 2), np.float32),
        "ctx.B": ((2, 8), np.float32),
    }
    load_module_arrays(host, PromptState({name: array + 1 for name, array in arrays.items()}))
    assert np.array_equal(arrays["ctx.A"] + 1, module_arrays(host)["ctx.A"])


def test_the_full_form_has_the_name_of_its_matrix() -> None:
    arrays = module_arrays(Host(Full(torch.ones(4, 8))))
    assert {n: a.shape for n, a in arrays.items()} == {"ctx": (4, 8)}


def test_what_is_loaded_comes_back_and_parameters_stay_the_same_objects() -> None:
    host = low()
    before = [id(parameter) for parameter in host.parameters()]
    sent = PromptState({n: np.full_like(a, 0.5) for n, a in module_arrays(host).items()})
    load_module_arrays(host, sent)
    for name, array in module_arrays(host).items():
        assert np.array_equal(array, sent[name])
    assert [id(parameter) for parameter in host.parameters()] == before
    assert all(parameter.requires_grad for parameter in host.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"ctx.A": np.zeros((4, 1), np.float32)},  # broadcast would have taken it
        {"ctx.B": np.zeros(8, np.float32)},
        {"ctx.C": np.zeros((1, 1), np.float32)},
    ],
)
def test_other_shapes_and_names_change_nothing(change: dict) -> None:
    host = low()
    before = module_arrays(host)
    with pytest.raises(PromptError, match="expected"):
        load_module_arrays(host, PromptState({n: a + 1 for n, a in before.items()} | change))
    with pytest.raises(PromptError, match="expected"):
        load_module_arrays(host, before.select({"ctx.A"}))
    for name, array in module_arrays(host).items():
        assert np.array_equal(array, before[name])
