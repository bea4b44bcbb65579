import importlib.metadata
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner, Result

from export.runtime import providers
from fedprompt.cli import doctor as module
from fedprompt.cli import group


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def ask(*arguments: str) -> tuple[Result, dict[str, dict[str, str]]]:
    done = CliRunner().invoke(group, ["doctor", "--json", *arguments])
    report = json.loads(done.stdout)
    return done, {finding["name"]: finding for finding in report["findings"]}


def test_a_machine_that_has_everything() -> None:
    done, found = ask()
    assert done.exit_code == 0, done.output
    assert list(found) == ["machine", "training", "GPU", "ONNX Runtime", "cache"]
    assert found["training"]["status"] == found["ONNX Runtime"]["status"] == "ok"
    assert f"torch {importlib.metadata.version('torch')}" in found["training"]["detail"]
    assert "CPUExecutionProvider" in found["ONNX Runtime"]["detail"]


def test_lines_for_a_person() -> None:
    done = CliRunner().invoke(group, ["doctor"])
    assert [line.split()[0] for line in done.stdout.splitlines()].count("ok") >= 3
    assert done.stderr == ""


def test_nothing_is_created_by_asking(own_cache: Path) -> None:
    ask()
    assert not own_cache.parent.exists()


def test_no_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done, found = ask()
    assert found["ONNX Runtime"]["status"] == "missing"
    assert "pip install" in found["ONNX Runtime"]["detail"]
    assert done.exit_code == 1
    assert done.stderr.startswith("fedprompt: missing: ONNX Runtime")


def test_both_onnx_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_installed", lambda name: True)
    done, found = ask()
    assert found["ONNX Runtime"]["status"] == "missing"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found["ONNX Runtime"]["detail"]
    assert done.exit_code == 1


def test_no_gpu_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done, found = ask()
    assert found["GPU"] == {
        "name": "GPU",
        "status": "note",
        "detail": "none that torch can use; everything runs on the CPU",
    }
    assert done.exit_code == 0


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        get_device_name=lambda index: f"GPU {index}",
        is_bf16_supported=lambda: True,
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    _, found = ask()
    assert found["GPU"]["detail"] == "GPU 0, GPU 1; with bf16"


def _without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    original = importlib.metadata.version

    def version(name: str) -> str:
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return original(name)

    monkeypatch.setattr(module.importlib.metadata, "version", version)


def test_half_an_installation_is_missing_the_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "flwr", "onnx")
    done, found = ask()
    assert found["training"]["status"] == "missing"
    assert found["training"]["detail"].startswith("flwr, onnx not installed; pip install")
    assert done.exit_code == 1


def test_an_edge_installation_lacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, *module._TRAINING)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    done, found = ask()
    assert found["training"]["status"] == found["GPU"]["status"] == "note"
    assert done.exit_code == 0


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr(module.os, "access", lambda path, mode: False)
    done, found = ask()
    assert found["cache"] == {
        "name": "cache",
        "status": "missing",
        "detail": f"{own_cache} cannot be written; set FEDPROMPT_CACHE",
    }
    assert done.exit_code == 1


def test_a_file_where_the_cache_should_lie(own_cache: Path) -> None:
    own_cache.parent.write_text("not a folder")
    done, found = ask()
    assert found["cache"]["status"] == "missing"
    assert done.exit_code == 1


def test_a_full_disk_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9))
    done, found = ask()
    assert found["cache"]["status"] == "note"
    assert "1 GB free" in found["cache"]["detail"]
    assert done.exit_code == 0
