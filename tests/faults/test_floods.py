"""Half-open sockets and floods of CONNECTs: who behaves is served meanwhile, and all is given back afterwards."""

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from broker.encoding import encode
from broker.packets import V311, Connect
from tests.support.device import Address, Credentials
from tests.support.flood import Flood
from tests.support.installation import Installation

LEGITIMATE_S_MAX = 5.0
CONNECT_DEADLINE_S = 10.0
HALF_OPEN = 500
CHOSEN = "Correct-horse-battery-1"
HASHING_THREADS = 2  # of the service; each has 19 MiB to work in
HASHING_BYTES_MAX = HASHING_THREADS * 19_922_944 + 30_000_000
DESCRIPTORS_SPARE = 5


@pytest.fixture
def installation(make_installation: Callable[..., Installation]) -> Iterator[Installation]:
    made = make_installation(log_level="INFO")
    with made.running():
        made.account()
        yield made
        made.legitimate_device_provisions("in-the-end")
        assert "Traceback" not in made.log.read_text()


@contextmanager
def half_open(gates: list[Address], count: int) -> Iterator[list[socket.socket]]:
    """Connections that said one byte of what a CONNECT, a TLS or a WebSocket handshake begins with."""
    with ExitStack() as stack:
        sockets = []
        for number in range(count):
            gate = gates[number % len(gates)]
            each = stack.enter_context(socket.create_connection((gate.host, gate.port)))
            each.sendall(b"\x16" if gate.ca else b"G" if gate.websocket else b"\x10")
            sockets.append(each)
        yield sockets


def cut_times_s(sockets: list[socket.socket], began_s: float, within_s: float) -> list[float]:
    """When the peer closed each of them, after ``began_s``; those that are still open are missing."""
    times = []
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            each.setblocking(False)
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map() and (left_s := began_s + within_s - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                if _is_over(key.fileobj):
                    selector.unregister(key.fileobj)
                    times.append(time.monotonic() - began_s)
    return times


def _is_over(each: object) -> bool:
    assert isinstance(each, socket.socket)
    try:
        return each.recv(65_536) == b""
    except ConnectionError:
        return True


def await_descriptors(installation: Installation, most: int, timeout_s: float = 10.0) -> None:
    until_s = time.monotonic() + timeout_s
    while (now := installation.descriptors()) > most:
        assert time.monotonic() < until_s, f"{now} descriptors, not {most}"
        time.sleep(0.05)


def seconds_to_provision(installation: Installation, credentials: Credentials) -> float:
    """From the first knock until the answer, knocking again as a device does."""
    began_s = time.monotonic()
    while True:
        try:
            with installation.device(credentials) as device:
                if device.ask()["status"] == "provisioned":
                    return time.monotonic() - began_s
        except OSError:
            pass  # refused for the time being
        assert time.monotonic() - began_s < 4 * LEGITIMATE_S_MAX, "never let in"
        time.sleep(0.1)


def test_f_34_half_open_sockets_are_dropped_after_ten_seconds(installation: Installation) -> None:
    """F-34: 500 sockets with one byte each keep nobody out, are closed at 10 s, and give their descriptors back."""
    gates = [installation.plain, installation.secure, installation.websocket]
    before = installation.descriptors()
    began_s = time.monotonic()
    with half_open(gates, HALF_OPEN) as sockets:
        opened_s = time.monotonic() - began_s
        # An administrator's connection may just have been ending while they were counted.
        while installation.descriptors() < before + HALF_OPEN - DESCRIPTORS_SPARE:
            assert time.monotonic() - began_s < CONNECT_DEADLINE_S, "not all were accepted"
        for number in range(3):
            installation.legitimate_device_provisions(f"meanwhile-{number}", within_s=LEGITIMATE_S_MAX)
        times_s = cut_times_s(sockets, began_s, CONNECT_DEADLINE_S + opened_s + 3)
        assert len(times_s) == HALF_OPEN
        assert min(times_s) > CONNECT_DEADLINE_S - 1
        await_descriptors(installation, before + DESCRIPTORS_SPARE)
    rows = installation.await_audit("connect.timeout", timeout_s=5)
    assert {row["reason"] for row in rows} == {"no_connect"}


def test_f_34_those_who_drip_gain_no_time(make_installation: Callable[..., Installation]) -> None:
    """F-34: one more byte of a CONNECT now and then does not move the deadline."""
    installation = make_installation(gate={"limits": {"connect_deadline_s": 2.0}})
    with installation.running(), half_open([installation.plain], 20) as sockets:
        began_s, dripping = time.monotonic(), list(sockets)
        for each in sockets:
            each.sendall(b"\x7f")
        while dripping:
            assert time.monotonic() - began_s < 5, f"{len(dripping)} are still dripping"
            time.sleep(0.2)
            dripping = [each for each in dripping if _drips(each)]
        assert time.monotonic() - began_s > 1.8


def _drips(each: socket.socket) -> bool:
    try:
        each.sendall(b"\x00")
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "duration_s",
    [15.0, pytest.param(60.0, marks=[pytest.mark.soak, pytest.mark.timeout(180)])],
    ids=["quarter", "minute"],
)
def test_f_35_a_flood_of_connects_keeps_no_device_out(installation: Installation, duration_s: float) -> None:
    """F-35: at 200 CONNECTs a second with chosen passwords from many addresses p95 stays below 5 s; hashing is bounded.

    Legitimate are devices with generated passwords, and a fleet whose chosen password was checked before."""
    fleet = [installation.request(f"legit-{n}") for n in range(int(duration_s * 5))]
    chosen = installation.request("chosen", password=CHOSEN)
    seconds_to_provision(installation, chosen)
    before, memory, cpu_s = installation.descriptors(), installation.resident_bytes(), installation.cpu_s()
    began_s, taken_s = time.monotonic(), []
    with Flood(installation.plain, 200, _valid_looking, _anywhere, stay_s=20.0) as flood:
        for number, credentials in enumerate(fleet):
            time.sleep(max(0.0, began_s + number * 0.2 - time.monotonic()))
            taken_s.append(seconds_to_provision(installation, credentials))
            if number % 10 == 0:
                taken_s.append(seconds_to_provision(installation, chosen))
            if time.monotonic() - began_s > duration_s:
                break
        elapsed_s = time.monotonic() - began_s
        cpu_s = installation.cpu_s() - cpu_s
        grown = installation.resident_bytes() - memory
    assert flood.opened > 150 * elapsed_s
    assert sorted(taken_s)[int(len(taken_s) * 0.95)] < LEGITIMATE_S_MAX
    assert 0 not in flood.told, "a stranger was let in"
    assert cpu_s < elapsed_s * (HASHING_THREADS + 0.5)
    assert grown < HASHING_BYTES_MAX
    await_descriptors(installation, before + DESCRIPTORS_SPARE)
    print(f"opened {flood.opened} in {elapsed_s:.0f} s, told {dict(flood.told)}, {cpu_s:.1f} s of CPU, +{grown} bytes")


def _valid_looking(number: int) -> bytes:
    """Half of them claim to be of a user that exists."""
    username = f"user-legit-{number % 20}" if number % 2 else f"user-{number}"
    return encode(Connect(f"legit-{number % 50}", username=username, password=b"Wrong-horse-%d" % number), V311)


def _anywhere(number: int) -> str:
    return f"127.9.{number % 200}.{number % 249 + 1}"
