"""The embedded account broker: the common contract over TCP, TLS and uvloop, and what is its own."""

import asyncio
import datetime
import ipaddress
import logging
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.embedded import EmbeddedBroker
from provisioner.account_brokers.embedded import DeviceLogin, EmbeddedAccountBroker
from provisioner.model.account import Coupling
from provisioner.model.errors import Conflict
from provisioner.model.ports import AccountBroker, Gap, Sighting
from provisioner.model.secret import Secret
from tests.contracts.account_broker_contract import AccountBrokerContract
from tests.contracts.account_broker_stage import CUT_S, REFUSED, LoopThread, Stage, closing_devices, user, verify
from tests.contracts.mqtt_device import ACCEPTED, until


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(certificate, key) for 127.0.0.1, its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    certificate_file, key_file = folder / "server.pem", folder / "server.key"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


@pytest.fixture
def stage(request: pytest.FixtureRequest, certificate: tuple[Path, Path]) -> Iterator[Stage]:
    """A fresh embedded broker; parameter: which loop and transport, plain asyncio over TCP when there is none."""
    how = getattr(request, "param", "asyncio tcp")
    context = None
    if "tls" in how:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    loop = LoopThread(uvloop.new_event_loop() if "uvloop" in how else None)
    sightings: list[Sighting] = []
    server: EmbeddedBroker[DeviceLogin] = EmbeddedBroker(port=0, tls=context)
    broker = EmbeddedAccountBroker("embedded", server, verify)
    try:
        loop.run(broker.start(sightings.append))
        ca_file = certificate[0] if context else None
        with closing_devices(Stage(broker, server.address, loop, sightings, ca_file)) as made:
            yield made
        loop.run(broker.stop())
    finally:
        loop.close()


@pytest.mark.parametrize("stage", ["asyncio tcp", "asyncio tls", "uvloop tls"], indirect=True)
class TestEmbeddedAccountBroker(AccountBrokerContract):
    pass


def test_it_is_an_account_broker() -> None:
    """The adapter has the shape of the port, over a server that is not started."""
    server: EmbeddedBroker[DeviceLogin] = EmbeddedBroker(port=0)
    broker: AccountBroker = EmbeddedAccountBroker("demo", server, verify)
    assert broker.name == "demo"
    assert broker.capabilities().mqtt5 is False
    assert server.connections() == ()
    assert server.kick("acme/gw1") is False


def test_users_are_put_before_it_begins() -> None:
    """F-31: it keeps no users, so it takes them while nobody can reach it; the first who comes is let in."""

    gaps: list[tuple[Gap, tuple[str, int]]] = []

    async def begin(broker: EmbeddedAccountBroker) -> None:
        await broker.put_user(user(1))
        await broker.put_user(user(2))
        await broker.remove_user("acme", "user-2")
        await broker.start(lambda sighting: None, lambda gap: gaps.append((gap, server.address)))

    loop = LoopThread()
    server: EmbeddedBroker[DeviceLogin] = EmbeddedBroker(port=0)
    broker = EmbeddedAccountBroker("embedded", server, verify)
    try:
        assert broker.capabilities().keeps_users is False
        idle = server.address
        loop.run(begin(broker))
        with closing_devices(Stage(broker, server.address, loop, [])) as stage:
            assert stage.of(user(1)).connect() == ACCEPTED
            assert stage.of(user(2)).connect() in REFUSED
        assert gaps == [(Gap("embedded", all_left=True), idle)], "nobody is there, said before anybody can come"
        loop.run(broker.stop())
    finally:
        loop.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "broker.example"])
def test_it_binds_loopback_only(host: str) -> None:
    """D2: the evaluation broker cannot be put on a network by a setting."""
    with pytest.raises(ValueError, match="loopback"):
        EmbeddedBroker(host)


def test_a_port_in_use_is_told_and_leaves_nothing_behind() -> None:
    """A start that fails raises OSError; the same object starts once the port is free."""

    async def scenario() -> None:
        server: EmbeddedBroker[DeviceLogin] = EmbeddedBroker(port=0)
        with socket.create_server(("127.0.0.1", 0)) as squatter:
            blocked: EmbeddedBroker[DeviceLogin] = EmbeddedBroker(port=squatter.getsockname()[1])
            broker = EmbeddedAccountBroker("embedded", blocked, verify)
            with pytest.raises(OSError, match="address already in use"):
                await broker.start(lambda sighting: None)
        for _ in range(2):
            await broker.start(lambda sighting: None)
            await broker.stop()
        await broker.stop()
        assert server.connections() == ()

    asyncio.run(scenario())


def test_a_username_belongs_to_one_account(stage: Stage) -> None:
    """Usernames name their account on this broker, so that a second account cannot take one."""
    stage.put(user(1))
    with pytest.raises(Conflict):
        stage.put(user(1, account="other"))
    assert stage.of(user(1)).connect() == ACCEPTED


def test_two_accounts_may_use_one_client_id(stage: Stage) -> None:
    """esf 4.7: identity is account and client id; neither connection disturbs the other, nor hears it."""
    ours, theirs = stage.put(user(1)), stage.put(user(2, account="other", client_id="gw1"))
    first, second = stage.of(ours).admitted(), stage.of(theirs).admitted()
    assert first.subscribe("acme/gw1/#")
    assert second.subscribe("other/gw1/#")
    assert not second.subscribe("acme/gw1/#")
    second.publish("other/gw1/data", b"theirs")
    first.publish("acme/gw1/data", b"ours")
    assert first.got("acme/gw1/data", b"ours")
    assert second.got("other/gw1/data", b"theirs")
    assert len(first.received) == len(second.received) == 1
    assert stage.loop.run(stage.broker.kick("acme", "gw1"))
    assert first.left.wait(CUT_S)
    assert not second.left.is_set()


def test_a_loose_user_is_cut_wherever_it_is(stage: Stage) -> None:
    """F-08: disabling a LOOSE user ends its connections under other client ids too."""
    loose = stage.put(user(1, coupling=Coupling.LOOSE))
    own, other = stage.of(loose).admitted(), stage.of(loose, "gw9").admitted()
    stage.put(replace(loose, enabled=False))
    assert own.left.wait(CUT_S)
    assert other.left.wait(CUT_S)


def test_a_reservation_cuts_who_holds_the_client_id(stage: Stage) -> None:
    """EC-26, F-08: a client id that becomes reserved is taken from a LOOSE user that sits on it."""
    loose = stage.put(user(1, coupling=Coupling.LOOSE))
    squatter = stage.of(loose, "gw2").admitted()
    reserved = stage.put(user(2, reserved=True, coupling=Coupling.LOOSE))
    assert squatter.left.wait(CUT_S)
    assert stage.of(reserved).connect() == ACCEPTED


def test_of_two_users_made_for_a_client_id_the_reserved_one_has_it(stage: Stage) -> None:
    """EC-25: a client id that was granted twice follows the reservation, whichever user came first."""
    former = stage.put(user(1))
    assert stage.of(former).connect() == ACCEPTED
    latter = stage.put(user(2, client_id="gw1", reserved=True))
    assert stage.of(former).connect() in REFUSED
    assert stage.of(latter).connect() == ACCEPTED


def test_a_loose_user_brings_no_wildcard_as_client_id(stage: Stage) -> None:
    """F-09: a client id becomes a topic level, so one that acts in a topic is refused."""
    loose = stage.put(user(1, coupling=Coupling.LOOSE))
    assert stage.of(loose, "+").connect() == "Not authorized"
    assert stage.of(loose, "gw2/x").connect() == "Not authorized"


def test_a_will_of_its_own_is_published_when_the_device_vanishes(stage: Stage) -> None:
    """esf 1.2: LWT on the device's own `$EDC` topic is legal and reaches who may read it."""
    made = stage.put(user(1, coupling=Coupling.LOOSE))
    stage.of(made, will=("$EDC/acme/gw1/MQTT/LWT", b"", True)).admitted().vanish()
    assert until(lambda: stage.seen("gw1") == [True, False])
    heir = stage.of(made).admitted()
    assert heir.subscribe("$EDC/acme/gw1/#")
    heir.publish("$EDC/acme/gw1/marker", b"last")
    assert heir.got("$EDC/acme/gw1/marker", b"last")


def test_a_foreign_will_refuses_the_connect(stage: Stage) -> None:
    """brokers 1.2 item 4: a Will outside the rights is refused with 5 before anything is set up."""
    forger = stage.of(stage.put(user(1)), will=("acme/gw2/data", b"forged", False))
    assert forger.connect() == "Not authorized"
    assert stage.sightings == []


def test_a_user_who_changes_while_the_password_is_checked_is_refused() -> None:
    """A slow check of the password cannot let in a user who was disabled meanwhile."""

    async def scenario() -> None:
        started, finish = asyncio.Event(), asyncio.Event()

        async def slowly(verifier: str | None, secret: Secret, user_id: str) -> bool:
            started.set()
            await finish.wait()
            return verify(verifier, secret, user_id)

        broker = EmbeddedAccountBroker("embedded", EmbeddedBroker(port=0), slowly)
        await broker.put_user(user(1))
        login = asyncio.create_task(broker._admit("user-1", b"Pass-word-1", "gw1", None))
        await started.wait()
        await broker.put_user(user(1, enabled=False))
        finish.set()
        assert await login is None
        await broker.put_user(user(1))
        assert await broker._admit("user-1", b"Pass-word-1", "gw1", None) is not None

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["user-1", "nobody"])
def test_an_unknown_user_costs_a_check_too(name: str) -> None:
    """F-20: the password is checked once for a known and for an unknown user, and bytes that are no text for none."""
    asked: list[tuple[str | None, str]] = []

    def noting(verifier: str | None, secret: Secret, user_id: str) -> bool:
        asked.append((verifier, user_id))
        return False

    async def scenario() -> None:
        broker = EmbeddedAccountBroker("embedded", EmbeddedBroker(port=0), noting)
        await broker.put_user(user(1))
        assert await broker._admit(name, b"Some-word-1", "gw1", None) is None
        assert await broker._admit(name, b"\xff\xfe", "gw1", None) is None

    asyncio.run(scenario())
    assert asked == [(user(1).verifier, "acme/user-1") if name == "user-1" else (None, "/nobody")]


class Records(logging.Handler):
    """What a site's own handler on the root logger gets, where the loggers of ``names`` let everything through."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._levels = {logging.getLogger(name): logging.getLogger(name).level for name in ("", *names)}

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def __enter__(self) -> Self:
        for logger in self._levels:
            logger.setLevel(logging.DEBUG)
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
        for logger, level in self._levels.items():
            logger.setLevel(level)


def test_logs_are_quiet_and_hold_no_secret(stage: Stage) -> None:
    """Common ends make no traceback and no warning; no password or payload is logged at any level."""
    with Records("amqtt") as log:
        made = stage.put(user(1))
        device = stage.of(made, will=("acme/gw1/lwt", b"Pay-load-1", False)).admitted()
        device.subscribe("acme/gw1/#")
        device.publish("acme/gw1/data", b"Pay-load-1", retain=True)
        device.publish("acme/gw2/data", b"Pay-load-1")
        device.vanish()
        stage.of(made).admitted()
        stage.of(made).admitted().close()
        assert stage.device("gw1", "user-1", "Wrong-word-1").connect() in REFUSED
        stage.put(replace(made, enabled=False))
        assert until(lambda: stage.seen("gw1")[-1:] == [False])
    text = "\n".join(record.getMessage() for record in log.records)
    assert "login refused" in text
    assert not any(secret in text for secret in ("Pass-word-1", "Wrong-word-1", "Pay-load-1"))
    assert [r.getMessage() for r in log.records if r.exc_info or r.levelno >= logging.WARNING] == []
