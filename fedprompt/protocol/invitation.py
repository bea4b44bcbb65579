"""A site's invitation: its key, the server's address and CA, and what all sites must share.

Canonical JSON, signed by the deployment's CA. The signature shows that nothing in the file was
changed; that the CA is the right one, people check by comparing its fingerprint.
"""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fedprompt.data.classes import check_names
from fedprompt.errors import ConfigError, FedpromptError
from fedprompt.identity import canonical_json
from fedprompt.protocol import address, certificates

FORMAT: Final = 1
MAX_BYTES = 1 << 20  # of the whole file
SITE_NAME = r"[a-z0-9][a-z0-9-]{0,62}"  # a file and a metric's label can be called so
_SIGNED_WITH = ec.ECDSA(hashes.SHA384())


def _checked(check: Callable[[Any], object]) -> AfterValidator:
    """Return a validator of a check that raises this project's errors."""

    def validate(value: Any) -> Any:
        try:
            check(value)
        except FedpromptError as error:
            raise ValueError(str(error)) from None
        return value

    return AfterValidator(validate)


def _one_place_for_the_name(template: str) -> None:
    if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
        raise ConfigError('expected text with "{}" once and no other braces')


def _zoned(moment: str) -> None:
    if datetime.fromisoformat(moment).tzinfo is None:
        raise ConfigError(f"{moment!r} has no time zone")


Sha256 = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
Text = Annotated[str, Field(max_length=1000)]
Classes = Annotated[tuple[str, ...], Field(strict=False), _checked(check_names)]


class _Strict(BaseModel):
    """A model without conversions and unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SharedBackbone(_Strict):
    """Name the CLIP that all sites share; a site may keep it elsewhere, the hash decides."""

    name: Text
    pretrained: Text
    quick_gelu: Literal["auto", "on", "off"]
    preprocess: str = ""
    sha256: Sha256


class Invitation(_Strict):
    """The content of an invitation.

    Attributes
    ----------
    name, number
        The site's; its key is what proves them.
    address
        ``host:port`` of the server.
    ca, crl
        PEM: the certificate that must have signed the server's, and which ones it took back.
    key
        The site's private key, OpenSSH text, EC P-384.
    classes, template, method
        Of the prompt; sites hold them against their images and their policy.
    backbone, tokenizer
        SHA-256 of the CLIP and of its tokenizer, as `FrozenClip` has them.
    version
        Of fedprompt at the server.
    issued
        When, ISO 8601 with its time zone.
    """

    format: Literal[1] = FORMAT
    name: Annotated[str, Field(pattern=rf"\A{SITE_NAME}\z")]
    number: Annotated[int, Field(ge=0, lt=2**31)]
    address: Annotated[Text, _checked(address.split)]
    ca: Annotated[str, _checked(certificates.certificate)]
    crl: str
    key: Annotated[str, Field(repr=False), _checked(certificates.private_key)]
    classes: Classes
    template: Annotated[Text, _checked(_one_place_for_the_name)]
    method: Annotated[str, Field(pattern=r"\A[a-z0-9-]{1,40}\z")]
    backbone: SharedBackbone
    tokenizer: Sha256
    version: Annotated[str, Field(pattern=r"\A[0-9A-Za-z.+!-]{1,60}\z")]
    issued: Annotated[Text, _checked(_zoned)]

    @property
    def fingerprint(self) -> str:
        """Return the CA's SHA-256, for people to compare over another channel."""
        return certificates.fingerprint(self.ca)


def pack(invitation: Invitation, ca_key: certificates.Key) -> bytes:
    """Return an invitation's file, signed."""
    return seal(invitation.model_dump(mode="json"), ca_key)


def seal(fields: Mapping[str, Any], ca_key: certificates.Key) -> bytes:
    """Return the canonical JSON of some fields and of their signature."""
    signature = ca_key.sign(canonical_json(fields), _SIGNED_WITH)
    return canonical_json({**fields, "signature": base64.b64encode(signature).decode()})


def read_file(path: Path) -> Invitation:
    """Return the invitation in a file.

    Raises
    ------
    ConfigError
        As `read`, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the invitation {path} could not be read: {error.strerror}") from None
    return read(data)


def read(data: bytes) -> Invitation:
    """Return the invitation in some bytes, every field and the signature checked.

    Raises
    ------
    ConfigError
        It is too large, was changed on the way, or a field is not as expected.
    """
    fields = _fields(data)
    signature = fields.pop("signature", None)
    try:
        invitation = Invitation.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None
    _check_signature(invitation, signature, canonical_json(fields))
    certificates.revocations(invitation.crl, invitation.ca)
    return invitation


def _fields(data: bytes) -> dict[str, Any]:
    """Return the fields; a value has one canonical text, so that nothing stands there twice."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"this is no invitation: it is larger than {MAX_BYTES:,} bytes")
    try:
        fields = json.loads(data)
        is_canonical = canonical_json(fields) == data
    except (ValueError, RecursionError):
        raise ConfigError(
            "this is no invitation: expected a file of `flower-server enrol`"
        ) from None
    if not isinstance(fields, dict):
        raise ConfigError("this is no invitation: expected a JSON object")
    if fields.get("format") != FORMAT:
        raise ConfigError(
            f"the invitation has format {fields.get('format')!r:.40}, this version reads {FORMAT}; "
            "use the same fedprompt at server and site"
        )
    if not is_canonical:
        raise ConfigError("the invitation was changed on the way; ask for it again")
    return fields


def _check_signature(invitation: Invitation, signature: object, signed: bytes) -> None:
    key = certificates.ca_key(invitation.ca)
    try:
        key.verify(base64.b64decode(str(signature), validate=True), signed, _SIGNED_WITH)
    except (InvalidSignature, ValueError):
        raise ConfigError(
            "the invitation's signature is not its CA's: the file was changed on the way; ask for "
            "it again"
        ) from None


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"the invitation's {field} is refused: {first['msg']}; ask for it again"
