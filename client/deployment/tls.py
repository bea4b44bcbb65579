"""Trust the deployment's CA and nobody else, and what it took back not at all."""

import ssl
from pathlib import Path

from fedprompt.errors import ConfigError


def context(ca: Path, crl: Path | None = None) -> ssl.SSLContext:
    """Return how a site checks the server: TLS 1.2 at least, host name, CA, revocations.

    Raises
    ------
    ConfigError
        A file cannot be read.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(made, ca)
    if crl and crl.exists():
        _load(made, crl)
        made.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return made


def _load(made: ssl.SSLContext, path: Path) -> None:
    try:
        made.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; join again with the bundle") from None
