"""A site joins and answers without the server's code, and an export needs neither of them."""

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from fedprompt.backbone.load import load_backbone
from fedprompt.cli import group
from fedprompt.settings.backbone import BackboneConfig
from server.deployment.command import group as flower_server
from server.deployment.folder import DeploymentFolder
from tests.pictures import image_folder
from tests.prompts import tuned

FORBID = """
import importlib.abc, sys

class Forbidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ImportError(f"{{name}} is of another application")

sys.meta_path.insert(0, Forbidden())
"""
JOIN = """
import json
from click.testing import CliRunner
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from client.deployment import tls_probe
from client.deployment.command import group

invitation, photos, site, sent = sys.argv[1:]
tls_probe.probe = lambda *_: tls_probe.ProbeResult(None, None)  # no server is up
words = ["join", invitation, "--data", photos, "--folder", site, "--no-start"]
done = CliRunner().invoke(group, words, catch_exceptions=False)
assert done.exit_code == 0, done.output

from client.app import app

TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 7
message = Message(RecordDict({"config": ConfigRecord({})}), 7, "query")
message.metadata.__dict__["_message_id"] = message.object_id
context = Context(1, 7, {"site-folder": site}, RecordDict(), json.loads(sent))
reply = app(message, context)
assert not reply.has_error(), reply.error
assert reply.content["identity"]["num-examples"] > 0
"""
EXPORT = """
from click.testing import CliRunner
from fedprompt.cli import group

artefact, output = sys.argv[1:]
done = CliRunner().invoke(group, ["export", artefact, "--output", output], catch_exceptions=False)
assert done.exit_code == 0, done.output
"""


def without(applications: tuple[str, ...], code: str, *arguments: object) -> None:
    """Run code in a process of its own in which some applications cannot be imported."""
    program = FORBID.format(names=set(applications)) + code
    words = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_site_joins_and_answers_without_the_servers_code(tmp_path: Path) -> None:
    photos = image_folder(tmp_path / "photos", ("circle", "square"), 6)
    place, invitation = tmp_path / "deployment", tmp_path / "north.fedprompt"
    for words in (
        ("init", place, "--address", "127.0.0.1:9092", "--classes", "circle,square"),
        ("enrol", "north", "--output", invitation, "--folder", place),
    ):
        done = CliRunner().invoke(flower_server, [str(word) for word in words])
        assert done.exit_code == 0, done.output
    sent = json.dumps(DeploymentFolder(place).run_settings())
    without(("server", "export"), JOIN, invitation, photos, tmp_path / "north", sent)


def test_a_prompt_is_exported_without_server_and_client(tmp_path: Path) -> None:
    clip = load_backbone(BackboneConfig(name="embedded"))
    tuned(clip).save(tmp_path / "artefact")
    output = tmp_path / "classifier.onnx"
    without(("server", "client"), EXPORT, tmp_path / "artefact", output)
    done = CliRunner().invoke(group, ["verify", str(output)])
    assert done.exit_code == 0, done.output
