import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import export.fold.load
import export.runtime.serving.run
from export.runtime import Classifier, OpenClassifier
from export.runtime.commands import bench as bench_command
from export.runtime.commands import predict, rollback, swap, verify
from export.runtime.commands import predict as predict_command
from export.runtime.commands import serve as serve_command
from export.runtime.commands import verify as verify_command
from export.runtime.open_vocabulary.bundle import Bundle
from export.runtime.serving.service import Service
from export.targets.classifier import Exported
from export.targets.commands import export as export_command
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.command_line import command
from fedprompt.errors import (
    ArtefactError,
    ConfigError,
    DataError,
    FedpromptError,
    GraphError,
    ParityError,
    StorageError,
)
from fedprompt.processes import logs
from fedprompt.prompts.artefacts import to_artefact
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import prompt_config
from tests.classifier_file import write_classifier
from tests.prompts import CLASSES, stir, tuned

TEMPLATE = "a photo of a {}."
COLOURS = ("red", "green")


def call(name: str, function: Any, *arguments: object) -> str:
    result = CliRunner().invoke(command(name, function), [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for index, name in enumerate(COLOURS):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 90, (40, 44, 3), dtype=np.uint8)
                pixels[..., index] += 160
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def artefact(clip: FrozenClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tuned prompt on disk, and the tiny CLIP wherever its name is asked for."""
    config = prompt_config(method="dip", tokens=4, rank=1)
    prompt = build_prompt(config, clip, COLOURS, TEMPLATE)
    stir(prompt, spread=1.0)
    to_artefact(clip, prompt, COLOURS, TEMPLATE, round=1, seed=0).save(tmp_path / "artefact")
    monkeypatch.setattr(export.fold.load, "load_backbone", lambda config: clip)
    return tmp_path / "artefact"


def test_export_then_verify_then_predict(artefact: Path, photos: Path, tmp_path: Path) -> None:
    model = tmp_path / "out" / "classifier.onnx"
    report = json.loads(
        call("export", export_command, artefact, "-o", model, "--data", photos, "--json")
    )
    assert report["parity"]["images"] == 6
    assert report["parity"]["holds"]
    assert report["bytes"] == model.stat().st_size
    names = {"classifier.onnx", "classifier.onnx.md"}
    assert {p.name for p in model.parent.iterdir()} == names
    assert report["card"] == str(model.with_name("classifier.onnx.md"))
    assert "| real images | 6 |" in Path(report["card"]).read_text()
    assert Classifier(model).metadata.artefact_sha256 == Artefact.load(artefact).sha256

    checked = json.loads(call("verify", verify_command, model, "--json"))
    assert checked["probes"]["holds"]
    assert "all allowed" in checked["structure"]

    picture = photos / "test" / "red" / "0.png"
    found = json.loads(call("predict", predict_command, model, picture, "--json"))
    assert found["providers"] == ["CPUExecutionProvider"]
    assert found["results"][0]["image"] == str(picture)
    assert {p["class"] for p in found["results"][0]["predictions"]} == set(COLOURS)

    with Image.open(picture) as image:
        width, height = image.size
    call("predict", predict_command, model, picture, "--pixels", width * height)
    with pytest.raises(DataError, match="--pixels of `fedprompt predict`"):
        call("predict", predict_command, model, picture, "--pixels", width * height - 1)


def test_a_run_s_folder_will_do_and_lines_are_for_people(artefact: Path, tmp_path: Path) -> None:
    model = tmp_path / "c.onnx"
    text = call("export", export_command, artefact.parent, "-o", model, "--target", "gpu")
    assert "give --data" in text
    assert text.endswith(f"model card: {model}.md\n")
    assert "operators, ort, fp32" in text
    assert "8 images" in call("verify", verify_command, model)


def test_int8_is_judged_on_labels_and_verified_by_its_own_bounds(
    artefact: Path, photos: Path, tmp_path: Path
) -> None:
    model, plain = tmp_path / "int8.onnx", tmp_path / "fp32.onnx"
    options = ("--data", photos, "--json")
    found = call("export", export_command, artefact, "-o", model, "--precision", "int8", *options)
    report = json.loads(found)
    call("export", export_command, artefact, "-o", plain, *options)
    assert report["parity"]["loss"] == 0
    assert (report["precision"], report["flavour"]) == ("int8", "portable")
    assert [rung["step"].partition(",")[0] for rung in report["ladder"]] == ["fp32", "int8-dynamic"]
    assert model.stat().st_size < 0.6 * plain.stat().st_size
    checked = json.loads(call("verify", verify_command, model, "--json"))
    assert checked["precision"] == "int8"
    assert checked["probes"]["holds"]
    assert checked["probes"]["largest"] > 1e-3
    assert checked["ladder"] == report["ladder"]


def test_a_precision_without_kernels_or_images_is_refused(artefact: Path, tmp_path: Path) -> None:
    def ask(*options: str) -> str:
        return call("export", export_command, artefact, "-o", tmp_path / "c.onnx", *options)

    with pytest.raises(ConfigError, match="cpu has no bf16"):
        ask("--precision", "bf16")
    with pytest.raises(GraphError, match="give --data"):
        ask("--target", "gpu", "--precision", "int8")
    assert not (tmp_path / "c.onnx").exists()


def test_a_name_that_triton_refuses_leaves_nothing(artefact: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name of a Triton model"):
        call("export", export_command, artefact, "--target", "triton", "-o", tmp_path / "my ward")
    assert not (tmp_path / "my ward").exists()


def test_a_repository_for_triton(artefact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "colours"
    arguments = ("-o", folder, "--target", "triton", "--tensorrt")
    report = json.loads(call("export", export_command, artefact, *arguments, "--json"))
    assert report["output"] == str(folder / "1" / "model.onnx")
    assert 'name: "tensorrt"' in (folder / "config.pbtxt").read_text()
    assert (folder / "labels.txt").read_text().split() == list(COLOURS)
    assert "1/model.onnx" in (folder / "README.md").read_text()
    assert report["card"] == str(folder / "README.md")
    assert json.loads(call("verify", verify_command, folder, "--json"))["probes"]["holds"]
    assert json.loads(call("verify", verify_command, report["output"], "--json"))["probes"]["holds"]


def test_a_page_for_browsers(
    artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import export.targets.web.folder

    monkeypatch.setattr(export.targets.web.folder, "runtime_files", lambda: {"wasm.js": b"module"})
    page = tmp_path / "page"
    arguments = (artefact, "--target", "web", "-o", page, "--json")
    report = json.loads(call("export", export_command, *arguments))
    assert report["flavour"] == "portable"
    files = [path for path in page.rglob("*") if path.is_file()]
    assert report["output"] == str(page / "classifier.onnx")
    assert {path.name for path in files} >= {"classifier.onnx", "index.html", "wasm.js"}
    assert report["card"] == str(page / "README.md")
    assert json.loads(call("verify", verify_command, page, "--json"))["probes"]["holds"]
    assert f"{page}: a page for any static web server" in call(
        "export", export_command, *arguments[:-1]
    )


def test_f32_a_breach_ends_the_command_and_force_is_recorded(
    artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import export.parity.check

    original = export.parity.check.reference_logits
    monkeypatch.setattr(export.parity.check, "reference_logits", lambda *a: original(*a) + 1)
    model = tmp_path / "c.onnx"
    with pytest.raises(ParityError):
        call("export", export_command, artefact, "-o", model)
    assert not model.exists()
    assert "forced" in call("export", export_command, artefact, "-o", model, "--force")
    assert "forced" in call("verify", verify_command, model)


def test_a_readme_of_somebody_else_stops_the_export(artefact: Path, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    readme = tmp_path / "project" / "README.md"
    readme.write_text("# My project\n")
    with pytest.raises(StorageError, match=r"README\.md is there"):
        call("export", export_command, artefact, "--target", "triton", "-o", readme.parent)
    assert list(readme.parent.iterdir()) == [readme]


def test_another_clip_is_refused(artefact: Path, tiny_clip: Any, tmp_path: Path) -> None:
    other = tiny_clip(quick_gelu=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.fold.load, "load_backbone", lambda config: other)
        with pytest.raises(ArtefactError, match="tuned for backbone tiny"):
            call("export", export_command, artefact, "-o", tmp_path / "c.onnx")
    assert not (tmp_path / "c.onnx").exists()


def test_a_file_that_does_not_answer_as_before_fails_verification(
    written: Exported, tmp_path: Path
) -> None:
    probes = Classifier(written.path).metadata.probes
    assert probes is not None
    old = f'"seed":{probes.seed}'.encode()
    path = tmp_path / "c.onnx"
    path.write_bytes(written.path.read_bytes().replace(old, b'"seed":9'))
    with pytest.raises(ParityError, match=r"expected at most 0\.001"):
        call("verify", verify_command, path)


def test_a_bad_image_does_not_stop_the_others(written: Exported, tmp_path: Path) -> None:
    paths = []
    for index in range(3):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 40), (index, 0, 0)).save(buffer, "PNG")
        paths.append(tmp_path / f"{index}.png")
        paths[-1].write_bytes(buffer.getvalue() if index != 1 else b"no image")
    runner = CliRunner()
    arguments = [str(written.path), *map(str, paths), "--json"]
    result = runner.invoke(command("predict", predict_command), arguments)
    assert isinstance(result.exception, DataError)
    assert "1 of 3 images" in str(result.exception)
    report = json.loads(result.stdout)
    assert [r["image"] for r in report["results"]] == [str(paths[0]), str(paths[2])]
    assert report["errors"][0]["image"] == str(paths[1])
    lines = runner.invoke(command("predict", predict_command), [str(written.path), str(paths[0])])
    assert "%" in lines.stdout


def test_a_class_name_is_shown_as_text_on_one_line(
    clip: FrozenClip, constants: Any, tmp_path: Path
) -> None:
    none, names = np.zeros((0, 32, 32, 3), np.uint8), ("\x1b[2Ja", "b\nall is well", "c", "d", "e")
    model, photo = tmp_path / "c.onnx", tmp_path / "x.png"
    write_classifier(model, clip, constants, names, none, artefact_sha256="")
    Image.new("RGB", (40, 40)).save(photo)
    shown = call("predict", predict_command, model, photo)
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 2
    assert "b\N{REPLACEMENT CHARACTER}all is well" in shown


@pytest.mark.parametrize("function", [verify_command, predict_command])
def test_files_that_are_missing_are_named(function: Any, tmp_path: Path) -> None:
    extra = [tmp_path / "x.png"] if function is predict_command else []
    with pytest.raises(FedpromptError, match=r"no\.onnx"):
        call("x", function, tmp_path / "no.onnx", *extra)


def test_a_bundle_is_timed_as_a_file_is(exported_bundle: Path) -> None:
    arguments = (exported_bundle, "--batch", 2, "--threads", 1, "--seconds", 0.001, "--json")
    report = json.loads(call("bench", bench_command, *arguments))
    assert report["bytes"] == (exported_bundle / "classifier.onnx").stat().st_size
    assert [m["source"] for m in report["measured"]] == ["images", "jpeg"]


def test_bench_names_the_machine_and_every_combination(written: Exported) -> None:
    arguments = (written.path, "--batch", 1, "--batch", 2, "--threads", 1, "--seconds", 0.001)
    report = json.loads(call("bench", bench_command, *arguments, "--json"))
    assert [(m["source"], m["batch"], m["threads"]) for m in report["measured"]] == [
        (source, batch, 1) for batch in (1, 2) for source in ("images", "jpeg")
    ]
    assert report["machine"]["processor"]
    assert report["providers"] == ["CPUExecutionProvider"]
    lines = call("bench", bench_command, *arguments).splitlines()
    assert len(lines) == 3 + 4
    assert "p99 ms" in lines[2]


def test_the_version_before_is_served_and_told(bundle: Path) -> None:
    opened = Bundle(bundle)
    opened.commit(replace(opened.state(1), vectors=-opened.state(1).vectors))
    done = CliRunner().invoke(command("rollback", rollback), [str(bundle)])
    assert done.exit_code == 0
    assert done.stdout == f"{bundle} serves version 1, 3 classes\n"
    assert Bundle(bundle).manifest.current == 1


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 44, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_export_verify_predict_swap_roll_back(
    clip: FrozenClip, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.fold.load, "load_backbone", lambda config: clip)
    for seed in (0, 1):
        tuned(clip, seed=seed).save(tmp_path / f"run-{seed}" / "artefact")
    bundle, runs = tmp_path / "bundle", [tmp_path / "run-0", tmp_path / "run-1"]
    written = json.loads(
        call("command", export_command, runs[0], "--open-vocabulary", "-o", bundle, "--json")
    )
    assert written["output"] == str(bundle)
    assert written["card"] == str(bundle / "README.md")
    assert written["class_vectors_largest"] < 1e-5
    checked = json.loads(call("command", verify, bundle, "--json"))
    assert checked["probes"]["holds"]
    assert checked["structure"].count("all allowed") == 2
    assert "class vectors: largest difference" in call("command", verify, bundle)

    found = json.loads(
        call("command", predict, bundle, photo, "--add-class", "red panda", "--json")
    )
    [result] = found["results"]
    assert {p["class"] for p in result["predictions"]} == {*CLASSES, "red panda"}

    before = call("command", predict, bundle, photo, "--json")
    swapped = json.loads(call("command", swap, bundle, runs[1], "--json"))
    assert swapped["version"] == 2
    assert swapped["artefact_sha256"] == tuned(clip, seed=1).sha256
    assert call("command", predict, bundle, photo, "--json") != before
    back = json.loads(call("command", rollback, bundle, "--json"))
    assert back["version"] == 1
    assert back["artefact_sha256"] == tuned(clip).sha256
    assert call("command", predict, bundle, photo, "--json") == before
    assert "version 3" in call("command", swap, bundle, runs[1])


def test_what_is_wrong_is_said(bundle: Path, clip: FrozenClip, tmp_path: Path, photo: Path) -> None:
    tuned(clip, "coop").save(tmp_path / "artefact")
    with pytest.raises(ArtefactError, match="method is coop, the bundle's dip"):
        call("command", swap, bundle, tmp_path / "artefact")
    with pytest.raises(GraphError, match="none before it"):
        call("command", rollback, bundle)
    with pytest.raises(DataError, match="a class name is empty"):
        call("command", predict, bundle, photo, "--add-class", "__")
    with pytest.raises(DataError, match="takes no --add-class"):
        call("command", predict, bundle / "classifier.onnx", photo, "--add-class", "owl")


def test_class_vectors_that_drift_fail_verification(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import export.parity.verify

    monkeypatch.setattr(export.parity.verify, "_VECTOR_BOUND", -1.0)
    with pytest.raises(ParityError, match="class vectors differ"):
        call("command", verify, bundle)
    assert Bundle(bundle).manifest.current == 1


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Service, str, int]]:
    """What the command would run; this process's own log stays as it is."""
    found: list[tuple[Service, str, int]] = []

    def run(service: Service, host: str, port: int) -> None:
        found.append((service, host, port))
        service.close()

    monkeypatch.setattr(export.runtime.serving.run, "run", run)
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)
    return found


def serve_with(*arguments: object) -> None:
    result = CliRunner().invoke(command("serve", serve_command), [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


def test_options_become_limits_and_the_first_call_is_paid_before(
    served: list[Any], classifier_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[int] = []
    monkeypatch.setattr(Classifier, "warm_up", lambda self, size: warmed.append(size))
    options = ("--megabytes", 1.5, "--pixels", 1000, "--seconds", 2, "--threads", 1)
    serve_with(classifier_file, "--address", "[::1]:8123", *options)
    [(service, host, port)] = served
    assert (host, port) == ("::1", 8123)
    limits = service.limits
    assert (limits.max_bytes, limits.max_pixels, limits.seconds) == (1_500_000, 1000, 2.0)
    assert warmed == [limits.batch]


def test_a_bundle_is_served_in_the_version_it_names(
    served: list[Any], bundle: Path, clip: FrozenClip
) -> None:
    changed = OpenClassifier(bundle, threads=1)
    changed.add_class("owl")
    changed.save()
    serve_with(bundle, "--threads", 1)
    service: Service = served[0][0]
    assert service.classifier.classes == (*CLASSES, "owl")
    told = service.describe()
    assert (told["classes"], told["artefact_sha256"]) == (4, tuned(clip).sha256)


def test_nobody_else_is_listened_to_by_default(served: list[Any], classifier_file: Path) -> None:
    serve_with(classifier_file, "--threads", 1)
    assert served[0][1] == "127.0.0.1"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--address", "8080"), ConfigError),
        (("--pixels", 0), ConfigError),
        (("--megabytes", 0), ConfigError),
        (("--megabytes", "nan"), ConfigError),
        (("--megabytes", "inf"), ConfigError),
        (("--seconds", "inf"), ConfigError),
        (("--provider", "gpu"), FedpromptError),
    ],
)
def test_what_cannot_be_is_refused_before_anything_listens(
    served: list[Any], classifier_file: Path, options: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        serve_with(classifier_file, *options)
    assert served == []


def test_a_file_that_is_missing_is_named(served: list[Any], tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"no\.onnx"):
        serve_with(tmp_path / "no.onnx")
