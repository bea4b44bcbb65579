"""Where the server listens and how long it waits: one setting a line, its unit in the comment."""

from pydantic import Field, field_validator, model_validator

from fedprompt.errors import ConfigError
from fedprompt.protocol import address as addresses
from fedprompt.settings.section import Section


class DeploymentConfig(Section):
    """Section ``[deployment]`` of ``server.toml``."""

    address: str = "127.0.0.1:9092"  # host:port that sites dial; stands in their invitations
    host: str = "127.0.0.1"  # interface that sites reach; :: = all, 0.0.0.0 = all of IPv4
    port: int = Field(9092, ge=1, le=65535)  # for sites: Flower's fleet API and nothing else
    control_port: int = Field(9093, ge=1, le=65535)  # on loopback: Flower's control API
    metrics_port: int = Field(9095, ge=0, le=65535)  # on loopback: Prometheus; 0 = off
    max_request: int = Field(8_000_000, ge=1_000_000)  # bytes of one request of a site, at most
    restarts: int = Field(3, ge=0)  # of a run that ended without an outcome and without progress
    insecure: bool = False  # plaintext and no keys; on loopback only, for tests

    @property
    def dialled(self) -> str:
        """Return the host that sites dial; the certificate must be for it."""
        return addresses.split(self.address)[0]

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, address: str) -> str:
        try:
            addresses.split(address)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return address

    @model_validator(mode="after")
    def _plaintext_stays_on_this_machine(self) -> "DeploymentConfig":
        if self.insecure and not addresses.is_loopback(self.host):
            raise ValueError(
                f"insecure = true with host = {self.host}: plaintext is allowed on loopback only; "
                "set host = 127.0.0.1, or insecure = false"
            )
        ports = [self.port, self.control_port, *filter(None, [self.metrics_port])]
        if len(set(ports)) < len(ports):
            raise ValueError(f"port, control_port and metrics_port are {ports}; give three ports")
        return self
