"""Settings of the provision broker: our own gate, or a mosquitto that the provisioner joins as a client."""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from provisioner.model.names import DEFAULT_PORTS, check_endpoint
from provisioner.model.policy import Policy

WINDOW_MIN = 100  # below that one slow commit stops the queue
DialectName = Literal["json_v1", "esf"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GateLinkSettings(_Part):
    """Devices connect to our own gate; see ``gate``."""

    kind: Literal["gate"] = "gate"


class ReloadSettings(_Part):
    """How mosquitto is told to read its files again: exactly one of them."""

    pid_file: Path | None = None
    command: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.pid_file is None) == (not self.command):
            raise ValueError("name either pid_file or command")
        return self


class MosquittoLinkSettings(_Part):
    """Devices connect to a mosquitto, and the provisioner joins it; no gate is opened.

    url: of that mosquitto. ca: PEM file of the authority to trust there; none takes the system's.
    username, password_file: the provisioner's own login, and the file with its clear password on one line.
    password_file_path, acl_file_path: mosquitto's files, which the provisioner writes for itself and the devices.
    group: name of the group that may read them. share_group: several provisioners share the messages; each needs a
    client_id of its own. window: messages under way at once. dialects: fewer make shorter lists for mosquitto.
    """

    kind: Literal["mosquitto"]
    url: str
    ca: Path | None = None
    client_id: str = Field(default="fleetgate", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    username: str = Field(default="fleetgate", pattern=r"^[A-Za-z0-9_-]{3,64}$")
    password_file: Path
    password_file_path: Path
    acl_file_path: Path
    reload: ReloadSettings
    group: str | None = None
    share_group: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    window: int = Field(default=WINDOW_MIN, ge=WINDOW_MIN, le=65_535)
    dialects: tuple[DialectName, ...] = Field(default=("json_v1", "esf"), min_length=1)

    @field_validator("url")
    @classmethod
    def _is_mqtt(cls, url: str) -> str:
        for rule in check_endpoint(url):
            raise ValueError(rule)
        if urlsplit(url).scheme not in ("mqtt", "mqtts"):
            raise ValueError("must be mqtts://HOST[:PORT] or mqtt://HOST[:PORT]")
        return url

    @property
    def is_secure(self) -> bool:
        return urlsplit(self.url).scheme == "mqtts"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]


ProvisionLink = Annotated[GateLinkSettings | MosquittoLinkSettings, Field(discriminator="kind")]


def speaks(link: ProvisionLink, dialect: str) -> bool:
    """Whether devices are answered in that dialect; the gate speaks all."""
    return not isinstance(link, MosquittoLinkSettings) or dialect in link.dialects


def check_policy(link: ProvisionLink, policy: Policy) -> None:
    """Raises ValueError for rules of the gate that a broker in its place cannot keep."""
    if not isinstance(link, MosquittoLinkSettings):
        return
    if policy.client_id_scope == "account":
        raise ValueError(
            "provision_link: there a device is known by its client id alone: policy.client_id_scope must be platform"
        )
    if not policy.shared_credentials_require_key:
        raise ValueError(
            "provision_link: there whoever knows shared credentials can speak for each of their devices:"
            " policy.shared_credentials_require_key must be true"
        )
