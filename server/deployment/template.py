"""Write ``server.toml`` for people: what they are likely to change, said in a comment."""

from collections.abc import Mapping

from fedprompt import toml
from fedprompt.protocol import address as addresses
from fedprompt.settings.section import Scalar
from server.deployment.config import DeploymentConfig

# key -> (value that stands there, what it means); the order is the file's
_RUN: dict[str, tuple[Scalar, str]] = {
    "prompt.method": ("dip", "dip = low-rank, dip-fixed = DIP as published, coop = free vectors"),
    "prompt.rank": (1, "of the low-rank form; of dip, of what each round adds"),
    "prompt.tokens": (0, "prompt length; 0 = as many as the template's words"),
    "prompt.init": ("", 'words to start from; "" = those before the name in the template'),
    "fit.learning_rate": (0.02, ""),
    "fit.epochs": (1, "at a site, each round"),
    "fit.batch": (32, "images"),
    "server.rounds": (10, ""),
    "server.min_sites": (2, "that must have joined before round one"),
    "server.fraction": (1.0, "share of the joined sites asked each round"),
    "server.quorum": (0.5, "share of the asked sites whose replies must pass"),
    "server.retries": (2, "further tries of a round below quorum"),
    "server.deadline": (600.0, "seconds one exchange with the sites may take"),
    "server.join_deadline": (604_800.0, "seconds to wait for min_sites; a week"),
    "server.strategy": ("fedavg", "fedmedian, fedtrimmedavg, krum, multikrum, bulyan are robust"),
    "server.byzantine": (0, "sites that may be hostile, for those"),
    "server.seed": (0, ""),
    "backbone.name": ("embedded", "embedded, an open_clip name, hf-hub:ID or local-dir:PATH"),
    "backbone.pretrained": ("", "open_clip tag or checkpoint file"),
    "backbone.device": ("auto", "of the server; sites choose their own"),
    "data.template": ("a photo of a {}.", "the prompt's words at the start"),
}

_HEAD = """\
# A deployment of fedprompt; `flower-server start` reads this file. The folder itself says where
# the run, the classes and the certificates lie. All settings: docs/settings.md.
# Once round one is done, what shapes the prompt must stay as it is; deadlines may change.

"""


def server_toml(address: str, run: Mapping[str, Scalar]) -> str:
    """Return the text of ``server.toml``.

    Parameters
    ----------
    address
        ``host:port`` that sites dial.
    run
        Settings of the run, ``section.key``, that stand in place of what is suggested.
    """
    lines = _deployment(address)
    wanted = {key: (value, note) for key, (value, note) in _RUN.items()}
    wanted |= {key: (value, wanted.get(key, (0, ""))[1]) for key, value in run.items()}
    for name in dict.fromkeys(key.partition(".")[0] for key in wanted):
        lines += ["", f"[{name}]"]
        lines += [
            _line(key.partition(".")[2], value, note)
            for key, (value, note) in wanted.items()
            if key.startswith(f"{name}.")
        ]
    return _HEAD + "\n".join(lines) + "\n"


def _deployment(address: str) -> list[str]:
    host, port = addresses.split(address)
    suggested = DeploymentConfig(address=address)
    free = iter(p for p in range(port + 1, port + 4) if p <= 65535)
    return [
        "[deployment]",
        _line("address", address, "that sites dial; the certificate is for this host"),
        _line("host", addresses.interface(host), "to listen on; :: = all, 0.0.0.0 = all of IPv4"),
        _line("port", port, "for sites; behind a port forwarding it may differ from address"),
        _line("control_port", next(free, 9093), "on loopback: Flower's control API"),
        _line("metrics_port", next(free, 9095), "on loopback: Prometheus; 0 = off"),
        _line("restarts", suggested.restarts, "in a row of a run that makes no progress"),
    ]


def _line(key: str, value: Scalar, note: str) -> str:
    text = f"{key} = {toml.dumps(value)}"
    return f"{text}  # {note}" if note else text
