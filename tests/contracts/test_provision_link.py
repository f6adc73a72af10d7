"""The link to a broker in the place of the gate, against a real mosquitto: what is acknowledged when, how much is under
way at once, who shares the messages, and what a failure does."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.packets import V5, PubAck
from provisioner.account_brokers.mosquitto_passwords import LoginFiles, Reload, password_digest
from provisioner.link.mosquitto import WINDOW_MIN, Handler, LinkOptions, MosquittoLink
from provisioner.model.secret import Secret
from tests.support.device import Wire
from tests.support.mosquitto_gate import SECRET, MosquittoGate

DEVICE, DEVICE_SECRET = "meters", "Factory-pass-1"
WAIT_S = 8.0
ACCESS = f"""user fleetgate
topic read ask/+
topic write answer/+
user east
topic read ask/+
user west
topic read ask/+
user {DEVICE}
topic write ask/+
topic read answer/+
"""


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MosquittoGate]:
    """Running, with two provisioners and one device in its files."""
    gate = MosquittoGate(tmp_path_factory.mktemp("gate") / "installation")
    gate.installation()
    users = {"fleetgate": SECRET, "east": SECRET, "west": SECRET, DEVICE: DEVICE_SECRET}
    lines = "".join(f"{name}:{password_digest(Secret(password))}\n" for name, password in users.items())
    (gate.folder / "provision/passwords").write_text(lines)
    (gate.folder / "provision/acl").write_text(ACCESS)
    with gate:
        yield gate


@pytest.fixture
def device(gate: MosquittoGate) -> Iterator[Wire]:
    with Wire(gate.plain, V5) as wire:
        assert wire.connect(DEVICE, DEVICE, DEVICE_SECRET) == 0
        assert wire.subscribe("answer/+") == (1,)
        yield wire


def options(gate: MosquittoGate, username: str = "fleetgate", **changes: Any) -> LinkOptions:
    tls = ssl.create_default_context(cafile=gate.base / "ca/ca.pem")
    plain: dict[str, Any] = {"host": "localhost", "port": gate.port, "tls": tls, "filters": ("ask/+",)}
    return LinkOptions(**plain, client_id=username, username=username, password=Secret(SECRET), **changes)


@asynccontextmanager
async def linked(given: LinkOptions, handler: Handler) -> AsyncIterator[MosquittoLink]:
    link = MosquittoLink(given, handler)
    await link.start()
    try:
        await until(lambda: link.is_up)
        yield link
    finally:
        await link.stop(1.0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in another thread or process
            await asyncio.sleep(0.01)


async def ask(device: Wire, *names: str) -> None:
    """Publish without waiting for the broker."""
    for name in names:
        await asyncio.to_thread(device.publish, f"ask/{name}", name.encode(), wait=False)


def test_message_is_delivered_again_until_it_was_handled(gate: MosquittoGate, device: Wire) -> None:
    """F-23: a message whose handling was cut off is not acknowledged and comes again to the next connection; one that
    was handled does not."""
    heard: list[str] = []

    async def scene() -> None:
        never = asyncio.Event()

        async def cut_off(topic: str, payload: bytes, retain: bool) -> None:
            heard.append(topic)
            if topic == "ask/slow":
                await never.wait()

        async with linked(options(gate), cut_off):
            await ask(device, "fast", "slow")
            await until(lambda: len(heard) == 2)

        async def handle(topic: str, payload: bytes, retain: bool) -> None:
            heard.append(topic)

        async with linked(options(gate), handle):
            await ask(device, "next")
            await until(lambda: "ask/next" in heard)

    asyncio.run(scene())
    assert heard == ["ask/fast", "ask/slow", "ask/slow", "ask/next"]


def test_no_more_than_the_window_is_under_way(gate: MosquittoGate, device: Wire) -> None:
    """While as many messages as the window are being handled, the broker keeps the rest; they come one for one."""
    under_way, most, handled = 0, 0, 0

    async def scene() -> None:
        gates = asyncio.Semaphore(0)

        async def handle(topic: str, payload: bytes, retain: bool) -> None:
            nonlocal under_way, most, handled
            under_way += 1
            most = max(most, under_way)
            await gates.acquire()
            under_way, handled = under_way - 1, handled + 1

        async with linked(options(gate), handle):
            await ask(device, *(f"n{n}" for n in range(WINDOW_MIN + 50)))
            await until(lambda: under_way == WINDOW_MIN)
            gates.release()
            await until(lambda: handled == 1 and under_way == WINDOW_MIN)
            for _ in range(WINDOW_MIN + 50):
                gates.release()
            await until(lambda: handled == WINDOW_MIN + 50)

    asyncio.run(scene())
    assert most == WINDOW_MIN


def test_message_that_cannot_be_handled_stops_nobody(gate: MosquittoGate, device: Wire) -> None:
    """A failure is acknowledged as well, so that it neither comes again for ever nor takes a place in the window."""
    heard: list[str] = []

    async def scene() -> None:
        async def handle(topic: str, payload: bytes, retain: bool) -> None:
            heard.append(topic)
            if topic.startswith("ask/bad"):
                raise RuntimeError("no")

        async with linked(options(gate), handle):
            await ask(device, *(f"bad{n}" for n in range(WINDOW_MIN + 5)), "good")
            await until(lambda: "ask/good" in heard)
        async with linked(options(gate), handle):
            await ask(device, "last")
            await until(lambda: "ask/last" in heard)

    asyncio.run(scene())
    assert len(heard) == len(set(heard)) == WINDOW_MIN + 7


def test_several_provisioners_share_the_messages(gate: MosquittoGate, device: Wire) -> None:
    """Two provisioners of one group each get a part of the messages, and every message goes to one of them."""
    heard: dict[str, list[str]] = {"east": [], "west": []}

    async def scene() -> None:
        def handler(name: str) -> Handler:
            async def handle(topic: str, payload: bytes, retain: bool) -> None:
                heard[name].append(topic)

            return handle

        one = options(gate, "east", share_group="g")
        other = options(gate, "west", share_group="g")
        async with linked(one, handler("east")), linked(other, handler("west")):
            await ask(device, *(f"s{n}" for n in range(40)))
            await until(lambda: sum(map(len, heard.values())) == 40)

    asyncio.run(scene())
    assert all(len(topics) > 5 for topics in heard.values())
    assert not set(heard["east"]) & set(heard["west"])


def test_link_outlives_its_broker(gate: MosquittoGate, device: Wire) -> None:
    """An answer reaches the device at once and is not retained; after a restart of the broker answers go on."""

    async def scene() -> None:
        links: list[MosquittoLink] = []

        async def handle(topic: str, payload: bytes, retain: bool) -> None:
            assert links[0].send(f"answer/{payload.decode()}", b"yes")

        async with linked(options(gate), handle) as link:
            links.append(link)
            await ask(device, "a1")
            message = await asyncio.to_thread(device.message)
            assert message is not None and (message.topic, message.retain) == ("answer/a1", False)
            gate.kill()
            await until(lambda: not link.is_up)
            await asyncio.to_thread(gate.start)
            await until(lambda: link.is_up)
            with Wire(gate.plain) as again:
                assert await asyncio.to_thread(again.connect, DEVICE, DEVICE, DEVICE_SECRET) == 0
                await asyncio.to_thread(again.subscribe, "answer/+")
                await ask(again, "a2")
                message = await asyncio.to_thread(again.message)
            assert message is not None and message.topic == "answer/a2"

    asyncio.run(scene())


def test_retain_flag_is_told(gate: MosquittoGate, device: Wire) -> None:
    """F-07: the handler learns that a message was to be retained, and what is retained already is not delivered."""
    heard: list[tuple[str, bool]] = []

    async def scene() -> None:
        async def handle(topic: str, payload: bytes, retain: bool) -> None:
            heard.append((topic, retain))

        async with linked(options(gate), handle):
            await asyncio.to_thread(device.publish, "ask/kept", b"1", retain=True, wait=False)
            await until(lambda: heard == [("ask/kept", True)])
        async with linked(options(gate), handle):
            await ask(device, "plain")
            await until(lambda: len(heard) == 2)
        await asyncio.to_thread(device.publish, "ask/kept", b"", retain=True)

    asyncio.run(scene())
    assert heard[1:] == [("ask/plain", False)]


def test_link_that_is_refused_waits_for_its_login(gate: MosquittoGate) -> None:
    """A broker that does not know the provisioner yet is asked again until it does, and no thread is left behind."""
    before = threading.active_count()
    files = LoginFiles(
        password_file=gate.folder / "provision/passwords",
        acl_file=gate.folder / "provision/acl",
        reload=Reload(pid_file=gate.folder / "pid"),
    )
    passwords = files.password_file.read_text()

    async def nobody(topic: str, payload: bytes, retain: bool) -> None:
        raise AssertionError("nothing was asked")

    async def scene() -> None:
        link = MosquittoLink(options(gate, "late"), nobody)
        await link.start()
        await asyncio.sleep(0.2)
        assert not link.is_up
        await asyncio.to_thread(files, passwords + f"late:{password_digest(Secret(SECRET))}\n", ACCESS)
        await until(lambda: link.is_up)
        await link.stop(1.0)
        assert not link.is_up
        await asyncio.to_thread(files, passwords, ACCESS)

    asyncio.run(scene())
    assert threading.active_count() == before


def test_link_stops_while_there_is_no_broker(tmp_path: Path) -> None:
    """Stopping does not wait for a broker that cannot be reached."""
    gate = MosquittoGate(tmp_path / "installation")

    async def nobody(topic: str, payload: bytes, retain: bool) -> None:
        raise AssertionError("nothing was asked")

    async def scene() -> None:
        given = LinkOptions(
            host="127.0.0.1",
            port=gate.port,
            tls=None,
            client_id="c",
            username="u",
            password=Secret(SECRET),
            filters=("ask/+",),
        )
        link = MosquittoLink(given, nobody)
        await link.start()
        await asyncio.sleep(0.3)
        async with asyncio.timeout(3.0):
            await link.stop(1.0)
        assert not link.is_up

    asyncio.run(scene())


def test_window_has_a_least_size(gate: MosquittoGate) -> None:
    """A window so small that one slow commit would stop the queue is refused."""
    with pytest.raises(ValueError, match="window"):
        options(gate, window=WINDOW_MIN - 1)


def test_too_large_a_packet_and_a_foreign_topic(gate: MosquittoGate, device: Wire) -> None:
    """F-36: more than 66,560 bytes end the connection; a topic that is not allowed is told so in MQTT 5."""
    assert device.publish("ask/x/y", b"1") == 0x87
    device.publish("ask/big", b"x" * 66_500, wait=False)
    assert isinstance(device.next(PubAck), PubAck)
    device.publish("ask/big", b"x" * 66_600, wait=False)
    assert device.is_cut()
