"""The client of the service's own connections: what is changed in paho, against a real mosquitto, in a process that
holds more descriptors than ``select`` takes."""

import asyncio
import os
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from provisioner.account_brokers.mosquitto_passwords import password_digest
from provisioner.link.mosquitto import LinkOptions, MosquittoLink
from provisioner.link.probe import Door, Login, Probe, trusting
from provisioner.model.secret import Secret
from provisioner.mqtt_client import Client
from tests.contracts.account_broker_stage import user
from tests.contracts.mosquitto_stage import mosquitto_stage
from tests.contracts.mqtt_device import until
from tests.support.device import Address, Wire
from tests.support.mosquitto import mosquitto_settings
from tests.support.mosquitto_gate import SECRET, MosquittoGate
from tests.support.ports import free_ports

OWN = "fleetgate"
SELECT_MAX = 1_024
ACCESS = f"user {OWN}\ntopic readwrite own/#\n"


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MosquittoGate]:
    """Running, with the service's own user."""
    gate = MosquittoGate(tmp_path_factory.mktemp("gate") / "installation")
    gate.installation()
    (gate.folder / "provision/passwords").write_text(f"{OWN}:{password_digest(Secret(SECRET))}\n")
    (gate.folder / "provision/acl").write_text(ACCESS)
    with gate:
        yield gate


@pytest.fixture
def crowded() -> Iterator[None]:
    """Every descriptor that ``select`` could take is in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * SELECT_MAX), hard))
    held = []
    try:
        while not held or held[-1] <= SELECT_MAX:
            held.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def trusted(gate: MosquittoGate) -> ssl.SSLContext:
    return trusting([(gate.base / "ca/ca.pem").read_text()], by_name=True)


def made(gate: MosquittoGate, **options: Any) -> Client:
    client = Client(OWN, clean=True, **options)
    client.username_pw_set(OWN, SECRET)
    return client


@pytest.mark.parametrize("tls", [True, False])
def test_f_34_the_link_works_beyond_1023_descriptors(gate: MosquittoGate, crowded: None, tls: bool) -> None:
    """F-34: the link to a broker in the place of the gate joins, hears and answers in a process with that many."""
    heard: list[bytes] = []
    options = LinkOptions(
        host="localhost",
        port=gate.port if tls else gate.plain_port,
        tls=trusted(gate) if tls else None,
        client_id=OWN,
        username=OWN,
        password=Secret(SECRET),
        filters=("own/#",),
    )

    async def scene() -> None:
        async def take(topic: str, payload: bytes, retain: bool) -> None:
            heard.append(payload)

        link = MosquittoLink(options, take)
        await link.start()
        await asyncio.to_thread(_await, lambda: link.is_up)
        for number in range(50):
            assert link.send(f"own/{number}", b"%d" % number)
        await asyncio.to_thread(_await, lambda: len(heard) == 50)
        await link.stop(1.0)

    asyncio.run(scene())
    assert heard == [b"%d" % number for number in range(50)]


@pytest.mark.parametrize("kind", ["mosquitto-files", "mosquitto-dynsec"])
def test_f_34_account_brokers_are_told_beyond_1023_descriptors(crowded: None, tmp_path: Path, kind: str) -> None:
    """F-34: users are put, sighted and kicked over a connection with such a descriptor."""
    with mosquitto_stage(mosquitto_settings(kind), tmp_path) as stage:
        one = stage.put(user(1))
        assert one.password is not None
        with Wire(Address(stage.server.settings.port)) as device:
            assert device.connect("gw1", one.username, one.password.reveal()) == 0
            assert until(lambda: stage.seen("gw1") == [True])
            assert stage.loop.run(stage.broker.kick("acme", "gw1")) is True
            assert device.is_cut()


def test_f_34_isolation_is_tried_beyond_1023_descriptors(gate: MosquittoGate, crowded: None) -> None:
    """F-34: the self-test's connections hear what they publish."""
    door = Door(host="localhost", port=gate.port, tls=trusted(gate))
    probe = Probe(door, OWN, Login(OWN, Secret(SECRET)), time.monotonic() + 20)
    assert probe.connect(), probe.failure
    assert probe.subscribe("own/#")
    probe.publish("own/x", b"mine")
    assert probe.await_payload(b"mine")
    probe.leave()


def test_what_another_thread_publishes_goes_out_at_once(gate: MosquittoGate) -> None:
    """Somebody who publishes wakes the network thread, which would else sleep for a second."""
    client, heard = made(gate), threading.Event()
    client.on_message = lambda *_: heard.set()
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", gate.plain_port)
    client.loop_start()
    client.subscribe("own/#", 1)
    assert subscribed.wait(5)
    took_s = []
    for _ in range(5):
        heard.clear()
        began_s = time.monotonic()
        client.publish("own/x", b"x", 1)
        assert heard.wait(5)
        took_s.append(time.monotonic() - began_s)
    client.leave()
    assert min(took_s) < 0.5


def test_small_packets_do_not_wait_for_each_other(gate: MosquittoGate) -> None:
    """Nagle's algorithm is off, with TLS and without."""
    for tls, port in ((None, gate.plain_port), (trusted(gate), gate.port)):
        client = made(gate, tls=tls)
        client.connect("localhost", port)
        line = client.socket()
        assert isinstance(line, socket.socket)
        assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        client.leave()


def test_what_fails_leaves_no_descriptor(gate: MosquittoGate) -> None:
    """A handshake that fails, nobody at the port, a login that is refused, an orderly end: all sockets are closed."""
    (nobody,) = free_ports(1)
    stranger = ssl.create_default_context()
    before = psutil.Process().num_fds()
    for _ in range(3):
        for tls, port in ((stranger, gate.port), (trusted(gate), gate.plain_port), (None, nobody)):
            client = made(gate, tls=tls)
            with pytest.raises(OSError):
                client.connect("localhost", port)
        client = made(gate, tls=trusted(gate))
        client.connect("localhost", gate.port)
        client.loop_start()
        client.leave()
    _await(lambda: psutil.Process().num_fds() <= before)


def test_f_31_who_lost_its_broker_comes_back_at_a_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-31: full jitter below a limit that doubles, and no waiting once it is told to leave."""
    longest: list[float] = []

    def drawn(least: float, most: float) -> float:
        assert least == 0
        longest.append(most)
        return most if len(longest) > 4 else 0.0

    monkeypatch.setattr("provisioner.mqtt_client._chance.uniform", drawn)
    (nobody,) = free_ports(1)
    client = Client(OWN, clean=True)
    client.reconnect_delay_set(1, 6)
    client.connect_async("127.0.0.1", nobody)
    client.loop_start()
    _await(lambda: len(longest) == 5)
    began_s = time.monotonic()
    client.leave()
    assert time.monotonic() - began_s < 4
    assert longest == [1, 2, 4, 6, 6]


def test_the_first_word_comes_before_all_others() -> None:
    """A preamble is the first that the peer reads."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(OWN, clean=True, preamble=b"PROXY UNKNOWN\r\n")
        client.connect("127.0.0.1", server.getsockname()[1])
        peer, _ = server.accept()
        with peer:
            assert peer.recv(64).startswith(b"PROXY UNKNOWN\r\n\x10")
        client.drop()


def _await(condition: Callable[[], bool]) -> None:
    assert until(condition, 10.0)
