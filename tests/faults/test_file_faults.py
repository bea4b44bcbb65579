"""Files that are damaged, hostile or cannot be written (F22-F26, F32), through the commands."""

import contextlib
import gc
import io
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import export.parity.check
from export.runtime import Classifier
from export.runtime.metadata import GraphMetadata
from fedprompt.artefact import CONFIG, WEIGHTS, Artefact
from fedprompt.backbone.load import load_backbone
from fedprompt.errors import ArtefactError, BackboneError, GraphError, StorageError
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.prompts.artefacts import to_artefact
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import prompt_config
from fedprompt.settings.backbone import BackboneConfig
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from server.run_folder.checkpoint import decode, load_latest
from tests.doors import passed, refused
from tests.hostile_graphs import hostile_graph
from tests.pictures import image_folder
from tests.sites import client, config, start, task

CLASSES, TEMPLATE = ("blue", "green", "red"), "a photo of a {}."
SMALL = ("--set", "backbone.name=embedded-cnn")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An artefact and its classifier file, made by the command."""
    folder = tmp_path_factory.mktemp("saved")
    clip = load_backbone(BackboneConfig(name="embedded-cnn"))
    prompt = build_prompt(prompt_config(), clip, CLASSES, TEMPLATE)
    to_artefact(clip, prompt, CLASSES, TEMPLATE, round=0, seed=0).save(folder / "artefact")
    passed("export", folder / "artefact", *SMALL, "-o", folder / "classifier.onnx")
    return folder


@pytest.fixture
def artefact(saved, tmp_path):
    return shutil.copytree(saved / "artefact", tmp_path / "artefact")


def rounds(folder, **changes):
    """Run or resume the toy federation in a folder."""
    chosen = config(folder, **({"rounds": 2, "strategy": "fedadam"} | changes))
    with LocalGrid(client(), 3, {}) as grid:
        return Rounds(grid, task(start(rank=2)), chosen, 3).run()


# F22


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    rounds(folder)
    return folder


@pytest.mark.slow
def test_F22_every_byte_and_every_length_is_covered_by_the_hash(checkpoints, tmp_path, caplog):
    """Flip one bit of each byte, cut at each length: the round before is taken, and named."""
    copy = Path(shutil.copytree(checkpoints / "checkpoints", tmp_path / "checkpoints"))
    newest = copy / "round-00002.safetensors"
    data = newest.read_bytes()
    run = decode(newest).run
    caplog.set_level(logging.WARNING)
    damaged = [data[:length] for length in range(len(data))]
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    for content in damaged:
        newest.write_bytes(content)
        caplog.clear()
        found = load_latest(copy, run)
        assert found is not None
        assert found.round == 1
        assert "round-00002.safetensors" in caplog.text
        assert "round-00001.safetensors, the last good checkpoint" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.99])
def test_F22_a_run_goes_on_from_the_round_before(checkpoints, tmp_path, share):
    copy = Path(shutil.copytree(checkpoints, tmp_path / "run"))
    newest = copy / "checkpoints" / "round-00002.safetensors"
    whole = newest.read_bytes()
    newest.write_bytes(whole[: int(share * len(whole))])
    rounds(copy, resume=True)
    assert newest.read_bytes() == whole


# F23


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 512 kB; None where it may not be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "fedprompt-test", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("a file system may not be mounted here; RLIMIT_FSIZE is tested below")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk):
    with (disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_F23_a_full_disk_keeps_the_old_classifier(saved, tiny_disk):
    output = tiny_disk / "classifier.onnx"
    output.write_bytes(b"the old one")
    fill(tiny_disk)
    before = everything(tiny_disk)
    refused(12, "export", saved / "artefact", *SMALL, "-o", output, says="No space left")
    assert everything(tiny_disk) == before


def test_F23_a_full_disk_keeps_the_old_artefact(saved, tiny_disk):
    shutil.copytree(saved / "artefact", tiny_disk / "artefact")
    before = everything(tiny_disk / "artefact")
    found = Artefact.load(tiny_disk / "artefact")
    fill(tiny_disk)
    with pytest.raises(StorageError, match="No space left"):
        Artefact(found.tensors, found.metadata | {"round": 9}).save(tiny_disk / "artefact")
    assert everything(tiny_disk / "artefact") == before
    (tiny_disk / "ballast").unlink()
    assert Artefact.load(tiny_disk / "artefact").sha256 == found.sha256


def test_F23_a_disk_that_fills_during_a_run_keeps_its_rounds(tiny_disk, tmp_path):
    rounds(tiny_disk / "run", rounds=1)
    fill(tiny_disk)
    with pytest.raises(StorageError, match="No space left"):
        rounds(tiny_disk / "run", resume=True)
    (tiny_disk / "ballast").unlink()
    rounds(tiny_disk / "run", resume=True)
    rounds(tmp_path / "whole")
    name = Path("checkpoints", "round-00002.safetensors")
    assert (tiny_disk / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_F23_a_read_only_folder_is_refused(saved, tiny_disk, tmp_path):
    (tiny_disk / "classifier.onnx").write_bytes(b"the old one")
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    output = tiny_disk / "classifier.onnx"
    refused(12, "export", saved / "artefact", *SMALL, "-o", output, says="Read-only file system")
    assert output.read_bytes() == b"the old one"
    photos = image_folder(tmp_path / "photos", CLASSES, 4)
    source = ("--set", f"data.source={photos}", "--set", "data.clients=2")
    output = tiny_disk / "run"
    refused(12, "simulate", *SMALL, *source, "--output", output, says="Read-only file system")


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from pathlib import Path
from fedprompt.errors import StorageError
from fedprompt.storage import write_atomic
try:
    write_atomic(Path(sys.argv[2]), bytes(100_000))
except StorageError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_F23_a_file_that_may_not_grow_leaves_the_old_one(tmp_path):
    """Needs no mount: the kernel stops the write in the middle of the temporary file."""
    target = tmp_path / "classifier.onnx"
    target.write_bytes(b"the old one")
    command = [sys.executable, "-c", LIMITED, "50000", str(target)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 12, done.stderr
    assert "File too large; nothing was changed" in done.stdout
    assert everything(tmp_path) == {target: b"the old one"}


# F24


class Payload:
    """Create a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _torch(payload, **options):
    file = io.BytesIO()
    torch.save({"state_dict": payload}, file, **options)
    return file.getvalue()


def _numpy(payload, save):
    file = io.BytesIO()
    save(file, np.array([payload], dtype=object))
    return file.getvalue()


HOSTILE = {
    "pickle": lambda payload: pickle.dumps(payload),
    "pickle-0": lambda payload: pickle.dumps(payload, protocol=0),
    "pt": lambda payload: _torch(payload),
    "old-pt": lambda payload: _torch(payload, _use_new_zipfile_serialization=False),
    "npz": lambda payload: _numpy(payload, np.savez),
    "npy": lambda payload: _numpy(payload, np.save),
}


@pytest.fixture(params=HOSTILE)
def hostile(request, tmp_path):
    """Bytes that create a folder when they are unpickled; checked when the test is done."""
    trap = tmp_path / "trap"
    yield HOSTILE[request.param](Payload(trap))
    assert not trap.exists(), "the payload ran"


def test_F24_the_payload_is_real(tmp_path):
    """Otherwise nothing below would show anything."""
    for name, make in HOSTILE.items():
        trap = tmp_path / name
        content = make(Payload(trap))
        if "pickle" in name:
            pickle.loads(content)  # noqa: S301 (our own bytes, on purpose)
        elif "pt" in name:
            torch.load(io.BytesIO(content), weights_only=False)
        else:
            found = np.load(io.BytesIO(content), allow_pickle=True)
            _ = found["arr_0"] if name == "npz" else found
        assert trap.exists(), name


@pytest.mark.parametrize("verb", ["eval", "export"])
@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_F24_as_an_artefact_s_file(hostile, artefact, tmp_path, verb, name):
    (artefact / name).write_bytes(hostile)
    if name == WEIGHTS:
        described = json.loads((artefact / CONFIG).read_text())
        described["weights_sha256"] = sha256_bytes(hostile)
        (artefact / CONFIG).write_bytes(canonical_json(described))
    output = ("-o", tmp_path / "c.onnx") if verb == "export" else ()
    refused(6, verb, artefact, *SMALL, *output, says="")


@pytest.mark.parametrize("name", ["adapter_model.bin", "prompt.pt", "prompt.npz"])
def test_F24_in_place_of_an_artefact_s_weights(hostile, artefact, name):
    (artefact / WEIGHTS).unlink()
    (artefact / name).write_bytes(hostile)
    refused(6, "export", artefact, *SMALL, says=f"{name} is never opened (pickle)")


def test_F24_as_a_checkpoint(hostile, tmp_path):
    photos = image_folder(tmp_path / "photos", CLASSES, 4)
    path = tmp_path / "out" / "checkpoints" / "round-00001.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(hostile)
    settings = ("--set", f"data.source={photos}", "--set", "data.clients=2")
    output = ("--output", tmp_path / "out", "--resume")
    refused(7, "simulate", *SMALL, *settings, *output, says="all checkpoints")
    assert path.read_bytes() == hostile


@pytest.mark.parametrize("name", ["model.pt", "model.bin", "model.npz", "model.safetensors"])
def test_F24_as_a_backbone_s_weights(hostile, tmp_path, name):
    (tmp_path / name).write_bytes(hostile)
    smallest = "ViT-S-32-alt"
    with pytest.raises(BackboneError, match=r"damaged|more than tensors|arrays alone") as told:
        load_backbone(BackboneConfig(name=smallest, pretrained=str(tmp_path / name)))
    assert "weights_only" not in str(told.value)
    del told
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # open_clip leaves an .npz file open
        gc.collect()


def test_F24_as_a_backbone_s_weights_by_the_command(tmp_path):
    trap = tmp_path / "trap"
    (tmp_path / "model.pt").write_bytes(HOSTILE["pt"](Payload(trap)))
    photos = image_folder(tmp_path / "photos", CLASSES, 4)
    sets = ("backbone.name=ViT-S-32-alt", f"backbone.pretrained={tmp_path / 'model.pt'}")
    settings = [part for text in (*sets, f"data.source={photos}") for part in ("--set", text)]
    refused(4, "train", *settings, "--output", tmp_path / "out", says="more than tensors")
    assert not trap.exists()


@pytest.mark.parametrize("name", ["names.txt", "names.json"])
def test_F24_as_class_names(hostile, tmp_path, name):
    (tmp_path / name).write_bytes(hostile)
    photos = image_folder(tmp_path / "photos", CLASSES, 4)
    settings = ("--set", f"data.source={photos}", "--set", f"data.class_names={tmp_path / name}")
    refused(3, "train", *SMALL, *settings, "--output", tmp_path / "out", says="class")


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl", "list.json"])
def test_F24_as_a_manifest(hostile, tmp_path, name):
    (tmp_path / name).write_bytes(hostile)
    settings = ("--set", f"data.source={tmp_path / name}")
    refused(3, "train", *SMALL, *settings, "--output", tmp_path / "out", says=name)


def test_F24_as_a_classifier_a_configuration_and_an_image(hostile, saved, tmp_path):
    path = tmp_path / "file.onnx"
    path.write_bytes(hostile)
    for verb in ("verify", "predict"):
        refused(11, verb, path, *([path] if verb == "predict" else []), says="file.onnx")
    refused(2, "train", "--config", path, says="file.onnx")
    refused(3, "predict", saved / "classifier.onnx", path, says="could not be read")


# F25


def _safetensors(header, data):
    text = header.encode()
    return len(text).to_bytes(8, "little") + text + data


def _entry(shape, begin=0, name="ctx.A"):
    sides = ",".join(map(str, shape))
    offsets = f'"data_offsets":[{begin},{begin + 4}]'
    return f'"{name}":{{"dtype":"F32","shape":[{sides}],{offsets}}}'


def _floats(*entries, values=(0.0,)):
    return _safetensors(f"{{{','.join(entries)}}}", np.array(values, np.float32).tobytes())


BAD_TENSORS = {
    "duplicate": (_floats(_entry([1]), _entry([1], 4), values=(0, 0)), "twice"),
    "none": (_floats(values=()), "no tensors"),
    "metadata-only": (_floats('"__metadata__":{"a":"b"}', values=()), "no tensors"),
    "nan": (_floats(_entry([1]), values=[np.nan]), "NaN"),
    "infinity": (_floats(_entry([1]), values=[-np.inf]), "NaN, infinity"),
    "bomb": (_floats(_entry([10**6, 10**6])), "declares"),
    "many-digits": (_floats(_entry(["1" + "0" * 4000])), "a shape of at most"),
    "many-sides": (_floats(_entry([9] * 300_000)), "a shape of at most"),
    "many-names": (_floats(*(f'"{n % 79_999}":{{}}' for n in range(80_000))), "twice"),
}


@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_F25_tensors_that_the_library_would_take_are_refused(artefact, kind):
    content, says = BAD_TENSORS[kind]
    (artefact / WEIGHTS).write_bytes(content)
    described = json.loads((artefact / CONFIG).read_text())
    described["weights_sha256"] = sha256_bytes(content)
    (artefact / CONFIG).write_bytes(canonical_json(described))
    refused(6, "export", artefact, *SMALL, says=says)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("template", "a {0.__class__.__init__.__globals__} {}", "no other braces"),
        ("template", "a {:>999999999}", "no other braces"),
        ("template", "no place for a name", "no other braces"),
        ("method", "os.system", "describes no prompt that is known"),
        ("rank", 10**9, "describes no prompt that is known"),
        ("tokens", 10**9, "describes no prompt that is known"),
        ("classes", ["a\ud800", "b"], "is not JSON"),
        ("seed", float("inf"), "is not JSON"),
        ("fedprompt_version", "9" * 5000 + ".0.0", "upgrade fedprompt"),
        ("fedprompt_version", "٣.0.0", "upgrade fedprompt"),
    ],
)
def test_F25_a_configuration_that_asks_for_too_much_is_refused(artefact, key, value, says):
    described = json.loads((artefact / CONFIG).read_text()) | {key: value}
    if key == "classes":
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        described["classes_sha256"] = sha256_bytes(text.encode("utf-8", "surrogatepass"))
    (artefact / CONFIG).write_text(json.dumps(described).replace("Infinity", "1e999"))
    refused(6, "export", artefact, *SMALL, says=says)


def test_F25_a_hash_that_is_a_number_is_refused(artefact):
    described = json.loads((artefact / CONFIG).read_text())
    described["backbone"]["sha256"] = int("1" * 64)
    (artefact / CONFIG).write_text(json.dumps(described))
    with pytest.raises(ArtefactError, match=r"backbone\.sha256 is missing"):
        Artefact.load(artefact)


# F26


def _outside(source, folder, location):
    """Return a valid classifier but for one tensor, which lies where ``location`` says."""
    model = onnx.load_model(source)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    (folder.parent / "secret.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "classifier.onnx").write_bytes(model.SerializeToString())


@pytest.mark.parametrize("how", ["plain", "traversal", "absolute", "symlink", "hard link"])
def test_F26_external_data_is_refused_however_it_is_reached(saved, tmp_path, monkeypatch, how):
    folder = tmp_path / "models"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    location = {"traversal": "../secret.bin", "absolute": str(secret)}.get(how, "data.bin")
    _outside(saved / "classifier.onnx", folder, location)
    if how == "symlink":
        (folder / "data.bin").symlink_to(secret)
    elif how == "hard link":
        os.link(secret, folder / "data.bin")
    elif how == "plain":
        shutil.copy(secret, folder / "data.bin")
    monkeypatch.chdir(folder)  # where ONNX Runtime would look
    image_folder(tmp_path / "photos", CLASSES, 1)
    refused(11, "verify", "classifier.onnx", says="keeps tensor")
    photo = tmp_path / "photos" / "red" / "0.png"
    refused(11, "predict", "classifier.onnx", photo, says="keeps tensor data in another file")
    with pytest.raises(GraphError, match="another file"):
        Classifier("classifier.onnx")


@pytest.mark.parametrize("domain", ["com.evil", "com.microsoft", ""])
def test_F26_a_custom_operator_is_refused(saved, tmp_path, domain):
    model = onnx.load_model(saved / "classifier.onnx")
    last = model.graph.node[-1]
    output = last.output[0]
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Shell", ["before"], [output], domain=domain))
    if domain == "com.evil":
        model.opset_import.append(helper.make_opsetid(domain, 1))
    path = tmp_path / "classifier.onnx"
    path.write_bytes(model.SerializeToString())
    refused(11, "verify", path, says="")
    image_folder(tmp_path / "photos", CLASSES, 1)
    refused(11, "predict", path, tmp_path / "photos" / "red" / "0.png", says="not opened because")
    with pytest.raises(GraphError):
        Classifier(path)


@pytest.mark.parametrize("name", ["loop", "zeros"])
@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("verify", ()),
        ("predict", ("x.png",)),
        ("bench", ()),
        ("serve", ("--address", "127.0.0.1:18499")),
    ],
)
def test_F26_a_bomb_is_refused_by_every_verb(saved, tmp_path, verb, more, name):
    path = tmp_path / "classifier.onnx"
    path.write_bytes(hostile_graph(name, onnx.load_model(saved / "classifier.onnx")))
    refused(11, verb, path, *more, says="give a file that")


def test_F26_the_file_itself_passes(saved, tmp_path):
    """Otherwise any refusal above could have another reason."""
    passed("verify", saved / "classifier.onnx")


# F32


def _off_by(monkeypatch, difference):
    """Make the graph's answers differ from torch's, as a broken operator would."""
    original = export.parity.check.run_graph

    def wrong(session, images):
        return original(session, images) + np.float32(difference)

    monkeypatch.setattr(export.parity.check, "run_graph", wrong)


def test_F32_a_breach_of_parity_writes_nothing(saved, tmp_path, monkeypatch):
    output = tmp_path / "classifier.onnx"
    output.write_bytes(b"the old one")
    _off_by(monkeypatch, 0.01)
    refused(9, "export", saved / "artefact", *SMALL, "-o", output, says="logit difference 0.0")
    assert everything(tmp_path) == {output: b"the old one"}


@pytest.mark.slow
def test_F32_forced_it_is_written_and_the_file_says_so(saved, tmp_path, monkeypatch):
    output = tmp_path / "classifier.onnx"
    _off_by(monkeypatch, 0.01)
    done = passed("export", saved / "artefact", *SMALL, "-o", output, "--force", "--json")
    assert json.loads(done.stdout)["forced"] is True
    properties = {p.key: p.value for p in onnx.load_model(output).metadata_props}
    parity = GraphMetadata.from_properties(properties).parity
    assert parity["forced"] is True
    assert parity["probes"]["holds"] is False
    assert 0.009 < parity["probes"]["largest"] < 0.012
    assert "forced past a breach of parity" in passed("verify", output).stdout
