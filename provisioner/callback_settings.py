"""Settings of account brokers that ask us over HTTP."""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from provisioner.broker_part import BrokerPart, Port

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ManagementSettings(BaseModel):
    """How live connections are cut: by the interface that the broker itself has for it.

    urls: ``http(s)://host:port`` of each node. username, and password in the file (0600): of RabbitMQ's user with the
    tag ``administrator``, or EMQX's API key and its secret. ca: PEM file; the system's authorities when not set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    urls: Annotated[tuple[str, ...], Field(min_length=1)]
    username: str = Field(min_length=1)
    password: Path
    ca: Path | None = None

    @model_validator(mode="after")
    def _no_clear_text_elsewhere(self) -> Self:
        for url in self.urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
                raise ValueError("urls: each is http(s)://host:port")
            if parts.scheme == "http" and parts.hostname not in LOOPBACK:
                raise ValueError("urls: beyond the loopback interface https is needed")
        return self


class HttpCallbackSettings(BrokerPart):
    """A broker that asks us for each login and topic. product: which one, for its way of asking.

    callback_host, callback_port, callback_tls: where it finds us; the gate's certificate serves. It proves itself by
    the password in the file ``secret`` (0600, made when missing), or where client_ca is set by a certificate of that
    authority. management: None when nobody can be cut.
    callback_url_host: how the broker calls us, where that is not callback_host; a name in the gate's certificate.
    host, certificate, key, authority: of the devices' listener, for `fleetgate broker render`: PEM files of the
    broker's certificate and of who signed it, which signed the gate's, too.
    vhost: of RabbitMQ. cache_s: how long VerneMQ may keep a granted topic. renew_s: after how long EMQX lets a device
    log in again.
    """

    kind: Literal["http-callback"]
    product: Literal["rabbitmq", "emqx", "vernemq", "mosquitto"]
    callback_host: str = "127.0.0.1"
    callback_port: Port = 8886
    callback_tls: bool = False
    callback_url_host: str | None = None
    host: str = "0.0.0.0"
    certificate: Path = Path("tls/server.pem")
    key: Path = Path("tls/server.key")
    authority: Path = Path("ca/ca.pem")
    client_ca: Path | None = None
    secret: Path | None = None
    management: ManagementSettings | None = None
    vhost: str = "/"
    cache_s: int = Field(default=60, ge=0, le=3_600)
    renew_s: int | None = Field(default=None, ge=60)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.callback_host not in LOOPBACK and not self.callback_tls:
            raise ValueError("callback_tls is needed beyond the loopback interface: passwords are in what is asked")
        if self.client_ca is not None and not self.callback_tls:
            raise ValueError("client_ca needs callback_tls")
        if self.management is not None and self.product not in ("rabbitmq", "emqx"):
            raise ValueError("management: there is none for this product; devices cannot be cut there")
        return self

    @property
    def secret_file(self) -> Path:
        return self.secret or Path("callbacks") / f"{self.name}.secret"
