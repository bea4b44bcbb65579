import pytest

from fedprompt.errors import CheckpointError
from fedprompt.identity import canonical_json
from fedprompt.prompts.build import recipe_of
from fedprompt.prompts.coop import Coop
from fedprompt.prompts.methods import METHODS
from fedprompt.run_folder import RunFolder
from server.run_folder import run_status
from server.run_folder.summary import _AT_WORDS, starts_at_template, summarise, tell
from tests import round_lines


def test_a_run_is_summed_up_from_its_record(tmp_path):
    common = {"information_density": 0.4, "prompt": "f" * 64, "strikes": {}}
    for i, accuracy in enumerate((0.5, None, 0.75)):
        line = {"round": i, **common}
        if accuracy:
            line |= {"accuracy": accuracy, "worst_client_acc": accuracy / 2}
        if i:
            line |= {"bytes_up": 10, "bytes_down": 20, "truncation_error": 0.1}
        round_lines.append(tmp_path, line)
    run_status.write_success(tmp_path, "abc")
    result = summarise(tmp_path)
    assert (result["zero_shot_accuracy"], result["accuracy"]) == (0.5, 0.75)
    assert (result["bytes_up"], result["bytes_down"], result["artefact"]) == (20, 40, "abc")
    told = tell(result, 2)
    assert "2 of 2 rounds done: accuracy 75.0%" in told
    assert "zero-shot 50.0%" in told


@pytest.mark.parametrize(
    ("start", "told"),
    [("", "zero-shot 50.0%"), ("a photo of a", "zero-shot"), ("random", "untrained prompt 50.0%"),
     ("a blurry picture of a", "untrained prompt 50.0%")],
)  # fmt: skip
def test_round_0_is_zero_shot_only_from_the_templates_words(tmp_path, start, told):
    common = {"information_density": 0.4, "prompt": "f" * 64, "strikes": {}}
    line = {"round": 0, "accuracy": 0.5, "worst_client_acc": 0.5, **common}
    round_lines.append(tmp_path, line)
    settings = {"prompt.init": start, "data.template": "a photo of a {}."}
    (tmp_path / "settings.json").write_bytes(canonical_json(settings))
    result = summarise(tmp_path)
    assert result["start_accuracy"] == 0.5
    assert result["zero_shot_accuracy"] == (0.5 if "zero-shot" in told else None)
    assert told in tell(result, 0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"prompt.tokens": 2}, True),
        ({"prompt.class_specific": True}, True),
        ({"prompt.name_position": "front"}, False),
        ({"prompt.name_position": "middle"}, False),
    ],
)
def test_round_0_is_zero_shot_where_the_words_stand_where_they_stood(tmp_path, settings, expected):
    (tmp_path / "settings.json").write_bytes(canonical_json(settings))
    assert starts_at_template(RunFolder(tmp_path)) is expected


def test_the_methods_that_start_at_words_are_those_of_coops_host():
    """Others draw prompts, or start at images: their round 0 is not zero-shot CLIP."""
    hosts = {name: getattr(recipe_of(name), "host", None) for name in METHODS}
    assert {name for name, host in hosts.items() if host is Coop} == set(_AT_WORDS)


@pytest.mark.parametrize("method", ["vpt", "advpt", "spt"])
def test_other_methods_are_not_called_zero_shot(tmp_path, method):
    (tmp_path / "settings.json").write_bytes(canonical_json({"prompt.method": method}))
    assert not starts_at_template(RunFolder(tmp_path))


@pytest.mark.parametrize(
    ("personal", "told"),
    [
        ("global", "artefact"),
        ("local", "as it started"),
        ("both", "without the sites' own prompts"),
    ],
)
def test_an_artefact_without_the_sites_own_prompts_is_told_of(tmp_path, personal, told):
    line = {"round": 0, "information_density": 1.0, "prompt": "a" * 64, "strikes": {}}
    round_lines.append(tmp_path, line)
    (tmp_path / "settings.json").write_bytes(canonical_json({"prompt.personal": personal}))
    assert told in tell(summarise(tmp_path), 0).rpartition("/")[2]


def test_an_unevaluated_run_is_told_without_accuracy(tmp_path):
    line = {"round": 0, "information_density": 1.0, "prompt": "a" * 64, "strikes": {}}
    round_lines.append(tmp_path, line)
    assert "accuracy" not in tell(summarise(tmp_path), 0)


def test_a_run_without_its_record_is_told_in_one_line(tmp_path):
    with pytest.raises(CheckpointError, match=r"rounds.jsonl is gone or empty"):
        summarise(tmp_path)
