"""The operator's story, by its commands: a folder, two bundles, three processes, one prompt."""

import json
import shutil
import signal
import time

import pytest

from fedprompt import Artefact
from fedprompt.identity import canonical_json, sha256_bytes
from tests.deployment import CLASSES, SCRIPTS, SETTINGS, deployment, pictures, wait

ROUNDS = 2


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    root = tmp_path_factory.mktemp("story")
    with deployment(root, None) as made:
        yield made


def call(story, *command, code=0):
    """Run a command to its end and return what it wrote."""
    name = f"{command[0]}-{command[1]}-{len(story.running)}"
    done = story.run([SCRIPTS / command[0], *command[1:]], name)
    assert done.result() == code, done.told()
    return done.told()


@pytest.mark.slow
def test_three_processes_tune_one_prompt(story):
    folder, root = story.folder, story.root
    sets = [f"--set={key}={value}" for key, value in (SETTINGS | {"server.rounds": ROUNDS}).items()]
    call(story, "flower-server", "init", folder.path, "--address", story.address,
         "--classes", ",".join(CLASSES), *sets)  # fmt: skip
    story.set_ports()
    told = call(story, "flower-server", "enrol", "north", "--folder", folder.path, "--output",
                root / "north.fedprompt")  # fmt: skip
    fingerprint = told.rpartition("telephone: ")[2].strip()
    call(story, "flower-server", "enrol", "south", "--folder", folder.path, "--output",
         root / "south.fedprompt")  # fmt: skip

    server, clients = story.serve(), []
    story.wait(lambda: "registered south" in server.told(), "the SuperLink knows the sites")
    for seed, name in enumerate(("north", "south")):
        command = [SCRIPTS / "flower-client", "join", root / f"{name}.fedprompt"]
        command += ["--data", pictures(root / f"pictures-{name}", seed)]
        command += ["--folder", root / name, "--fingerprint", fingerprint]
        clients.append((time.monotonic(), story.run(command, name)))
    online = [_joined(story, number) - begun for number, (begun, _) in enumerate(clients)]
    print(  # noqa: T201 (a figure for people; `pytest -s` shows it)
        f"joined after {', '.join(f'{seconds:.1f} s' for seconds in online)}"
    )

    status = json.loads(call(story, "flower-server", "status", folder.path, "--json"))
    assert status["running"]
    assert status["run"] == "running"
    assert [(site["name"], site["online"]) for site in status["sites"]] == [
        ("north", True), ("south", True),
    ]  # fmt: skip

    assert server.result() == 0, story.told()
    result = json.loads(server.told().splitlines()[-1])
    assert result["rounds"] == ROUNDS
    for _, client in clients:
        client.process.send_signal(signal.SIGTERM)
        assert client.result() == 0, client.told()
        assert client.family() == {}
    assert server.family() == {}

    artefact = Artefact.load(folder.run / "artefact")
    assert artefact.sha256 == result["artefact"]
    assert artefact.metadata["classes"] == list(CLASSES)
    call(story, "fedprompt", "export", folder.run, "--output", root / "classifier.onnx")
    assert (root / "classifier.onnx").stat().st_size > 1e6


def _joined(story, number):
    wait(lambda: story.nodes().get(number, {}).get("online"), f"site {number}\n{story.told()}")
    return time.monotonic()


@pytest.mark.slow
def test_what_left_the_sites_is_what_arrived(story):
    """Each side keeps its own log; hash by hash they agree, and nothing else left."""
    lines = story.lines()
    assert [line["round"] for line in lines] == list(range(ROUNDS + 1))
    for number, name in enumerate(("north", "south")):
        text = (story.root / name / "egress.jsonl").read_text()
        left = [json.loads(line) for line in text.splitlines()]
        sent = {
            str(line["round"]): sha256_bytes(
                canonical_json({array["name"]: array["sha256"] for array in line["arrays"]})
            )
            for line in left
            if line["kind"] == "train"
        }
        assert sent == {str(line["round"]): line["arrived"][str(number)] for line in lines[1:]}
        scores = {line["round"]: line["metrics"] for line in left if line["kind"] == "evaluate"}
        assert {r: (s["num-examples"], s["loss"]) for r, s in scores.items()} == {
            line["round"]: (
                line["sites"][str(number)]["examples"],
                line["sites"][str(number)]["nll"],
            )
            for line in lines
            if "sites" in line
        }
        kinds = [line["kind"] for line in left]
        assert kinds.count("query") >= 1
        assert len(left) == kinds.count("query") + len(sent) + len(scores)
        assert not any("error" in line for line in left)
        assert call(story, "flower-client", "egress", story.root / name)


@pytest.mark.slow
def test_a_bundle_of_another_ca_is_refused_by_its_fingerprint(story):
    other = story.root / "other"
    told = call(story, "flower-client", "join", story.root / "north.fedprompt", "--data", "x",
                "--folder", other, "--fingerprint", "0" * 64, code=2)  # fmt: skip
    assert "do not use it" in " ".join(told.split())
    assert not other.exists()


@pytest.mark.slow
def test_a_run_that_is_done_is_not_run_again(story):
    before = (story.folder.run / "rounds.jsonl").read_bytes()
    shutil.rmtree(story.cache)  # nothing is computed anew, so nothing needs it
    told = call(story, "flower-server", "start", story.folder.path, "--json")
    assert json.loads(told.splitlines()[-1])["rounds"] == ROUNDS
    assert (story.folder.run / "rounds.jsonl").read_bytes() == before
