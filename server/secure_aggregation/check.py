"""Refuse settings under which a secure sum would mean nothing, and say what it does not hide."""

import logging

from fedprompt.errors import ConfigError
from fedprompt.settings.server import ServerConfig
from server import robust

_log = logging.getLogger(__name__)
LEAST_SITES = 3  # of two, each finds the other's update by subtracting its own


def check(config: ServerConfig, clip: float) -> None:
    """Refuse a configuration that secure aggregation cannot carry out.

    Parameters
    ----------
    config
        The server's settings.
    clip
        Norm the sites cut their updates to, ``privacy.clip_norm`` or ``server.clip_norm``.

    Raises
    ------
    ConfigError
        Names the setting and what to choose.
    """
    if not config.secure_aggregation:
        return
    told = "under server.secure_aggregation = true"
    if config.strategy in robust.LEAST:
        raise ConfigError(
            f"server.strategy = {config.strategy} {told}: it compares single updates, which nobody "
            "sees; choose fedavg, fedprox, fedadam, fedyogi or fedavgm"
        )
    if config.rule == "factors":
        raise ConfigError(
            f"server.rule = factors {told}: what averaging factors loses could not be measured; "
            "set server.rule = product, shared-basis or fresh-basis"
        )
    if config.weighting != "uniform":
        raise ConfigError(
            f"server.weighting = {config.weighting} {told}: masked weights cannot be checked; set "
            "server.weighting = uniform"
        )
    if not clip:
        raise ConfigError(
            f"server.clip_norm = 0 {told}: the sites must know which range to quantise; set the "
            "largest norm of an update, 1.0 for a start"
        )
    _log.warning(
        "secure aggregation: Flower's masks grow from seeds of 28 and 32 bits; they hide updates "
        "from a server that follows the protocol, not from one that searches (docs/privacy.md)"
    )
