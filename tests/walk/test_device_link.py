"""The link of a simulated device, byte by byte, against a gate that records what it gets."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from device_sim.actions import Connected, ConnectRefused, Disconnected, Event, Leg, Published, Target
from device_sim.faults import Chance, Cut, Faults, FaultSettings
from device_sim.link import Link, LinkOptions
from device_sim.timing import Timeouts
from device_sim.trust import Trust
from provisioner.model.secret import Secret

CONNECT, CONNACK, PUBACK, PUBLISH, DISCONNECT = 0x10, bytes((0x20, 2, 0, 0)), 0x40, 0x30, bytes((0xE0, 0))
TOPIC, BODY = "prov/v1/m/request", b"{}"


class RecordingGate:
    """Takes every MQTT 3.1.1 login and acknowledges every QoS 1 message; `heard` is what came, in packets."""

    def __init__(self, connack: bytes = CONNACK) -> None:
        self.heard: list[bytes] = []
        self.ended = asyncio.Event()
        self._connack = connack

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = b""
                head = await reader.readexactly(2)
                packet = head + await reader.readexactly(head[1])
                self.heard.append(packet)
                if packet[0] == CONNECT:
                    writer.write(self._connack)
                elif packet[0] & 0xF0 == PUBLISH:
                    at = 4 + int.from_bytes(packet[2:4])
                    writer.write(bytes((PUBACK, 2)) + packet[at : at + 2])
        except asyncio.IncompleteReadError as cut:
            self.heard += [head + cut.partial] if head + cut.partial else []
        except ConnectionResetError:
            pass
        writer.close()
        self.ended.set()


async def converse(gate: RecordingGate, settings: FaultSettings, on: Callable[[Link, Event], None]) -> list[Event]:
    """Connects a link to the gate, lets `on` react to its events, and returns these once it is over."""
    events: list[Event] = []
    over = asyncio.Event()

    def emit(event: Event) -> None:
        events.append(event)
        on(link, event)
        if isinstance(event, ConnectRefused | Disconnected):
            over.set()

    server = await asyncio.start_server(gate.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with ThreadPoolExecutor(1) as pool:
        timeouts = Timeouts(connect_s=5, connack_s=0.3)
        link = Link(LinkOptions(pool=pool, trust=Trust(), timeouts=timeouts), Faults(settings, Random(1)), emit)
        secret = Secret("Factory-pass-1")
        url = f"mqtt://127.0.0.1:{port}"
        link.connect(Target(leg=Leg.GATE, url=url, client_id="m", username="meters", password=secret))
        async with server, asyncio.timeout(10):
            await over.wait()
            await link.wait_closed()
            await gate.ended.wait()
    return events


def ask_then_leave(link: Link, event: Event) -> None:
    if event == Connected():
        link.publish(TOPIC, BODY, 1, asks=True)
    elif isinstance(event, Published):
        link.disconnect()


def test_f26_a_duplicate_is_the_same_message_with_dup() -> None:
    """F-26: same packet identifier, same content, DUP set [MQTT-3.3.1-1]; acknowledged once to the device."""

    async def walk() -> tuple[list[bytes], list[Event]]:
        gate = RecordingGate()
        events = await converse(gate, FaultSettings(duplicate=Chance(count=1)), ask_then_leave)
        return gate.heard, events

    heard, events = asyncio.run(walk())
    first, second = heard[1:3]
    assert (first[0], second[0]) == (0x32, 0x3A)
    assert first[1:] == second[1:]
    assert heard[-1] == DISCONNECT
    assert events == [Connected(), Published(TOPIC), Disconnected()]


@pytest.mark.parametrize("at_byte", [1, 9, 40, 60])
def test_a_cut_line_ends_at_its_byte(at_byte: int) -> None:
    """Exactly that many bytes arrive, and the device learns that it has no connection."""

    async def walk() -> tuple[list[bytes], list[Event]]:
        gate = RecordingGate()
        events = await converse(gate, FaultSettings(cut=Cut(at_byte=at_byte)), ask_then_leave)
        return gate.heard, events

    heard, events = asyncio.run(walk())
    assert len(b"".join(heard)) == at_byte
    assert isinstance(events[-1], Disconnected if at_byte > len(heard[0]) else ConnectRefused)


def test_a_gate_that_says_nothing_is_given_up() -> None:
    """No CONNACK within connack_s counts as not reachable."""

    async def walk() -> list[Event]:
        return await converse(RecordingGate(connack=b""), FaultSettings(), ask_then_leave)

    (event,) = asyncio.run(walk())
    assert event == ConnectRefused(None, "no CONNACK")


@pytest.mark.parametrize(("code", "reason_code"), [(3, 0x88), (4, 0x86), (5, 0x87)])
def test_a_refused_login_has_its_reason(code: int, reason_code: int) -> None:
    """A CONNACK code of 3.1.1 comes as the reason code that MQTT 5 has for it, and once."""

    async def walk() -> list[Event]:
        return await converse(RecordingGate(connack=bytes((0x20, 2, 0, code))), FaultSettings(), ask_then_leave)

    (event,) = asyncio.run(walk())
    assert isinstance(event, ConnectRefused)
    assert event.code == reason_code
