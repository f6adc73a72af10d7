"""Builds the account brokers that the settings name; one function for each kind."""

import contextlib
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from broker.embedded import EmbeddedBroker
from broker.listener import why_not_opened
from provisioner.account_brokers.embedded import EmbeddedAccountBroker
from provisioner.account_brokers.mosquitto_check import Check
from provisioner.account_brokers.user_book import Verify
from provisioner.broker_settings import BrokerSettings, EmbeddedBrokerSettings, MosquittoPart
from provisioner.callback_settings import HttpCallbackSettings
from provisioner.config import Settings
from provisioner.model.errors import Unavailable
from provisioner.model.ports import AccountBroker, Gap, Sighting
from provisioner.model.secret import Secret
from provisioner.mosquitto_setup import check_mosquitto, mosquitto_broker
from provisioner.own_certificate import OwnCertificate
from provisioner.services.platform import USER_PURPOSE
from provisioner.vault.keyring import KeyRing


def build_brokers(
    settings: Settings, base: Path, ring: KeyRing, certificate: OwnCertificate
) -> dict[str, AccountBroker]:
    """By name. Relative paths are relative to ``base``. Raises Unavailable; nothing is started."""
    return {each.name: _build(each, settings, base, ring, certificate) for each in settings.account_brokers}


def broker_urls(settings: Settings) -> dict[str, str]:
    """Name -> where devices reach it, for accounts that do not say."""
    return {each.name: each.url for each in settings.account_brokers}


async def start_broker(
    broker: AccountBroker, settings: Settings, seen: Callable[[Sighting], None], gap: Callable[[Gap], None]
) -> None:
    """As the port says. Raises Unavailable with the address where what it listens on cannot be opened."""
    try:
        await broker.start(seen, gap)
    except (OSError, UnicodeError) as error:
        places = [_listens_on(each) for each in settings.account_brokers if each.name == broker.name]
        where = "".join(f" on {place}" for place in places)
        raise Unavailable(f"account broker {broker.name} cannot listen{where}: {why_not_opened(error)}") from None


def _listens_on(each: BrokerSettings) -> str:
    """The address of ours that there is for that broker."""
    if isinstance(each, HttpCallbackSettings):
        return f"{each.callback_host}:{each.callback_port}"
    return f"{each.host}:{each.port}"


def server_certificates(settings: Settings, base: Path) -> list[str]:
    """PEM texts of what the servers on this host show to devices; those of other hosts are not here to read."""
    files = [settings.gate.tls.certificate]
    files += [each.certificate for each in settings.account_brokers if isinstance(each, MosquittoPart)]
    texts = []
    for file in dict.fromkeys(files):
        with contextlib.suppress(OSError):
            texts.append((base / file).read_text("utf-8"))
    return texts


async def check(each: BrokerSettings, base: Path) -> Sequence[Check]:
    """What a look from outside says of a running account broker. Raises Unavailable."""
    if isinstance(each, MosquittoPart):
        return await check_mosquitto(each, base)
    if isinstance(each, HttpCallbackSettings):
        from provisioner.callback_setup import look_at

        return await look_at(each, base)
    return [Check(each.kind, True, "runs inside the service: see `fleetgate selftest`")]


def _build(
    each: BrokerSettings, settings: Settings, base: Path, ring: KeyRing, certificate: OwnCertificate
) -> AccountBroker:
    if isinstance(each, MosquittoPart):
        return mosquitto_broker(each, base, settings.esf.control_prefix)
    if isinstance(each, HttpCallbackSettings):
        from provisioner.callback_setup import callback_broker  # an HTTP server: only for who has such a broker

        context = certificate.context() if each.callback_tls else None
        prefix, shared = settings.esf.control_prefix, settings.gate.workers > 1
        return callback_broker(each, base, context, _verify(ring), prefix, shared_port=shared)
    return _embedded(each, certificate.context(), ring, settings.esf.control_prefix)


def _embedded(
    settings: EmbeddedBrokerSettings, context: ssl.SSLContext, ring: KeyRing, control_prefix: str
) -> EmbeddedAccountBroker:
    server: Any = EmbeddedBroker(settings.host, settings.port, context if settings.tls else None)
    return EmbeddedAccountBroker(settings.name, server, _verify(ring), control_prefix)


def _verify(ring: KeyRing) -> Verify:
    def verify(verifier: str | None, password: Secret, user_id: str) -> bool:
        return ring.verify(verifier, password, USER_PURPOSE, user_id)

    return verify
