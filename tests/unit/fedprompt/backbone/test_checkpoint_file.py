import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fedprompt.backbone.checkpoint_file import read_checkpoint
from fedprompt.errors import BackboneError


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("context_length", torch.tensor(77))
        self.blocks = nn.ModuleList([nn.Conv2d(1, 2, 2), nn.LayerNorm(4)])
        self.narrow = nn.Parameter(torch.randn(4, 3).half().t(), requires_grad=False)
        self.tied = self.linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.int64)}


def saved(folder: Path, content: Any, name: str = "weights.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


def archived(folder: Path, *, script: bool = False) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    module = Inner().eval()
    path = folder / "archive.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        made = torch.jit.script(module) if script else torch.jit.trace(module, torch.zeros(1))
        torch.jit.save(made, path)
    return path, module


def rewritten(path: Path, change: Callable[[str, bytes], bytes], kind: int = 0) -> None:
    """Change the parts of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in parts.items():
            archive.writestr(name, change(name, content))


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: state}}},
        lambda state: {"model": state, "ema": {k: v + 1 for k, v in state.items()}},
        lambda state: {"module": state, "global_step": torch.tensor(3)},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"net": state, "args": {"lr": 1.0}},
        lambda state: {"student": {"net": state}},
        lambda state: {"model_state_dict": state, "loss": 0.1},
    ],
)
def test_the_tensors_are_found_in_whatever_was_saved_around_them(tmp_path: Path, wrap: Any) -> None:
    assert_same(read_checkpoint(saved(tmp_path, wrap(STATE))), STATE)


@pytest.mark.parametrize("beside", ["ema", "model_ema", "state_dict_ema", "teacher"])
def test_of_two_dictionaries_the_one_that_is_not_used_is_named(
    tmp_path: Path, beside: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = {k: v + 1 for k, v in STATE.items()}
    path = saved(tmp_path, {"state_dict": STATE, beside: other, "epoch": 3})
    assert_same(read_checkpoint(path), STATE)
    assert f"those of 'state_dict'; {beside} beside it is not used" in caplog.text
    caplog.clear()
    read_checkpoint(saved(tmp_path, {"state_dict": STATE, "optimizer": {"state": {0: STATE}}}))
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin"])
def test_safetensors_are_known_by_their_content(tmp_path: Path, name: str) -> None:
    save_file(STATE, tmp_path / name)
    assert_same(read_checkpoint(tmp_path / name), STATE)


@pytest.mark.parametrize("script", [False, True])
def test_a_torchscript_archive_is_its_state_dict(tmp_path: Path, script: bool) -> None:
    path, module = archived(tmp_path, script=script)
    assert_same(read_checkpoint(path), module.state_dict())


def test_f24_the_code_of_an_archive_is_neither_run_nor_read(tmp_path: Path) -> None:
    path, module = archived(tmp_path)
    rewritten(path, lambda name, data: b"raise SystemExit" if name.endswith(".py") else data)
    assert read_checkpoint(path).keys() == module.state_dict().keys()


class Bomb:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    "call",
    [(os.mkdir, "executed"), (eval, "1"), (getattr, "", "join"), (torch.zeros, 1), (bytearray, 9)],
)
def test_f24_an_archive_that_names_anything_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    path, _ = archived(tmp_path)
    evil = pickle.dumps({"p": Bomb(*call)}, 2)
    rewritten(path, lambda name, data: evil if name.endswith("/data.pkl") else data)
    with pytest.raises(BackboneError, match=r"cannot be read without running its code \(it names"):
        read_checkpoint(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("damage", ["cut", "compressed", "structure", "missing"])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: str) -> None:
    path, _ = archived(tmp_path)

    def change(name: str, data: bytes) -> bytes:
        if damage == "cut" and name.endswith("/data/0"):
            return data[:-1]
        if damage == "structure" and name.endswith("/data.pkl"):
            return data[: len(data) // 2]
        if damage == "missing" and name.endswith("/data.pkl"):
            return data.replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009")
        return data

    rewritten(path, change, zipfile.ZIP_DEFLATED if damage == "compressed" else 0)
    with pytest.raises(BackboneError, match="TorchScript archive whose tensors cannot be read"):
        read_checkpoint(path)


def _text(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


class Unknown:
    pass


def _cut(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (_text(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"), "git lfs pull"),
        (_text(b""), "is empty"),
        (_text(b"<!doctype html><title>404"), "damaged or no checkpoint"),
        (_text(pickle.dumps(STATE["a.bias"].tolist())), "damaged or no checkpoint|no tensors"),
        (_cut, "damaged or no checkpoint"),
        (lambda path: torch.save(Unknown(), path), "could run code"),
        (lambda path: torch.save({"w": STATE["a.bias"], "b": Unknown()}, path), "could run code"),
        (lambda path: torch.save({"epoch": 3}, path), "a dictionary of epoch, no tensors by name"),
        (lambda path: torch.save([STATE["a.bias"]], path), "holds list, no tensors by name"),
        (lambda path: torch.save({"one": STATE, "two": STATE}, path), "several .*: one, two"),
        (lambda path: path.mkdir(), "cannot be read"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, write: Any, reason: str) -> None:
    path = tmp_path / "weights.pt"
    write(path)
    with pytest.raises(BackboneError, match=reason) as told:
        read_checkpoint(path)
    assert "weights_only" not in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
def test_any_half_of_a_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    content = buffer.getvalue()
    if suffix == ".safetensors":
        save_file(STATE, path)
        content = path.read_bytes()
    for length in range(1, len(content) - 1, 97):
        path.write_bytes(content[:length])
        with pytest.raises(BackboneError):
            read_checkpoint(path)
