import tomllib
from pathlib import Path

import pytest

from client.deployment.site_folder import NodeConfig
from fedprompt.errors import ConfigError
from fedprompt.prompts.methods import models, prompt_config
from fedprompt.settings.fit import FitConfig
from fedprompt.settings.run_config import SECTIONS, RunConfig, check, defaults, load_flat
from fedprompt.settings.section import section
from server.deployment.config import DeploymentConfig

ROOT = Path(__file__).parents[4]


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_a_file_and_overrides_become_flat_keys(tmp_path: Path) -> None:
    path = write(tmp_path, '[fit]\nbatch = 8\n[data]\nsource = "folder"\n')
    flat = load_flat(path, ["fit.batch=16", "prompt.rank = 2", "data.class_names=cat, dog"])
    assert flat == {
        "fit.batch": 16,
        "data.source": "folder",
        "prompt.rank": 2,
        "data.class_names": "cat, dog",
    }
    assert section(flat, "fit", FitConfig) == FitConfig(batch=16)


def test_nothing_given_is_nothing() -> None:
    assert load_flat(None) == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("fit.learning_rate=1e-3", 1e-3),
        ("fit.learning_rate=1", 1),
        ("fit.cache=false", False),
        ("prompt.init=", ""),
        ("prompt.init=a photo of a", "a photo of a"),
        ('prompt.init="quoted = text"', "quoted = text"),
        ("data.template=a {}, b=c.", "a {}, b=c."),
        ("data.source=[1, 2]", "[1, 2]"),
        ("server.output=2026-11-22", "2026-11-22"),
    ],
)
def test_overrides_are_read_as_toml_or_as_words(text: str, value: object) -> None:
    found = load_flat(None, [text])[text.partition("=")[0]]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("fit.batch", "no '='; write --set section.key=value"),
        ("fit.learning_rat=1", r"did you mean fit.learning_rate\? allowed are optimiser, "),
        ("fitt.batch=1", "did you mean fit"),
        ("batch=1", r"did you mean fit.batch\?"),
        ("nonsense=1", "keys are section.key, sections are backbone, data, prompt, fit, server"),
        ("nonsense.batch=1", "sections are backbone, data, prompt, fit, server"),
        ("fit.zzz=1", "fit.zzz is not a setting: allowed are"),
        ("fit.batch=0", "fit.batch = 0: .*greater than or equal to 1"),
        ("fit.batch=many", "fit.batch = 'many': .*valid integer"),
        ("fit.optimiser=adam", "fit.optimiser = 'adam': .*'sgd' or 'adamw'"),
        ("fit.learning_rate=nan", "fit.learning_rate = nan: .*finite"),
        ("fit.learning_rate=-inf", "fit.learning_rate = -inf: .*finite"),
        ("data.partitioner=dirichelt", "data.partitioner = 'dirichelt': .*one of .*dirichlet"),
    ],
)
def test_f33_a_wrong_key_or_value_is_named_with_what_is_allowed(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        load_flat(None, [text])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("batch = 1", "'batch' stands outside a section"),
        ("[fit]\nbatch = [1]", "fit.batch: found list, expected a scalar"),
        ("[fit]\nlearning_rate = nan", "fit.learning_rate = nan: .*finite"),
        ("[fit.more]\nbatch = 1", "fit.more: found dict"),
        ("[fit\n", "is not TOML"),
        ("[fits]\nbatch = 1", "did you mean fit"),
    ],
)
def test_f33_a_wrong_file_is_refused(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        load_flat(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml could not be read: No such file"):
        load_flat(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="could not be read"):
        load_flat(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_flat(binary)


def test_check_validates_every_section() -> None:
    check(defaults())
    for name in SECTIONS:
        with pytest.raises(ConfigError, match=f"{name}.zzz is not a setting"):
            check({f"{name}.zzz": 1})


TEXTS = {  # settings of free text that are never a path; one that may be is of type `Place`
    "backbone.device", "backbone.preprocess", "data.image_column", "data.label_column",
    "data.partitioner", "data.template", "prompt.method", "prompt.domain", "prompt.domains",
    "prompt.init", "server.trackers", "deployment.address", "deployment.host", "node.name",
    "node.server",
}  # fmt: skip
MODELS = [
    *((name, model) for name, model in SECTIONS.items() if name != "prompt"),
    *(("prompt", model) for model in models()),
    ("deployment", DeploymentConfig),
    ("node", NodeConfig),
]
FREE = {
    f"{name}.{key}": model
    for name, model in MODELS
    for key, field in model.model_fields.items()
    if field.annotation is str
}


@pytest.mark.parametrize("key", FREE)
def test_every_setting_that_may_be_a_path_takes_the_home_folder(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new setting of free text is of type `Place`, or is named above."""
    monkeypatch.setenv("HOME", "/home/ann")
    name, _, short = key.partition(".")
    if key in TEXTS:
        return
    for given, expected in {
        "~/x": "/home/ann/x", "~": "/home/ann", "local-dir:~/x": "local-dir:/home/ann/x",
        "a/~/x": "a/~/x", "cat,dog": "cat,dog", "~no-such-user-here/x": "~no-such-user-here/x",
        "hf:~/x": "hf:~/x", "": "",
    }.items():  # fmt: skip
        found = section({key: given}, name, FREE[key])
        assert getattr(found, short) == expected


def test_every_setting_of_free_text_is_looked_at() -> None:
    assert set(FREE) > TEXTS
    assert set(FREE) - TEXTS == {
        "data.source", "data.root", "data.class_names", "backbone.name", "backbone.pretrained",
        "prompt.public", "server.output", "server.sites",
    }  # fmt: skip


def test_a_section_is_frozen_and_takes_only_its_own_keys() -> None:
    found = RunConfig.parse({"prompt.rank": 2, "fit.batch": 3}).prompt
    assert found == prompt_config(rank=2)
    with pytest.raises(ValueError, match="frozen"):
        found.rank = 3


def test_defaults_are_complete_and_flower_can_carry_them() -> None:
    flat = defaults()
    assert {key.partition(".")[0] for key in flat} == set(SECTIONS)
    fit = {key.partition(".")[2] for key in flat if key.startswith("fit.")}
    assert fit == set(FitConfig.model_fields)
    assert all(type(value) in (str, int, float, bool) for value in flat.values())
    assert flat["prompt.method"] == "dip"


def test_flowers_run_config_in_pyproject_states_the_defaults() -> None:
    """Flower refuses an override of a key that the table does not have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    table = project["tool"]["flwr"]["app"]["config"]
    flat = {
        key if not isinstance(value, dict) else f"{key}.{inner}": leaf
        for key, value in table.items()
        for inner, leaf in (value.items() if isinstance(value, dict) else [("", value)])
    }
    assert flat == defaults()
    assert {k: type(v) for k, v in flat.items()} == {k: type(v) for k, v in defaults().items()}


def test_a_setting_of_other_methods_is_refused_but_at_its_default() -> None:
    assert RunConfig.parse(defaults() | {"prompt.method": "linear"}).prompt.method == "linear"
    with pytest.raises(ConfigError, match=r"prompt\.maps = 'transformer' is a setting of mudpt; "):
        RunConfig.parse({"prompt.maps": "transformer"})
    check({"prompt.maps": "transformer"})  # of a method that is named elsewhere
    with pytest.raises(ConfigError, match=r"prompt\.method = 'dipp': did you mean dip\?"):
        RunConfig.parse({"prompt.method": "dipp"})


def test_a_setting_means_the_same_to_every_method_that_takes_it() -> None:
    fields: dict[str, set[str]] = {}
    for model in models():
        for key, field in model.model_fields.items():
            fields.setdefault(key, set()).add(repr((field.annotation, field.default)))
    assert {key for key, kinds in fields.items() if len(kinds) > 1} == set()


def test_it_travels_flat_and_comes_back_the_same() -> None:
    config = RunConfig.parse({"prompt.method": "mudpt", "prompt.freeze_maps": True, "fit.batch": 3})
    assert set(config.flat()) == set(defaults())
    assert RunConfig.parse(config.flat()) == config
    assert hash(config) == hash(RunConfig.parse(config.flat()))
    changed = config.override({"prompt.method": "coop", "prompt.freeze_maps": False})
    assert changed.prompt == prompt_config(method="coop")
    assert changed.server.rule == "product"
