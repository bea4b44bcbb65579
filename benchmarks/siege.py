"""Five attackers among twelve sites: ``python -m benchmarks.siege [--json]``, 30 rounds.

The server is ``flower-server start``, TLS and keys on. Seven honest sites live in one process
(`benchmarks.fleet`), the five hostile ones in another (`benchmarks.besiegers`): one announces and
never sends, one reports a loss of 1e308, one claims 10^15 images, one replays its first update, one
claims the objects of the server's next message. All sites have images of Fashion-MNIST. The same
run is repeated without the hostile sites.

``rounds_lost`` counts the rounds that the record lacks or has twice, and those that took a second
try. ``accuracy_gap`` is what the siege costs, in points on test images of no site; ``named`` lists
the attacks whose site was struck and sat out in quarantine, and no honest one may be.
"""

import json
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.besiegers import ATTACKS
from benchmarks.console import machine, show
from benchmarks.deployment import ENCODE_BATCH, Deployment, three_ports
from benchmarks.soak import lost, workplace
from benchmarks.theatre import Theatre
from client.deployment import site_folder
from client.deployment.site_folder import SiteFolder
from client.tuning.evaluate import predict
from fedprompt.artefact import Artefact
from fedprompt.data.image_set import ImageSet
from fedprompt.experiments.setup import Experiment, open_experiment
from fedprompt.processes import logs
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.protocol import invitation as invitations
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat
from server.deployment import create_folder, enrolment
from server.deployment.folder import DeploymentFolder

log = logging.getLogger("fedprompt.siege")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Say how large a siege is."""

    rounds: int = 30
    honest: int = 7
    images: int = 100  # of a site
    test_images: int = 2000
    deadline: float = 20.0  # seconds of an exchange
    poll: float = 0.3  # seconds between two looks of a site for a message
    attacks: tuple[str, ...] = tuple(ATTACKS)

    def settings(self, sites: int) -> Flat:
        """Return the run's settings."""
        return {
            "fit.batch": 16,
            "fit.epochs": 3,
            "server.rounds": self.rounds,
            "server.min_sites": sites,
            "server.deadline": self.deadline,
            "server.join_deadline": 300.0,
        }


def known(images: ImageSet) -> ImageSet:
    """Leave out the class whose name is no name of a folder: T-shirt/top."""
    kept = images.labels > 0
    return ImageSet(images.classes[1:], images.labels[kept] - 1, images.source, images.rows[kept])


def workbench(setting: Setting) -> Experiment:
    """Open the images that sites and test are drawn from."""
    sites = setting.honest + len(setting.attacks)
    limits: Flat = {
        "data.limit": 2 * sites * setting.images,  # more than enough without the class left out
        "data.test_limit": setting.test_images,
    }
    return open_experiment(RunConfig.parse(limits))


def make(folder: Path, setting: Setting, bench: Experiment, sites: int) -> Deployment:
    """Make a server's folder and its sites', the honest ones first."""
    server, images = DeploymentFolder(folder / "server"), known(bench.train)
    classes = ",".join(images.classes)
    address = f"127.0.0.1:{three_ports()}"
    create_folder.create(server, address, classes, setting.settings(sites), days=30)
    made = []
    for number in range(sites):
        name, places = f"site-{number:02d}", range(number * setting.images, len(images.rows))
        pictures, invitation = folder / "images" / name, folder / f"{name}.fedprompt"
        for place in places[: setting.images]:
            path = pictures / images.classes[images.labels[place]] / f"{place:05d}.pgm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images.source.content(images.rows[place]))
        enrolment.enrol(server, name, images=setting.images, output=invitation)
        site = SiteFolder(folder / "sites" / name)
        site_folder.create(site, invitations.read_file(invitation), str(pictures))
        text = site.toml.read_text(encoding="utf-8")
        text = text.replace("encode_batch = 64", f"encode_batch = {ENCODE_BATCH}")
        site.toml.write_text(text, encoding="utf-8")
        made.append(site)
    return Deployment(server, made)


def play(folder: Path, setting: Setting, bench: Experiment, attacks: Sequence[str]) -> Path:
    """Run a deployment to its end, besieged or not, and return the folder of its run."""
    deployment = make(folder, setting, bench, setting.honest + len(attacks))
    honest, hostile = deployment.sites[: setting.honest], deployment.sites[setting.honest :]
    besiegers = [f"{name}={site.path}" for name, site in zip(attacks, hostile, strict=True)]
    command = [sys.executable, "-m", "benchmarks.besiegers", str(setting.poll), *besiegers]
    others = {"besiegers": command} if besiegers else {}
    inner = Deployment(deployment.server, honest)
    with Theatre(inner, 0, setting.poll, [], seed=0, others=others) as theatre:
        theatre.play()
    return deployment.server.run


def accuracy(run: Path, bench: Experiment) -> float:
    """Return a run's accuracy on the test images, per cent."""
    prompt = from_artefact(Artefact.load(RunFolder(run).artefact), bench.clip)
    images, labels = bench.encode(known(bench.test))
    return 100 * float((predict(prompt, images).argmax(1) == labels).float().mean())


def punished(records: Sequence[RoundRecord], site: int) -> dict[str, Any]:
    """Return what a record says of one site: all its reasons, and the round that sent it away."""
    of_site = [
        verdict
        for record in records
        for _, verdicts in record.phases()
        for verdict in verdicts
        if verdict.site == site
    ]
    away = [record.round for record in records if site in record.quarantined]
    return {
        "site": site,
        "reasons": sorted({reason for verdict in of_site for reason in verdict.reasons}),
        "quarantined_after_round": min(away, default=None),
    }


def conclude(setting: Setting, records: Sequence[RoundRecord]) -> dict[str, Any]:
    """Return what a siege's record says."""
    found = {
        name: punished(records, setting.honest + number)
        for number, name in enumerate(setting.attacks)
    }
    away = {site for record in records for site in record.quarantined}
    return {
        "rounds": max(record.round for record in records),
        "rounds_lost": len(lost(records, setting.rounds, excused=())),
        "named": [
            name for name, told in found.items() if told["quarantined_after_round"] is not None
        ],
        "attackers": found,
        "honest_in_quarantine": sorted(away & set(range(setting.honest))),
    }


def measure(setting: Setting, folder: Path) -> dict[str, Any]:
    """Run with the attackers and without, and return the figures."""
    torch.set_num_threads(1)
    bench = workbench(setting)
    besieged = play(folder / "besieged", setting, bench, setting.attacks)
    told = conclude(setting, RunFolder(besieged).records())
    log.info("besieged: %s", json.dumps(told))
    quiet = play(folder / "quiet", setting, bench, ())
    reached, without = accuracy(besieged, bench), accuracy(quiet, bench)
    gap = without - reached
    return {**told, "accuracy": reached, "accuracy_without": without, "accuracy_gap": gap}


def tell(found: dict[str, Any]) -> None:
    """Print the figures for a person."""
    names = ("rounds", "rounds_lost", "accuracy", "accuracy_without", "accuracy_gap")
    show("Five attackers at once", ("figure", "value"), [(name, found[name]) for name in names])
    rows = [
        (name, told["site"], ", ".join(told["reasons"]), told["quarantined_after_round"])
        for name, told in found["attackers"].items()
    ]
    show("Who was named", ("attack", "site", "reasons", "away after round"), rows)


app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def main(
    rounds: Annotated[int, typer.Option(min=1)] = Setting.rounds,
    honest: Annotated[int, typer.Option(min=2, help="Sites that do not attack.")] = Setting.honest,
    deadline: Annotated[float, typer.Option(help="Seconds of an exchange.")] = Setting.deadline,
    folder: Annotated[Path | None, typer.Option(help="Kept; a new one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
) -> None:
    """Besiege a deployment, and run it once more in peace."""
    setting = Setting(rounds=rounds, honest=honest, deadline=deadline)
    logs.configure(None, as_json=False)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends every process of the deployment
    with workplace(folder) as place:
        found = measure(setting, place)
    tell(found)
    if as_json:
        typer.echo(json.dumps({**found, "machine": machine()}))


if __name__ == "__main__":
    app()
