"""Settings of account brokers: one class for each ``kind``; what they have in common is ``BrokerPart``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from provisioner.broker_part import BrokerPart, Port
from provisioner.callback_settings import HttpCallbackSettings


class EmbeddedBrokerSettings(BrokerPart):
    """An account broker inside the service, for evaluation; loopback only."""

    name: str = "embedded"
    kind: Literal["embedded"] = "embedded"
    host: str = "127.0.0.1"


class MosquittoPart(BrokerPart):
    """What both ways of running mosquitto need.

    host, certificate, key: of the devices' listener, for `fleetgate broker render`.
    control_port: of the listener that only this service uses: plain on the loopback interface, unless control_host
    says where else it is; then control_ca is the PEM file of the authority that signed its certificate.
    username: the service's own user there; its password is in ``secret`` in the folder (0600, made when missing).
    folder: of everything that mosquitto and the service share; ``mosquitto/<name>`` when not set.
    pid_file: where mosquitto leaves its process id. system_user: whom it becomes when root starts it.
    """

    host: str = "0.0.0.0"
    certificate: Path = Path("tls/server.pem")
    key: Path = Path("tls/server.key")
    control_host: str = "127.0.0.1"
    control_port: Port = 1884
    control_ca: Path | None = None
    username: str = Field(default="fleetgate", pattern=r"^[A-Za-z0-9_-]{3,64}$")
    folder: Path | None = None
    pid_file: Path | None = None
    system_user: str | None = None

    @model_validator(mode="after")
    def _no_clear_text_elsewhere(self) -> Self:
        if self.control_host not in ("127.0.0.1", "::1", "localhost") and self.control_ca is None:
            raise ValueError("control_ca is needed: beyond the loopback interface the service speaks TLS only")
        return self

    @property
    def own_folder(self) -> Path:
        return self.folder or Path("mosquitto") / self.name


class MosquittoFilesSettings(MosquittoPart):
    """mosquitto on this host, told of users by files and SIGHUP.

    reload_command: how it is told to read them again, when SIGHUP to the process of pid_file will not do.
    group: who may read the files besides the service, for a mosquitto that runs as another user.
    users_max: each reading takes time that grows with them, 1.6 ms for a thousand.
    """

    kind: Literal["mosquitto-files"]
    reload_command: tuple[str, ...] = ()
    group: str | None = None
    users_max: int = Field(default=25_000, ge=1, le=100_000)

    @model_validator(mode="after")
    def _one_way_to_reload(self) -> Self:
        if self.pid_file is None and not self.reload_command:
            raise ValueError("name pid_file or reload_command, so that mosquitto can be told of new users")
        return self


class MosquittoDynsecSettings(MosquittoPart):
    """mosquitto with its dynamic security plugin, told of users over MQTT. users_max: it slows down beyond.

    plugin: where the host of mosquitto has it."""

    kind: Literal["mosquitto-dynsec"]
    plugin: Path = Path("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")
    users_max: int = Field(default=1_000, ge=1, le=100_000)


class CertificateSettings(MosquittoPart):
    """mosquitto that trusts our authority: a device's certificate is its login, and nothing is written for a device.

    authority, authority_key: PEM files, those of the platform's own authority unless that has others.
    reload_command, group: as for mosquitto-files."""

    kind: Literal["certificate"]
    authority: Path = Path("ca/ca.pem")
    authority_key: Path = Path("ca/ca.key")
    reload_command: tuple[str, ...] = ()
    group: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.pid_file is None and not self.reload_command:
            raise ValueError("name pid_file or reload_command, so that mosquitto can be told of revoked certificates")
        if not self.tls:
            raise ValueError("tls: certificates are shown in TLS alone")
        return self


MosquittoSettings = MosquittoFilesSettings | MosquittoDynsecSettings | CertificateSettings


def _kind(broker: Any) -> str:
    """The discriminator; a mapping that names no kind is the broker of the evaluation mode."""
    kind = broker.get("kind", "embedded") if isinstance(broker, Mapping) else getattr(broker, "kind", "")
    return str(kind)


BrokerSettings = Annotated[
    Annotated[EmbeddedBrokerSettings, Tag("embedded")]
    | Annotated[MosquittoFilesSettings, Tag("mosquitto-files")]
    | Annotated[MosquittoDynsecSettings, Tag("mosquitto-dynsec")]
    | Annotated[CertificateSettings, Tag("certificate")]
    | Annotated[HttpCallbackSettings, Tag("http-callback")],
    Discriminator(_kind),
]
"""A new kind: a class above, its tag here, and a case in ``provisioner.brokers``."""
