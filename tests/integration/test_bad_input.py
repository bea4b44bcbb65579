"""Bad input to a command: one clear line, its exit code, nothing written half (issue 2)."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fedprompt.artefact import CONFIG, WEIGHTS
from fedprompt.backbone.load import load_backbone
from fedprompt.cli import group
from fedprompt.prompts.artefacts import to_artefact
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import prompt_config
from fedprompt.settings.backbone import BackboneConfig
from tests.pictures import image_folder

CLASSES, TEMPLATE = ("blue", "green", "red"), "a photo of a {}."
SMALL = ("--set", "backbone.name=embedded-cnn")
RUN = (*SMALL, "--set", "data.clients=2", "--set", "server.rounds=1")
LEARN = ("simulate", "train")  # the verbs that read images and leave a folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "photos", CLASSES, 4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artefact")
    clip = load_backbone(BackboneConfig(name="embedded-cnn"))
    prompt = build_prompt(prompt_config(), clip, CLASSES, TEMPLATE)
    to_artefact(clip, prompt, CLASSES, TEMPLATE, round=0, seed=0).save(folder)
    return folder


@pytest.fixture
def artefact(saved: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may spoil."""
    (tmp_path / "artefact").mkdir()
    for name in (CONFIG, WEIGHTS):
        (tmp_path / "artefact" / name).write_bytes((saved / name).read_bytes())
    return tmp_path / "artefact"


def refused(code: int, *arguments: object, says: str) -> Result:
    """Run a command and check how it is refused."""
    done = CliRunner().invoke(group, [str(a) for a in arguments])
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    [line] = [text for text in done.stderr.splitlines() if text.startswith("fedprompt: ")]
    assert says in line, line
    assert "Traceback" not in done.output
    assert done.stdout == ""
    return done


def left(folder: Path) -> set[str]:
    """Return what a refused command left, without what a run tells of its own failure."""
    told = {"outcome.json", "settings.json"}
    return {path.name for path in folder.rglob("*") if path.is_file()} - told


def learn(verb: str, source: object, output: Path, *settings: str) -> list[object]:
    sets = [part for setting in settings for part in ("--set", setting)]
    return [verb, *(RUN if verb == "simulate" else SMALL), "--set", f"data.source={source}", *sets,
            "--output", output]  # fmt: skip


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def empty_class(folder: Path) -> Path:
    root = image_folder(folder / "photos", CLASSES, 4)
    (root / "white").mkdir()
    return root


def one_class(folder: Path) -> Path:
    return image_folder(folder / "photos", ("red",), 4)


def unreadable(folder: Path) -> Path:
    root = image_folder(folder / "photos", CLASSES, 4)
    (root / "red" / "0.png").write_bytes(b"no image")
    (root / "blue" / "1.png").write_bytes((root / "blue" / "1.png").read_bytes()[:40])
    return root


def broken_manifest(folder: Path) -> Path:
    (folder / "list.csv").write_text("path,label\nmissing.png,cat\nother.png,dog\n")
    return folder / "list.csv"


@pytest.mark.parametrize("verb", LEARN)
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda folder: folder / "nowhere",
            "does not exist; expected fashion-mnist, emoji, a folder",
        ),
        (empty, "empty"),
        (empty_class, "white"),
        (one_class, "red"),
        (unreadable, "images cannot be read"),
        (broken_manifest, "missing.png"),
    ],
)
def test_images_that_cannot_be_used(
    tmp_path: Path, verb: str, make: Callable[[Path], Path], says: str
) -> None:
    refused(3, *learn(verb, make(tmp_path), tmp_path / "out"), says=says)
    assert left(tmp_path / "out") == set()


@pytest.mark.parametrize("verb", LEARN)
@pytest.mark.parametrize(
    ("setting", "code", "says"),
    [
        ("data.lmit=3", 2, "data.lmit is not a setting: did you mean data.limit?"),
        ("promt.rank=3", 2, "belongs to no section; did you mean prompt.rank?"),
        ("rank=3", 2, "belongs to no section; did you mean prompt.rank?"),
        ("prompt.rank=two", 2, "prompt.rank = 'two'"),
        ("prompt.rank=0", 2, "prompt.rank = 0"),
        ("fit.learning_rate=nan", 2, "fit.learning_rate = nan"),
        ("prompt.rank", 2, "found no '='"),
        ("prompt.rank=5", 5, "rank"),
        ("data.class_names=red\\,green", 3, "class_names"),
        ("backbone.name=ViT-Z-16", 4, "'ViT-Z-16' is unknown"),
        ("backbone.name=ViT-B-16", 4, "has no weights"),
        ("backbone.device=cuda:99", 4, "backbone.device"),
        ("prompt.method=cupl", 2, "prompt.method = 'cupl'"),
    ],
)
def test_settings_that_do_not_fit(
    tmp_path: Path, photos: Path, verb: str, setting: str, code: int, says: str
) -> None:
    refused(code, *learn(verb, photos, tmp_path / "out", setting.replace("\\", "")), says=says)
    assert left(tmp_path / "out") == set()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "could not be read: No such file"),
        ("[data\n", "is not TOML"),
        ("alpha = 1\n", "stands outside a section"),
        ("[data]\nalpha = [1]\n", "expected a scalar"),
        ("[data]\nalpa = 1\n", "did you mean data.alpha?"),
        ("[dat]\nalpha = 1\n", "belongs to no section; did you mean data.alpha?"),
    ],
)
@pytest.mark.parametrize("verb", ["simulate", "train", "eval"])
def test_config_files(tmp_path: Path, verb: str, content: str | None, says: str) -> None:
    path = tmp_path / "my.toml"
    if content is not None:
        path.write_text(content)
    refused(2, verb, "--config", path, says=says)


def test_classes_that_differ_from_the_prompts(artefact: Path, tmp_path: Path) -> None:
    other = image_folder(tmp_path / "other", ("blue", "green", "white"), 4)
    source = ("--set", f"data.source={other}")
    refused(3, "eval", artefact, *source, says="they differ in ['red', 'white']")


@pytest.mark.parametrize("verb", ["eval", "export"])
def test_an_artefact_that_is_not_there(tmp_path: Path, verb: str) -> None:
    refused(6, verb, tmp_path / "nowhere", says="nowhere")


@pytest.mark.parametrize("verb", ["eval", "export"])
@pytest.mark.parametrize(
    ("spoilt", "says"),
    [("weights", "sha256"), ("backbone", "tuned for backbone"), ("json", "adapter_config.json")],
)
def test_a_hash_that_does_not_fit(
    artefact: Path, photos: Path, tmp_path: Path, verb: str, spoilt: str, says: str
) -> None:
    config = json.loads((artefact / CONFIG).read_text())
    if spoilt == "weights":
        content = bytearray((artefact / WEIGHTS).read_bytes())
        content[-1] ^= 1
        (artefact / WEIGHTS).write_bytes(content)
    elif spoilt == "backbone":
        config["backbone"]["sha256"] = "0" * 64
        (artefact / CONFIG).write_text(json.dumps(config))
    else:
        (artefact / CONFIG).write_text("{")
    output = ("-o", tmp_path / "out" / "c.onnx") if verb == "export" else ()
    refused(6, verb, artefact, *output, "--set", f"data.source={photos}", says=says)
    assert left(tmp_path / "out") == set()


@pytest.mark.parametrize("verb", ["verify", "predict"])
@pytest.mark.parametrize("content", [None, b"", b"no graph"])
def test_a_classifier_that_is_none(tmp_path: Path, verb: str, content: bytes | None) -> None:
    model = tmp_path / "c.onnx"
    if content is not None:
        model.write_bytes(content)
    more = [tmp_path / "x.png"] if verb == "predict" else []
    refused(11, verb, model, *more, says="c.onnx")


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = CliRunner().invoke(group, ["report", str(tmp_path / "run"), "--output", str(page)])
    assert done.exit_code not in (0, 1)
    assert done.stderr.startswith("fedprompt: ")
    assert not page.exists()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing out of this process."""

    def refuse(*address: object, **options: object) -> None:
        raise OSError(101, "Network is unreachable")

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("verb", LEARN)
def test_a_dataset_of_the_hub_without_internet(offline: None, tmp_path: Path, verb: str) -> None:
    refused(3, *learn(verb, "hf:no/such", tmp_path / "out"), says="hf:no/such")
    assert left(tmp_path / "out") == set()


@pytest.mark.slow
@pytest.mark.parametrize("verb", LEARN)
def test_a_backbone_of_the_hub_without_internet(
    offline: None, tmp_path: Path, photos: Path, verb: str
) -> None:
    command = learn(verb, photos, tmp_path / "out", "backbone.name=hf-hub:no/such")
    refused(4, *command, says="use backbone.name = embedded")
    assert left(tmp_path / "out") == set()


@pytest.mark.parametrize("verb", LEARN)
def test_an_output_that_is_a_file(tmp_path: Path, photos: Path, verb: str) -> None:
    (tmp_path / "out").write_text("mine")
    refused(12, *learn(verb, photos, tmp_path / "out"), says="out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ((), 2, "holds an earlier run up to round-00001; continue it with --resume"),
        (
            ("--resume", "--set", "fit.learning_rate=0.5"),
            7,
            "with other settings: fit.learning_rate",
        ),
        (("--resume", "--set", "data.lmit=1"), 2, "data.lmit is not a setting"),
    ],
)
def test_an_earlier_run_stays_as_it_was(
    photos: Path, tmp_path: Path, more: tuple[str, ...], code: int, says: str
) -> None:
    run = learn("simulate", photos, tmp_path / "out")
    assert CliRunner().invoke(group, [str(a) for a in run]).exit_code == 0

    def kept() -> dict[Path, bytes]:
        files = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
        told = () if code == 2 else ("outcome.json",)  # another process may wait for it
        return {path: path.read_bytes() for path in files if path.name not in told}

    before = kept()
    refused(code, *run, *more, says=says)
    assert kept() == before
