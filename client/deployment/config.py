"""Who this site is and whom it talks to: one setting a line, its unit in the comment."""

from pydantic import Field, field_validator, model_validator

from fedprompt.errors import ConfigError
from fedprompt.protocol import address
from fedprompt.settings.section import Section


class NodeConfig(Section):
    """Hold the settings of section ``[node]`` of ``site.toml``; the invitation gave them."""

    name: str = ""
    number: int = Field(0, ge=0)  # this site's place in records; the server checks it by the key
    server: str = "127.0.0.1:9092"  # host:port of the server
    poll: float = Field(0.5, ge=0.01, le=60)  # seconds between two looks of the worker for a task
    patience: float = Field(86_400, ge=0)  # seconds of nothing but refusals until the site gives up
    task_deadline: float = Field(3600, ge=1)  # seconds of one task until the worker starts anew
    insecure: bool = False  # plaintext and no key; on loopback only, for tests

    @field_validator("server")
    @classmethod
    def _is_an_address(cls, server: str) -> str:
        try:
            address.split(server)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return server

    @model_validator(mode="after")
    def _plaintext_stays_on_this_machine(self) -> "NodeConfig":
        if self.insecure and not address.is_loopback(address.split(self.server)[0]):
            raise ValueError(
                f"insecure = true with server = {self.server}: plaintext is allowed on loopback "
                "only; set insecure = false"
            )
        return self
