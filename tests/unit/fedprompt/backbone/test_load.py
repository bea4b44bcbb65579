import functools
import json
import os
import pickle
import socket
import urllib.request
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from huggingface_hub import constants
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from torch import nn

from fedprompt.backbone import clip as clip_module
from fedprompt.backbone import load
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.load import load_backbone
from fedprompt.data.preprocess import OPENAI_MEAN, OPENAI_STD, Preprocessing
from fedprompt.errors import BackboneError
from fedprompt.settings.backbone import BackboneConfig

NAME = "fedprompt-tiny"
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 48, "head_width": 12, "layers": 1},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 1},
}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return open_clip.CLIP(**TINY).eval().requires_grad_(False)


tokenizer_fingerprint = functools.cache(clip_module.tokenizer_fingerprint)
get_tokenizer = functools.cache(open_clip.get_tokenizer)  # reading the vocabulary takes a second


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let open_clip know a tiny architecture, for one test."""
    monkeypatch.setattr(open_clip, "get_tokenizer", get_tokenizer)
    monkeypatch.setattr(clip_module, "tokenizer_fingerprint", tokenizer_fingerprint)
    factory = open_clip.factory
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, NAME: TINY})


def checkpoint(folder: Path, kind: str = ".pt") -> Path:
    path, state = folder / f"weights{kind}", tiny().state_dict()
    if kind == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def config(pretrained: object = "", **settings: object) -> BackboneConfig:
    known = {"name": NAME, "pretrained": str(pretrained), "preprocess": "ViT-B-32/openai"}
    return BackboneConfig(**(known | settings))


@pytest.mark.parametrize("kind", [".pt", ".safetensors"])
def test_a_local_checkpoint_comes_back_bit_for_bit(tmp_path: Path, kind: str) -> None:
    clip = load_backbone(config(checkpoint(tmp_path, kind), device="cpu"))
    assert torch.equal(clip.encode_image(IMAGES), tiny().encode_image(IMAGES))
    assert clip.preprocessing == Preprocessing(size=32)
    assert (clip.name, clip.pretrained) == (NAME, str(tmp_path / f"weights{kind}"))
    assert not any(parameter.requires_grad for parameter in clip.parameters())


def test_the_kind_of_file_does_not_change_the_identity(tmp_path: Path) -> None:
    found = [load_backbone(config(checkpoint(tmp_path, k))) for k in (".pt", ".safetensors")]
    assert found[0].fingerprint == found[1].fingerprint
    assert found[0].tokenizer_fingerprint == found[1].tokenizer_fingerprint


def test_a_state_dict_inside_a_training_checkpoint_is_found(tmp_path: Path) -> None:
    path = tmp_path / "epoch.pt"
    state = {f"module.{key}": value for key, value in tiny().state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, path)
    assert torch.equal(
        load_backbone(config(path)).encode_image(IMAGES), tiny().encode_image(IMAGES)
    )


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"name": "ViT-B-23", "pretrained": "openai"}, "'ViT-B-23' is unknown; expected embedded"),
        ({"name": "ViT-B-32"}, "has no weights: set backbone.pretrained .* openai"),
        ({"name": NAME}, r"has no weights: .*\(no tag is known\)"),
        ({"name": "ViT-B-32", "pretrained": "opanai"}, "neither a file nor a tag .* openai"),
        ({"name": NAME, "pretrained": "/no/such/file.pt"}, "neither a file nor a tag"),
        ({"name": "local-dir:/no/such/folder"}, "could not be loaded: FileNotFoundError"),
    ],
)
def test_f33_what_cannot_be_loaded_is_refused(settings: dict, match: str) -> None:
    with pytest.raises(BackboneError, match=match) as caught:
        load_backbone(BackboneConfig(**settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [".pt", ".safetensors", ".bin"])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"weights{kind}"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(BackboneError, match="is damaged or no checkpoint"):
        load_backbone(config(path))


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"proj": torch.zeros(2)}, path)
    with pytest.raises(
        BackboneError, match=r"does not fit fedprompt-tiny.*another model's weights"
    ):
        load_backbone(config(path))


def test_openais_archive_is_loaded_and_known_to_need_quick_gelu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As OpenAI published CLIP: traced, in half precision, three numbers beside the weights."""

    class Holder(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    model = Holder()
    for name, part in tiny().half().named_children():
        model.add_module(name, part)
    for name, value in tiny().half().named_parameters(recurse=False):
        model.register_parameter(name, value)
    for name, number in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
        model.register_buffer(name, torch.tensor(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.trace(model, torch.zeros(1)), tmp_path / "tiny.pt")
    clip = load_backbone(config(tmp_path / "tiny.pt", device="cpu"))
    assert any(isinstance(part, QuickGELU) for part in clip.modules())
    expected = open_clip.CLIP(**TINY, quick_gelu=True).eval().requires_grad_(False)
    expected.load_state_dict(tiny().half().float().state_dict())
    assert torch.equal(clip.encode_image(IMAGES), expected.encode_image(IMAGES))
    assert not caplog.messages  # open_clip says that the weights are random
    plain = load_backbone(config(tmp_path / "tiny.pt", device="cpu", quick_gelu="off"))
    assert not any(isinstance(part, QuickGELU) for part in plain.modules())


@pytest.mark.parametrize("place", ["file", "local-dir"])
def test_weights_that_are_no_numbers_or_not_there_are_refused(tmp_path: Path, place: str) -> None:
    path = tmp_path / "open_clip_model.safetensors"
    chosen = config(path)
    if place == "local-dir":
        write_config(tmp_path)
        chosen = config(name=f"local-dir:{tmp_path}")
    state = tiny().state_dict()
    state["ln_final.bias"][0] = float("nan")
    save_file(state, path)
    with pytest.raises(BackboneError, match=r"infinite or none in ln_final\.bias"):
        load_backbone(chosen)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n")
    with pytest.raises(BackboneError, match="git lfs pull"):
        load_backbone(chosen)


class Bomb:
    """Run code when unpickled carelessly."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("kind", ["torch", "pickle"])
@pytest.mark.parametrize("place", ["file", "local-dir"])
def test_f24_code_in_a_pickle_never_runs(tmp_path: Path, kind: str, place: str) -> None:
    target = tmp_path / "executed"
    path = tmp_path / "open_clip_pytorch_model.bin"
    state = {**tiny().state_dict(), "bomb": Bomb(target)}
    if kind == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state))
    chosen = config(path)
    if place == "local-dir":
        write_config(tmp_path)
        chosen = config(name=f"local-dir:{tmp_path}")
    with pytest.raises(BackboneError, match=r"more than tensors|no checkpoint") as told:
        load_backbone(chosen)
    assert "weights_only" not in str(told.value)
    assert not target.exists()


def write_config(folder: Path, **preprocess: object) -> None:
    pre = {"mean": list(OPENAI_MEAN), "std": list(OPENAI_STD), **preprocess}
    text = json.dumps({"model_cfg": TINY, "preprocess_cfg": pre})
    (folder / "open_clip_config.json").write_text(text)


def test_a_local_folder_brings_its_own_weights_and_preprocessing(tmp_path: Path) -> None:
    write_config(tmp_path, mean=[0.5] * 3, std=[0.25] * 3, interpolation="bilinear")
    save_file(tiny().state_dict(), tmp_path / "open_clip_model.safetensors")
    clip = load_backbone(config(name=f"local-dir:{tmp_path}", preprocess=""))
    assert torch.equal(clip.encode_image(IMAGES), tiny().encode_image(IMAGES))
    assert clip.preprocessing == Preprocessing(
        size=32, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear"
    )


def test_a_local_folder_without_weights_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path)
    with pytest.raises(BackboneError, match="Required pretrained weights"):
        load_backbone(config(name=f"local-dir:{tmp_path}"))


def test_the_hub_without_internet_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError, match="Without internet give a local checkpoint file"):
        load_backbone(config(name="hf-hub:fedprompt/there-is-no-such-model"))


def test_a_local_folder_that_states_no_preprocessing_is_asked_for_it(tmp_path: Path) -> None:
    write_config(tmp_path, mean=None)
    save_file(tiny().state_dict(), tmp_path / "open_clip_model.safetensors")
    with pytest.raises(BackboneError, match="has no mean under preprocess_cfg"):
        load_backbone(config(name=f"local-dir:{tmp_path}", preprocess=""))
    told = config(name=f"local-dir:{tmp_path}", preprocess="MobileCLIP-S1/datacompdr")
    assert load_backbone(told).preprocessing.mean == (0.0, 0.0, 0.0)


def tags(monkeypatch: pytest.MonkeyPatch, **known: dict) -> None:
    """Let open_clip know tags of the tiny architecture."""
    full = {name: {"url": "x"} | tag for name, tag in known.items()}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, full)


HALVES = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
PLAIN = {"mean": OPENAI_MEAN, "std": OPENAI_STD, "interpolation": "bicubic"}


def test_a_file_is_prepared_as_all_tags_of_its_model_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags(monkeypatch, first=HALVES, second=HALVES | {"resize_mode": "shortest"})
    clip = load_backbone(config(checkpoint(tmp_path), preprocess=""))
    assert clip.preprocessing == Preprocessing(
        size=32, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear"
    )


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({}, "open_clip has no tag of it"),
        ({"a": HALVES, "b": PLAIN}, r"tags differ \(mean 0.5.*: a; mean 0.481.*: b\)"),
        ({"a": PLAIN, "b": PLAIN | {"resize_mode": "squash"}}, "shortest: a; .* squash: b"),
    ],
)
def test_a_file_that_nothing_says_how_to_prepare_for_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: dict, says: str
) -> None:
    tags(monkeypatch, **known)
    path = checkpoint(tmp_path)
    with pytest.raises(BackboneError, match=f"{says}.*set backbone.preprocess"):
        load_backbone(config(path, preprocess=""))
    if known:
        prepared = [load_backbone(config(path, preprocess=tag)).preprocessing for tag in known]
        assert prepared[0] != prepared[1]


def test_preprocess_wins_over_the_tag_and_must_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags(monkeypatch, first=HALVES)
    path = checkpoint(tmp_path)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(path))
    assert load_backbone(config("first", preprocess="")).preprocessing.mean == (0.5,) * 3
    told = load_backbone(config("first", preprocess="ViT-B-32/openai"))
    assert told.preprocessing == Preprocessing(size=32)
    with pytest.raises(BackboneError, match=r"'opanai' is no tag; .* \(first\)"):
        load_backbone(config("first", preprocess="opanai"))
    with pytest.raises(BackboneError, match="embedded has its own"):
        load_backbone(BackboneConfig(preprocess="openai"))


@pytest.mark.parametrize(
    ("known", "expected"), [((True, True), QuickGELU), ((True, False), nn.GELU)]
)
def test_a_file_takes_the_activation_that_all_tags_share(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    known: tuple[bool, bool],
    expected: type,
) -> None:
    tags(monkeypatch, **{f"tag{i}": {"quick_gelu": quick} for i, quick in enumerate(known)})
    assert activations(load_backbone(config(checkpoint(tmp_path)))) == {expected}
    assert ("nothing says which activation" in caplog.text) == (expected is nn.GELU)


def activations(clip: nn.Module) -> set[type[nn.Module]]:
    return {type(m) for m in clip.modules() if isinstance(m, nn.GELU | QuickGELU)}


@pytest.mark.parametrize(
    ("tag", "choice", "expected"),
    [
        ("openai", "auto", QuickGELU),
        ("openai", "off", nn.GELU),
        ("laion", "auto", nn.GELU),
        ("laion", "on", QuickGELU),
        ("file", "auto", nn.GELU),
        ("file", "on", QuickGELU),
    ],
)
def test_quick_gelu_follows_the_tag_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str, choice: str, expected: type
) -> None:
    path = checkpoint(tmp_path)
    tags = {"openai": {"url": "x", "quick_gelu": True}, "laion": {"url": "x"}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, tags)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(path))
    clip = load_backbone(config(path if tag == "file" else tag, quick_gelu=choice))
    assert activations(clip) == {expected}


@pytest.mark.parametrize(("choice", "expected"), [("auto", QuickGELU), ("off", nn.GELU)])
def test_quick_gelu_in_a_models_own_config_can_be_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str, expected: type
) -> None:
    configs = {**open_clip.factory._MODEL_CONFIGS, NAME: {**TINY, "quick_gelu": True}}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", configs)
    clip = load_backbone(config(checkpoint(tmp_path), quick_gelu=choice))
    assert activations(clip) == {expected}


def test_open_clips_openai_tags_ask_for_quick_gelu() -> None:
    assert open_clip.get_pretrained_cfg("ViT-B-16", "openai")["quick_gelu"] is True


def test_an_unknown_device_is_named(tmp_path: Path) -> None:
    for device in ("gpu", "cuda:99"):
        with pytest.raises(BackboneError, match=f"device = '{device}' cannot be used here"):
            load_backbone(config(checkpoint(tmp_path), device=device))


def test_the_embedded_model_comes_through_the_same_door(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    monkeypatch.setattr(load, "load_embedded", lambda name: (tiny(), settings))
    clip = load_backbone(BackboneConfig())
    assert clip.name == "embedded"
    assert clip.preprocessing.mean == (0.5,) * 3
    assert torch.equal(clip.encode_image(IMAGES), tiny().encode_image(IMAGES))


def test_one_process_loads_a_shared_backbone_once(
    clip: FrozenClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(load, "load_backbone", lambda config: calls.append(config) or clip)
    load._kept_backbone.cache_clear()
    try:
        for _ in range(2):
            assert load.shared_backbone(BackboneConfig(name="a")) is clip
        assert calls == [BackboneConfig(name="a")]
    finally:
        load._kept_backbone.cache_clear()


def test_without_internet_the_hub_is_asked_once_and_not_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    dialled: list[object] = []

    def refuse(address: object, *_: object, **__: object) -> None:
        dialled.append(address)
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(BackboneError, match=r"cannot be reached .*Network is unreachable") as told:
        load_backbone(config(name="hf-hub:fedprompt/there-is-no-such-model"))
    assert len(dialled) == 1
    assert "local checkpoint file" in str(told.value)
    assert not [r for r in caplog.records if "Retrying" in r.getMessage()]
    assert constants.HF_HUB_OFFLINE is False
