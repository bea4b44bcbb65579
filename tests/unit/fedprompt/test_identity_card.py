import json
from importlib.metadata import version

import pytest

from fedprompt.backbone.clip import FrozenClip
from fedprompt.identity_card import identity_card
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import prompt_config
from fedprompt.wire import SHARED
from tests.conftest import CLASSES, tiny_clip

TEMPLATE = "a photo of a {}."


def card(clip, classes=CLASSES, template=TEMPLATE, rule="product", **config) -> dict[str, str]:
    prompt = build_prompt(prompt_config(**config), clip, classes, template, rule=rule)
    return identity_card(clip, prompt, classes, template)


def test_it_states_what_server_and_sites_share(clip: FrozenClip) -> None:
    found = card(clip)
    assert tuple(found) == SHARED
    assert found["version"] == version("fedprompt")
    assert found["backbone"] == clip.fingerprint
    assert found["tokenizer"] == clip.tokenizer_fingerprint
    assert json.loads(found["classes"]) == list(CLASSES)
    assert json.loads(found["method"])["method"] == "dip"
    assert found == card(clip)


def test_f12_another_backbone_shows(clip: FrozenClip) -> None:
    other, mine = card(tiny_clip(seed=1)), card(clip)
    assert other["backbone"] != mine["backbone"]
    assert other["tokenizer"] == mine["tokenizer"]


def test_f13_another_order_of_classes_shows(clip: FrozenClip) -> None:
    found = card(clip, classes=CLASSES[::-1])
    assert found["classes"] != card(clip)["classes"]


@pytest.mark.parametrize(
    "change",
    [
        {"method": "coop"},
        {"method": "template"},
        {"tokens": 2, "init": "random"},
        {"init": "a drawing of a"},
        {"template": "a photo of a {}, a kind of fish."},
    ],
)
def test_another_method_start_or_template_shows(clip: FrozenClip, change: dict) -> None:
    assert card(clip, **change)["method"] != card(clip)["method"]


def test_the_seed_of_a_random_start_shows(clip: FrozenClip) -> None:
    assert (
        card(clip, init="random", tokens=4, seed=1)["method"]
        != card(clip, init="random", tokens=4, seed=2)["method"]
    )


def test_sites_of_unequal_rank_may_meet(clip: FrozenClip) -> None:
    assert card(clip, rank=2) == card(clip, rank=1)


def test_under_a_shared_basis_the_basis_is_shared(clip: FrozenClip) -> None:
    """A does not travel there: sites that began with another A would be averaged without sense."""
    mine = card(clip, rule="shared-basis")
    assert mine["method"] != card(clip, rule="shared-basis", rank=2)["method"]
