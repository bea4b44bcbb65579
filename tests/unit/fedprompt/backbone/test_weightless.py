import logging

import open_clip
import pytest
import torch
from torch import nn

from fedprompt.backbone import weightless
from fedprompt.backbone.weightless import weightless_backbone
from fedprompt.errors import BackboneError
from fedprompt.settings.backbone import BackboneConfig

SMALL = {  # what open_clip's own table says of a name
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 48, "head_width": 12, "layers": 3},
    "text_cfg": {"width": 32, "heads": 4, "layers": 5, "context_length": 77, "vocab_size": 49408},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """Let open_clip's ViT-B-32 be a small one."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", SMALL)
    return "ViT-B-32"


def test_shapes_are_the_names_own_but_for_the_hidden_layers(small: str, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        clip = weightless_backbone(BackboneConfig(name=small))
    full = open_clip.CLIP(24, SMALL["vision_cfg"], SMALL["text_cfg"])
    hidden = ("mlp.c_fc", "mlp.c_proj")
    for name, tensor in full.state_dict().items():
        if not any(part in name for part in hidden):
            assert clip.model.state_dict()[name].shape == tensor.shape, name
    assert len(clip.text.blocks) == 5
    assert len(clip.image.blocks) == 3
    count = sum(p.numel() for p in clip.parameters())
    assert count < sum(p.numel() for p in full.parameters())
    assert not caplog.records  # that nothing was loaded is no news
    assert logging.root.manager.disable == logging.NOTSET


def test_no_tag_is_asked_for(small: str) -> None:
    plain = weightless_backbone(BackboneConfig(name=small))
    tagged = weightless_backbone(BackboneConfig(name=small, pretrained="openai"))
    assert [t.shape for t in tagged.parameters()] == [t.shape for t in plain.parameters()]


def test_other_names_are_loaded(monkeypatch: pytest.MonkeyPatch, clip) -> None:
    asked: list[BackboneConfig] = []
    monkeypatch.setattr(weightless, "load_backbone", lambda config: asked.append(config) or clip)
    config = BackboneConfig(name="embedded")
    assert weightless_backbone(config) is clip
    assert asked == [config]


def test_what_open_clip_cannot_lay_out_is_named(small: str, monkeypatch) -> None:
    def fail(name: str, **settings: object) -> nn.Module:
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "create_model", fail)
    with pytest.raises(BackboneError, match="ViT-B-32 could not be laid out: OSError: no network"):
        weightless_backbone(BackboneConfig(name=small))


def test_weights_are_random_not_empty(small: str) -> None:
    clip = weightless_backbone(BackboneConfig(name=small))
    assert all(bool(torch.isfinite(tensor).all()) for tensor in clip.parameters())
