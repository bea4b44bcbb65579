import importlib
import subprocess
import sys

import pytest

import fedprompt

PUBLIC = {
    "Artefact",
    "ArtefactError",
    "BackboneConfig",
    "BackboneError",
    "CheckpointError",
    "ConfigError",
    "DataConfig",
    "DataError",
    "FedpromptError",
    "FrozenClip",
    "GraphError",
    "LinkError",
    "ParityError",
    "PolicyError",
    "PrivacyError",
    "PromptError",
    "ProviderError",
    "QuorumError",
    "RefusedError",
    "RunConfig",
    "StorageError",
    "build_prompt",
    "from_artefact",
    "load_backbone",
    "prompt_config",
    "to_artefact",
}
HEAVY = {"torch", "flwr", "onnx", "onnxruntime", "pydantic", "numpy", "PIL", "open_clip"}


def test_the_public_list_is_pinned() -> None:
    """Whoever adds or removes a name changes this test and the changelog with it."""
    assert sorted(fedprompt.__all__) == sorted(PUBLIC)
    assert set(dir(fedprompt)) >= PUBLIC | {"__version__"}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_name_is_its_owners(name: str) -> None:
    found = getattr(fedprompt, name)
    assert getattr(importlib.import_module(found.__module__), name) is found


def test_every_error_is_public() -> None:
    from fedprompt import errors

    tree = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert tree <= PUBLIC


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert fedprompt.__version__ == version("fedprompt")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'prompt_clip'"):
        fedprompt.prompt_clip  # noqa: B018


@pytest.mark.parametrize("module", ["fedprompt", "fedprompt.errors"])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
