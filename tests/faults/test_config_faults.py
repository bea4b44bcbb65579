"""Settings that are wrong, and paths that lead out of their folder (F33), through the commands."""

import json

import pytest

from fedprompt.settings.run_config import defaults
from tests.doors import passed, refused
from tests.pictures import image_folder

CLASSES = ("blue", "green", "red")
SMALL = ("--set", "backbone.name=embedded-cnn")
VERBS = ("train", "simulate")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path_factory.mktemp("cache")))


def sets(*settings):
    return [part for setting in settings for part in ("--set", setting)]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("fit.learning_rat=0.1", "did you mean fit.learning_rate?"),
        ("fitt.learning_rate=0.1", "did you mean fit.learning_rate?"),
        ("learning_rate=0.1", "belongs to no section"),
        ("fit.learning_rate=nan", "fit.learning_rate = nan: Input should be a finite number"),
        ("fit.learning_rate=inf", "fit.learning_rate = inf"),
        ("fit.learning_rate=1e999", "fit.learning_rate = inf"),
        ("fit.learning_rate=-1", "fit.learning_rate = -1"),
        ("fit.learning_rate=fast", "fit.learning_rate = 'fast'"),
        ("server.clip_factor=nan", "server.clip_factor = nan"),
        ("data.alpha=nan", "data.alpha = nan"),
        ("data.limit=" + "9" * 5000, "data.limit"),
        ("data.limit=" + "[" * 5000, "data.limit"),
        ("server.strategy=fedsgd", "server.strategy = 'fedsgd'"),
        ("prompt.method=cupl", "expected one of dip, dip-fixed, coop, "),
        ("data.partitioner=random", "expected one of"),
        ("data.template=no name", 'expected text with "{}" once'),
        ("data.template=a {} of {}", 'expected text with "{}" once'),
        ("data.template=a {0.__class__} {}", "no other braces"),
    ],
)
def test_F33_a_wrong_setting_is_named_with_what_is_allowed(tmp_path, verb, setting, says):
    refused(2, verb, *sets(setting), "--output", tmp_path / "out", says=says)
    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.parametrize("key", sorted(defaults()))
def test_F33_every_setting_refuses_a_list_and_a_table(tmp_path, key):
    name, _, field = key.partition(".")
    for value in ("[1, 2]", "{ a = 1 }", "2026-01-01"):
        (tmp_path / "run.toml").write_text(f"[{name}]\n{field} = {value}\n")
        says = f"{key}: found"
        refused(2, "train", "--config", tmp_path / "run.toml", says=says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[data]\nalpha = " + "9" * 5000, "is not TOML"),
        ("[data]\nalpha = " + "[" * 5000, "is not TOML"),
        ("[data]\nalpha = 1\nalpha = 2\n", "is not TOML"),
        ("[data]\nalpha = nan\n", "data.alpha = nan"),
        ("\x00", "is not TOML"),
    ],
)
def test_F33_a_hostile_file_is_refused_in_one_line(tmp_path, text, says):
    (tmp_path / "run.toml").write_text(text)
    refused(2, "train", "--config", tmp_path / "run.toml", says=says)


@pytest.mark.parametrize("text", ["[" * 5000, "{", "[]", '{"data.seed": ' + "9" * 5000 + "}"])
def test_F33_a_run_s_settings_that_are_damaged_are_named(tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    refused(2, "export", tmp_path, says="settings.json is damaged")


@pytest.fixture
def tree(tmp_path):
    """Photos, and a secret beside them."""
    image_folder(tmp_path / "photos", CLASSES, 4)
    image_folder(tmp_path / "secret", ("red",), 1)
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "photos" / "link.png").symlink_to(tmp_path / "secret" / "red" / "0.png")
    return tmp_path


def listing(tree, kind, path):
    """Write a manifest of honest rows and one more."""
    rows = [(f"{name}/{n}.png", name) for name in CLASSES for n in range(4)] + [(path, "red")]
    manifest = tree / "photos" / f"list.{kind}"
    if kind == "csv":
        manifest.write_text("path,label\n" + "".join(f'"{p}",{label}\n' for p, label in rows))
    elif kind == "jsonl":
        manifest.write_text("".join(json.dumps({"path": p, "label": n}) + "\n" for p, n in rows))
    else:
        items = [[p, CLASSES.index(label), label] for p, label in rows]
        manifest.write_text(json.dumps({"train": items}))
    return manifest


ESCAPES = ["../secret/red/0.png", "red/../../secret/red/0.png", "link/red/0.png", "link.png"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
@pytest.mark.parametrize("path", [*ESCAPES, "{root}/secret/red/0.png", "/etc/hostname"])
def test_F33_a_manifest_cannot_reach_out_of_its_folder(tree, kind, path):
    manifest = listing(tree, kind, path.format(root=tree))
    settings = sets(f"data.source={manifest}")
    refused(3, "train", *SMALL, *settings, "--output", tree / "out", says="leads out of")


@pytest.mark.parametrize("path", ESCAPES[:2])
def test_F33_nor_out_of_data_root(tree, path):
    manifest = listing(tree, "csv", path)
    (tree / "elsewhere").mkdir()
    moved = manifest.rename(tree / "elsewhere" / "list.csv")
    settings = sets(f"data.source={moved}", f"data.root={tree / 'photos'}")
    refused(3, "train", *SMALL, *settings, "--output", tree / "out", says="leads out of")


def test_F33_a_path_inside_passes(tree):
    """Otherwise a manifest might be refused for anything."""
    manifest = listing(tree, "csv", "red/../red/0.png")
    settings = sets(f"data.source={manifest}", "fit.epochs=1", "data.test_share=0.3")
    passed("train", *SMALL, *settings, "--output", tree / "out")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.txt", "could not be read"),
        ("folder.json", "could not be read"),
        ("/proc/self/mem.json", "could not be read"),
        ("broken.json", "could not be read"),
        ("deep.json", "could not be read"),
        ("number.json", "holds no class names"),
        ("other.txt", "which data.class_names does not list"),
    ],
)
def test_F33_a_class_file_that_is_none(tree, name, says):
    (tree / "folder.json").mkdir()
    (tree / "broken.json").write_bytes(b"\xff\xfe\x00")
    (tree / "deep.json").write_text("[" * 5000)
    (tree / "number.json").write_text("3")
    (tree / "other.txt").write_text("white\nblack\n")
    (tree / "photos" / "link").unlink()
    settings = sets(f"data.source={tree / 'photos'}", f"data.class_names={tree / name}")
    refused(3, "train", *SMALL, *settings, "--output", tree / "out", says=says)


def test_F33_a_link_in_an_image_folder_is_the_owner_s_own(tree):
    """Documents the rule: who made the folder may link; a list from elsewhere may not."""
    (tree / "photos" / "link").unlink()
    settings = sets(f"data.source={tree / 'photos'}")
    passed("train", *SMALL, *settings, "--output", tree / "out")
