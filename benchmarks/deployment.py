"""Make a deployment with many sites of tiny images, enrolled and joined as people would."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.deployment import site_folder
from client.deployment.site_folder import SiteFolder
from client.site import Site, deployed
from fedprompt.protocol import invitation as invitations
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat
from server.deployment import create_folder, enrolment
from server.deployment.folder import DeploymentFolder

CLASSES = ("ring", "bar", "dot", "cross")
IMAGES = 20  # of a site; 16 are left to train on
ENCODE_BATCH = 8  # images; batches are filled up, and a site has few


@dataclass(frozen=True)
class Deployment:
    """Hold the server's folder and the sites', by number."""

    server: DeploymentFolder
    sites: list[SiteFolder]

    def load(self, settings: Flat) -> list[Site]:
        """Return the sites in this process, as their own would under a run's settings."""
        configs = [RunConfig.parse(site.settings(settings)) for site in self.sites]
        return [deployed(config, number) for number, config in enumerate(configs)]


def make(folder: Path, sites: int, settings: Flat) -> Deployment:
    """Make the folders of a server on loopback and of its sites."""
    server = DeploymentFolder(folder / "server")
    create_folder.create(server, f"127.0.0.1:{three_ports()}", ",".join(CLASSES), settings, days=30)
    return Deployment(server, [_join(folder, server, number) for number in range(sites)])


def _join(folder: Path, server: DeploymentFolder, number: int) -> SiteFolder:
    name = f"site-{number:03d}"
    images, invitation = folder / "images" / name, folder / f"{name}.fedprompt"
    write_images(images, number)
    enrolment.enrol(server, name, images=0, output=invitation)
    site = SiteFolder(folder / "sites" / name)
    site_folder.create(site, invitations.read_file(invitation), str(images))
    text = site.toml.read_text(encoding="utf-8")
    site.toml.write_text(
        text.replace("encode_batch = 64", f"encode_batch = {ENCODE_BATCH}"), encoding="utf-8"
    )
    invitation.unlink()  # it holds the key
    return site


def write_images(folder: Path, seed: int) -> None:
    """Write distinct tiny images of noise, the classes in turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (IMAGES, 64), dtype=np.uint8)
    for i, values in enumerate(pixels):
        path = folder / CLASSES[i % len(CLASSES)] / f"{i:03d}.pgm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"P5 8 8 255\n" + values.tobytes())


def three_ports() -> int:
    """Return the first of three ports in a row that nobody listens on."""
    while True:
        with ExitStack() as stack:
            first = _bind(stack, 0)
            try:
                for port in (first + 1, first + 2):
                    _bind(stack, port)
            except OSError:
                continue
            return first


def _bind(stack: ExitStack, port: int) -> int:
    probe = stack.enter_context(socket.socket())
    probe.bind(("127.0.0.1", port))
    return int(probe.getsockname()[1])
