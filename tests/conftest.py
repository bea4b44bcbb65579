"""Fixtures shared by all tests.

FEDPROMPT_CHECK_SHAPES=1 lets beartype check every call's types and jaxtyping shapes.
hypothesis takes the same inputs in every run, so that a change fails for what it changed;
HYPOTHESIS_PROFILE=random looks for new ones.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

if os.environ.get("FEDPROMPT_CHECK_SHAPES") == "1":
    from jaxtyping import install_import_hook

    install_import_hook(["fedprompt.backbone", "fedprompt.prompts", "client"], "beartype.beartype")

import open_clip
import pytest
import torch
from hypothesis import HealthCheck, settings

from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.preprocess import Preprocessing

busy = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # no timed assertions
settings.register_profile("steady", busy, derandomize=True)
settings.register_profile("random", busy)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

CLASSES = ("great grey owl", "great white shark", "tench", "tench", "sea", "maple tree")


def tiny_model(seed: int = 0, **text: object) -> torch.nn.Module:
    """Return a random open_clip model: 32 px, three layers a tower, widths 48 and 32, joint 24."""
    torch.manual_seed(seed)
    vision_cfg = {"image_size": 32, "patch_size": 8, "width": 48, "head_width": 12, "layers": 3}
    text_cfg = {"width": 32, "heads": 4, "layers": 3, **text}
    model = open_clip.CLIP(24, vision_cfg, text_cfg)
    with torch.no_grad():  # open_clip's start gives nearly equal class features
        model.positional_embedding.mul_(10)
        model.token_embedding.weight.mul_(10)
    return model.eval()


def tiny_clip(seed: int = 0, **text: object) -> FrozenClip:
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    return FrozenClip(tiny_model(seed, **text), tokenizer, Preprocessing(size=32), name="tiny")


@pytest.fixture(scope="session")
def clip() -> FrozenClip:
    return tiny_clip()
