"""Settings of account brokers: one class for each ``kind``; what they have in common is in ``BrokerPart``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Port = Annotated[int, Field(ge=0, le=65_535)]


class BrokerPart(BaseModel):
    """name: what accounts call the broker. url_host, port, tls: where devices reach it, unless an account says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    url_host: str = "localhost"
    port: Port = 8884
    tls: bool = True

    @property
    def url(self) -> str:
        """The provision endpoint of accounts that name none of their own."""
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.url_host}:{self.port}"


class EmbeddedBrokerSettings(BrokerPart):
    """An account broker inside the service, for evaluation; loopback only."""

    name: str = "embedded"
    kind: Literal["embedded"] = "embedded"
    host: str = "127.0.0.1"


class MosquittoPart(BrokerPart):
    """What both ways of running mosquitto need.

    host, certificate, key: of the devices' listener, for `fleetgate broker render`.
    control_port: a plain listener on the loopback interface for the service itself, unless control_host says
    where else it is; then control_ca is the PEM file of the authority that signed its certificate.
    username, secret: the service's own user there, and the file with its password (0600, made when missing).
    """

    host: str = "0.0.0.0"
    certificate: Path = Path("tls/server.pem")
    key: Path = Path("tls/server.key")
    control_host: str = "127.0.0.1"
    control_port: Port = 1884
    control_ca: Path | None = None
    username: str = Field(default="fleetgate", pattern=r"^[A-Za-z0-9_-]{3,64}$")
    secret: Path


class MosquittoFilesSettings(MosquittoPart):
    """mosquitto on this host, told of users by files and SIGHUP.

    pid_file or reload_command: how it is told to read them again; exactly one of them.
    group: name of the group that may read the files, for a mosquitto that runs as another user.
    """

    kind: Literal["mosquitto-files"]
    secret: Path = Path("mosquitto/secret")
    password_file: Path = Path("mosquitto/passwords")
    acl_file: Path = Path("mosquitto/acl")
    pid_file: Path | None = None
    reload_command: tuple[str, ...] = ()
    group: str | None = None

    @model_validator(mode="after")
    def _one_way_to_reload(self) -> "MosquittoFilesSettings":
        if (self.pid_file is None) == (not self.reload_command):
            raise ValueError("name either pid_file or reload_command, so that mosquitto can be told of new users")
        return self


class MosquittoDynsecSettings(MosquittoPart):
    """mosquitto with its dynamic security plugin, told of users over MQTT. users_max: it slows down beyond."""

    kind: Literal["mosquitto-dynsec"]
    secret: Path = Path("mosquitto/secret")
    users_max: int = Field(default=1_000, ge=1, le=100_000)
    state_file: Path = Path("mosquitto/dynamic-security.json")


def _kind(broker: Any) -> str:
    """The discriminator; a mapping that names no kind is the broker of the evaluation mode."""
    kind = broker.get("kind", "embedded") if isinstance(broker, Mapping) else getattr(broker, "kind", "")
    return str(kind)


BrokerSettings = Annotated[
    Annotated[EmbeddedBrokerSettings, Tag("embedded")]
    | Annotated[MosquittoFilesSettings, Tag("mosquitto-files")]
    | Annotated[MosquittoDynsecSettings, Tag("mosquitto-dynsec")],
    Discriminator(_kind),
]
"""A new kind: a class above, its tag here, and a case in ``provisioner.brokers``."""
