"""The files of examples/deployment: what their own tools say, and that our commands exist."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import kubernetes_validate
import pytest
import yaml

from client.deployment.command import group as flower_client
from fedprompt.cli import group as fedprompt
from server.deployment.command import group as flower_server

FOLDER = Path(__file__).parents[3] / "examples" / "deployment"
PROGRAMS = {"flower-server": flower_server, "flower-client": flower_client, "fedprompt": fedprompt}
UNITS = sorted(FOLDER.glob("systemd/*.service"))
MANIFESTS = sorted(FOLDER.glob("kubernetes/*.yaml"))
COMPOSED = sorted(FOLDER.glob("compose/*.yaml"))
KUBERNETES = "1.31"


def commands(path: Path) -> list[list[str]]:
    """Return every command of ours in a file, comments included, with continued lines joined."""
    text = path.read_text().replace("\\\n", " ")
    text = re.sub(
        r"[\[\]\",#]| && ?| \|\|", lambda m: "\n" if m[0].strip(" ") in ("&&", "||") else " ", text
    )
    found = re.findall(
        r"(?:^|[ /])((?:flower-server|flower-client|fedprompt) [a-z]+ [^\n`]*)", text, re.M
    )
    return [shlex.split(line) for line in found]


@pytest.mark.parametrize("path", [*UNITS, *MANIFESTS, *COMPOSED], ids=lambda p: p.name)
def test_every_command_is_one_of_ours(path: Path) -> None:
    found = commands(path)
    assert found
    for program, verb, *arguments in found:
        group = PROGRAMS[program]
        command = group.get_command(click.Context(group), verb)
        assert command, f"{program} has no {verb}"
        if "..." not in arguments:
            command.make_context(verb, arguments, resilient_parsing=True)
            known = {option for parameter in command.params for option in parameter.opts}
            given = {word for word in arguments if word.startswith("--")}
            assert given <= known


@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.name)
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd on this machine")
def test_systemd_takes_the_units(path: Path) -> None:
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False
    )
    ours = [line for line in told.stderr.splitlines() if path.name in line]
    missing = "is not executable: No such file or directory"  # fedprompt is not in /opt here
    assert [line for line in ours if missing not in line] == []


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.name)
def test_kubernetes_takes_the_manifests(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    assert len(documents) >= 2
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("path", [*MANIFESTS, *COMPOSED], ids=lambda p: p.name)
def test_every_mounted_volume_exists(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        if "services" in document:
            mounted = [v for service in document["services"].values() for v in service["volumes"]]
            named = {v.split(":")[0] for v in mounted if not v.startswith(("/", "."))}
            assert named == set(document["volumes"])
        elif document["kind"] == "StatefulSet":
            pod = document["spec"]["template"]["spec"]
            mounts = {m["name"] for c in pod["containers"] for m in c["volumeMounts"]}
            assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_the_image_copies_every_package() -> None:
    text = (FOLDER / "compose" / "Dockerfile").read_text()
    for package in ("fedprompt", "server", "client", "export"):
        assert f"COPY {package} {package}" in text


def test_the_slurm_script_runs(tmp_path: Path) -> None:
    """Run the script itself with a stand-in for fedprompt, twice: fresh and requeued."""
    script, called = FOLDER / "slurm" / "simulate.sbatch", tmp_path / "called"
    stand_in = tmp_path / "bin" / "fedprompt"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/sh\necho "$@" >> {called}\nmkdir -p {tmp_path}/slurm-local/checkpoints\n'
    )
    stand_in.chmod(0o755)
    env = {"PATH": f"{stand_in.parent}:/usr/bin:/bin", "FEDPROMPT_RUNS": str(tmp_path)}
    for _ in range(2):
        subprocess.run(["bash", script, "--set", "data.clients=3"], env=env, check=True, timeout=60)
    common = f"simulate --engine ray --output {tmp_path}/slurm-local"
    assert called.read_text().splitlines() == [
        f"{common} --set data.clients=3",
        f"{common} --resume --set data.clients=3",
    ]
