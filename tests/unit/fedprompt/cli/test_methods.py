import json

import pytest
from click.testing import CliRunner

from fedprompt.cli import group
from fedprompt.cli import methods as module
from fedprompt.cli.methods import listed
from fedprompt.prompts.methods import METHODS, UNTRAINED
from tests.conftest import tiny_clip

# numbers of methods.md for ViT-B/16 with four tokens; cocoop's and adapt's are our arithmetic
PUBLISHED = {
    ("dip", "", 512),  # B alone: one row a round
    ("dip-fixed", "", 516),
    ("coop", "", 2_048),
    ("ivlp", "", 46_080),
    ("ivlp", "lowrank", 11_592),
    ("advpt", "", 16_384),
    ("advpt", "lowrank", 544),
    ("spt", "", 184_320),
    ("kgcoop", "", 2_048),
    ("promptsrc", "", 46_080),
    ("fedclip", "", 525_312),
    ("linear", "", 2 * 513),
    ("adapt", "", 4 * 512 + 4 * 768),
    ("adapt", "lowrank", 4 + 512 + 4 + 768),
    ("cocoop", "", 4 * 512 + 512 * 32 + 32 + 32 * 512 + 512),
}


@pytest.fixture(scope="module")
def vit():
    from fedprompt.backbone.weightless import weightless_backbone
    from fedprompt.settings.backbone import BackboneConfig

    return weightless_backbone(BackboneConfig(name="ViT-B-16"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch):
    """Let every name be the tests' small CLIP."""
    clip = tiny_clip()
    monkeypatch.setattr(module, "weightless_backbone", lambda config: clip)
    return clip


def invoke(*arguments: str):
    return CliRunner().invoke(group, ["methods", *arguments])


@pytest.mark.parametrize(("method", "form", "count"), sorted(PUBLISHED))
def test_the_counts_are_the_papers(vit, method: str, form: str, count: int) -> None:
    found = listed(method, {"prompt.form": form}, vit, ("cat", "dog"))
    assert (found.trained, found.sent) == (count, count)


def test_a_shallow_self_prompt_has_the_papers_size(vit) -> None:
    found = listed("spt", {"prompt.depth": 1}, vit, ("cat", "dog"))
    assert (found.trained, found.sent) == (76_800, 76_800)


def test_a_site_of_six_domains_sends_one_text_prompt(vit) -> None:
    six = {"prompt.domains": "a, b, c, d, e, f", "prompt.tokens": 16, "prompt.init": "random"}
    found = listed("adapt", six, vit, ("cat", "dog"))
    assert (found.trained, found.sent) == (12_800, 12_800)


@pytest.mark.parametrize(
    ("method", "settings", "count"),
    [
        ("coop", {"prompt.class_specific": True}, 3 * 2_048),
        ("dip", {"prompt.class_specific": True}, 512),
        ("dip-fixed", {"prompt.class_specific": True}, 3 * 4 + 512),
        ("coop", {"prompt.name_position": "front", "prompt.tokens": 2}, 2 * 512),
        ("maple", {"prompt.tokens": 2}, 3_555_072),
    ],
)
def test_layouts_are_counted(vit, method: str, settings: dict[str, object], count: int) -> None:
    found = listed(method, settings, vit, ("cat", "dog", "owl"))
    assert (found.trained, found.sent) == (count, count)


@pytest.mark.parametrize("own", [{"prompt.form": "lowrank"}, {"prompt.personal": "both"}])
def test_no_image_is_read_to_count(tiny, own: dict[str, str]) -> None:
    found = listed("spt", {"prompt.public": "no/such/folder", **own}, tiny, ("cat", "dog"))
    assert found.trained == listed("spt", own, tiny, ("cat", "dog")).trained


def test_every_method_has_a_line_with_host_form_and_paper(tiny) -> None:
    found = json.loads(invoke("--json").stdout)
    assert [one["method"] for one in found["methods"]] == [*METHODS, *UNTRAINED]
    assert found["classes"] == 10
    for one in found["methods"]:
        assert one["source"].startswith("arXiv"), one
        assert one["host"], one
        assert one["form"] in ("full", "lowrank"), one
    lines = invoke().stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [*METHODS, *UNTRAINED]
    dip = next(line.split() for line in lines if line.startswith("dip "))
    assert dip == ["dip", "coop", "lowrank", "32", "32", "arXiv", "2312.10813"]
    fixed = next(line.split() for line in lines if line.startswith("dip-fixed "))
    assert fixed == ["dip-fixed", "coop", "lowrank", "36", "36", "arXiv", "2312.10813"]  # 4 + 32


def test_the_form_and_the_length_are_taken_from_the_configuration(tiny) -> None:
    arguments = ("--json", "--set", "prompt.form=lowrank", "--set", "prompt.rank=2")
    found = {one["method"]: one for one in json.loads(invoke(*arguments).stdout)["methods"]}
    assert found["coop"]["trained"] == 2 * (4 + 32)


def test_under_a_shared_basis_b_alone_is_trained_and_sent(tiny) -> None:
    found = json.loads(invoke("--json", "--set", "server.rule=shared-basis").stdout)
    dip = next(one for one in found["methods"] if one["method"] == "dip")
    assert (dip["trained"], dip["sent"]) == (32, 32)


def test_a_method_that_does_not_fit_says_why_and_hides_no_other(tiny) -> None:
    arguments = ("--set", "prompt.depth=60")  # blocks that the small CLIP has not
    found = {
        one["method"]: one for one in json.loads(invoke("--json", *arguments).stdout)["methods"]
    }
    assert found["ivlp"]["sent"] is None
    assert "only 3 blocks" in found["ivlp"]["note"]
    assert found["coop"]["sent"] == 4 * 32
    assert "ivlp: prompt.depth = 60" in invoke(*arguments).stdout


def test_the_configured_classes_are_counted(tiny) -> None:
    found = json.loads(invoke("--json", "--set", "data.class_names=cat,dog,owl").stdout)
    assert found["classes"] == 3
