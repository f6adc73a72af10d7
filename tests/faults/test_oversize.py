"""Too big, too deep, too clever: refused at the limit, at once, and without taking the memory that it asks for."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.encoding import encode
from broker.packets import V5, V311, ConnAck, Connect, Publish, Version
from provisioner.doors.row_files import RowFile
from provisioner.model.draft import REQUEST_FIELDS
from provisioner.model.errors import InvalidInput
from tests.support.device import Address, Wire
from tests.support.gateway import EsfGateway
from tests.support.installation import Installation

FreshId = Callable[[], str]
GROWN_BYTES_MAX = 5_000_000
REFUSAL_S_MAX = 0.05
MEGABYTE = bytes(1 << 20)
CONNECT_OF_256_MIB = b"\x10\xff\xff\xff\x7f"
PUBLISH_OF_64_MIB = b"\x32\x80\x80\x80\x20"
DOORS = ("plain", "secure", "websocket", "admin", "account")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("oversize") / "installation", log_level="INFO")
    with made.running():
        made.account()
        for door in DOORS:  # what the first connection of each kind needs is not growth
            with Wire(_door(made, door)) as wire:
                wire.socket.sendall(CONNECT_OF_256_MIB)
                assert wire.is_cut()
        yield made
        assert "Traceback" not in made.log.read_text()


def _door(installation: Installation, name: str) -> Address:
    return {
        "plain": installation.plain,
        "secure": installation.secure,
        "websocket": installation.websocket,
        "admin": Address(installation.admin_port),
        "account": installation.account_brokers["embedded"],
    }[name]


@contextmanager
def no_growth(installation: Installation) -> Iterator[None]:
    """The service's memory, looked at every few milliseconds, stays within 5 MB of what it was."""
    before, most, ended = installation.resident_bytes(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            most.append(installation.resident_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert max(most) - before < GROWN_BYTES_MAX


def pour(wire: Wire, bytes_max: int) -> int:
    """How many megabytes the peer takes before it ends the connection."""
    wire.socket.settimeout(5)
    taken = 0
    try:
        while taken < bytes_max:
            wire.socket.sendall(MEGABYTE)
            taken += len(MEGABYTE)
    except OSError:
        return taken
    return taken


@pytest.mark.parametrize("door", DOORS)
def test_f_36_a_connect_of_256_mib_is_cut_at_its_head(installation: Installation, door: str) -> None:
    """F-36: before anybody is known, no listener waits for, or keeps, what a length of 256 MiB announces."""
    with no_growth(installation):
        for _ in range(10):
            with Wire(_door(installation, door)) as wire:
                wire.socket.sendall(CONNECT_OF_256_MIB)
                assert pour(wire, 64 << 20) < 16 << 20, "most of it was taken"
                assert wire.is_cut()
    installation.legitimate_device_provisions(f"after-connect-{door}")


@pytest.mark.parametrize("version", [V311, V5])
@pytest.mark.parametrize("door", ["plain", "secure", "websocket"])
def test_f_36_a_payload_of_64_mib_is_cut_at_its_head(
    installation: Installation, fresh_id: FreshId, door: str, version: Version
) -> None:
    """F-36: a device that is known may not send more than the packet limit either; other devices notice nothing."""
    credentials = installation.request(fresh_id())
    with no_growth(installation):
        for _ in range(5):
            with Wire(_door(installation, door), version) as wire:
                assert wire.connect(credentials.client_id, credentials.username, credentials.password) == 0
                wire.socket.sendall(PUBLISH_OF_64_MIB)
                assert pour(wire, 64 << 20) < 16 << 20, "most of it was taken"
                assert wire.is_cut()
    installation.legitimate_device_provisions(fresh_id())


def test_f_36_the_limits_are_where_they_are_said_to_be(installation: Installation, fresh_id: FreshId) -> None:
    """F-36: a payload of 65,536 bytes is read and answered, a packet above 66,560 is not; a CONNECT has 4 KiB."""
    with installation.device(installation.request(fresh_id())) as device:
        assert json.loads(device.ask_raw(b"[" + b" " * 65_534 + b"]"))["status"] == "malformed"
        topic = f"{device.base}/request"
        device.wire.send(Publish(topic, bytes(66_561 - len(topic)), qos=1, packet_id=9))
        assert device.wire.is_cut()
    for password_bytes, is_read in ((3_900, True), (4_096, False)):
        with Wire(installation.plain) as wire:
            wire.socket.sendall(encode(Connect("a", username="u", password=b"p" * password_bytes), V311))
            assert isinstance(wire.next(ConnAck), ConnAck) == is_read
            assert wire.is_cut()


def test_f_36_many_who_stop_just_below_the_limit(installation: Installation) -> None:
    """F-36: a thousand strangers who each send all but the end of the largest CONNECT cost what they sent, at most."""
    partial = b"\x10\xff\x1f" + bytes(4_000)
    with no_growth(installation):
        wires = []
        try:
            for _ in range(500):
                wires.append(Wire(installation.plain))
                wires[-1].socket.sendall(partial[:2_000])
            time.sleep(0.2)
        finally:
            for wire in wires:
                wire.close()


def bomb(mebibytes: int) -> bytes:
    """That many MiB of zeros, in a packet that is small enough to be taken."""
    data = gzip.compress(bytes(mebibytes << 20), 9)
    assert len(data) < 65_536
    return data


NESTED = 10_000
BAD_JSON = {
    "deep lists": b"[" * NESTED + b"]" * NESTED,
    "deep objects": b'{"a":' * NESTED + b"1" + b"}" * NESTED,
    "deep in device": b'{"request_id":"m","device":{"a":' + b"[" * 40 + b"]" * 40 + b"}}",
    "unbalanced": b"[" * 65_000,
    "quotes": b'"' * 65_001,
    "backslashes": b'"' + b"\\" * 65_000,
    "not a number": b'{"request_id":"m","device":{"x":NaN}}',
    "infinity": b'{"request_id":"m","device":{"x":-Infinity}}',
    "too large": b'{"request_id":"m","device":{"x":1e400}}',
    "too long": b'{"request_id":"m","device":{"x":' + b"9" * 60_000 + b"}}",
    "exponent": b'{"request_id":"m","device":{"x":1e' + b"9" * 60_000 + b"}}",
    "twice": b'{"request_id":"m","request_id":"n"}',
    "twice below": b'{"request_id":"m","device":{"x":1,"\\u0078":2}}',
    "half a character": b'{"request_id":"\\ud800"}',
    "no UTF-8": b'{"request_id":"\xff"}',
    "many keys": b'{"request_id":"m","device":{' + b",".join(b'"k%d":1' % n for n in range(5_000)) + b"}}",
    "zeros": bytes(65_000),
    "nothing": b"",
    "gzip": bomb(60),
}
BAD_KURA = {
    "gzip bomb": bomb(60),
    "gzip of gzip": gzip.compress(bomb(60)),
    "cut gzip": bomb(60)[:30_000],
    "many members": gzip.compress(bytes(1 << 16), 9) * 300,
    "endless varint": b"\xff" * 60_000,
    "length beyond the end": b"\x2a\xff\xff\xff\xff\x07",
    "zeros": bytes(60_000),
    "json": b'{"request.id":"m"}',
    "nothing": b"",
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_f_37_json_that_is_none_is_malformed_at_once(installation: Installation, fresh_id: FreshId, name: str) -> None:
    """F-37: depth, duplicates, NaN, 1e400 and the like are answered ``malformed`` within 50 ms, memory untouched."""
    with installation.device(installation.request(fresh_id())) as device, no_growth(installation):
        times_s = []
        for _ in range(5):
            began_s = time.perf_counter()
            answer = json.loads(device.ask_raw(BAD_JSON[name]))
            times_s.append(time.perf_counter() - began_s)
            assert answer["status"] == "malformed"
        # The best of a few: a neighbour on this machine is none of the gate's work.
        assert min(times_s) < REFUSAL_S_MAX
        assert device.ask()["status"] == "provisioned"


@pytest.mark.parametrize("name", BAD_KURA)
def test_f_37_kura_payloads_that_burst_are_malformed_at_once(
    installation: Installation, fresh_id: FreshId, name: str
) -> None:
    """F-37: a gzip bomb is left at 1 MiB, broken protobuf at its first bad byte: ``malformed`` within 50 ms."""
    with EsfGateway(installation.plain, installation.request(fresh_id())) as gateway, no_growth(installation):
        times_s = []
        for _ in range(5):
            began_s = time.perf_counter()
            reply = gateway.ask(BAD_KURA[name])
            times_s.append(time.perf_counter() - began_s)
            assert reply.text("prov.status") == "malformed"
        assert min(times_s) < REFUSAL_S_MAX
        assert gateway.ask(gateway.question()).text("prov.status") == "provisioned"


ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
BAD_FILES: dict[str, tuple[str, str]] = {
    "anchor bomb": ("yaml", f"- {ALIASES.splitlines()[0]}\n  " + "\n  ".join(ALIASES.splitlines()[1:])),
    "merge bomb": ("yaml", "- &a {client_id: x}\n- <<: *a\n"),
    "deep yaml": ("yaml", "[" * NESTED + "]" * NESTED),
    "deep blocks": ("yaml", "- " * NESTED + "x"),
    "deep maps": ("yaml", "- " + "{a: " * NESTED + "1" + "}" * NESTED),
    "python object": ("yaml", "- !!python/object/apply:os.system [id]\n"),
    "deep json": ("json", "[" * NESTED + "]" * NESTED),
    "deep in a row": ("json", '[{"configuration":' + '{"a":' * NESTED + "1" + "}" * NESTED + "}]"),
    "not a number": ("json", '[{"max_attempts": NaN}]'),
    "a key twice": ("json", '[{"client_id": "a", "client_id": "b"}]'),
    "a key twice in yaml": ("yaml", "- client_id: a\n  client_id: b\n"),
    "endless cell": ("csv", 'client_id,account\n"' + "x" * 200_000),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_f_37_import_files_that_burst_are_refused_at_once(tmp_path: Path, name: str) -> None:
    """F-37: alias bombs, depth, repeated keys and objects of Python in a file are invalid input within 50 ms."""
    form, text = BAD_FILES[name]
    file = tmp_path / "bad"
    file.write_text(text)
    times_s = []
    for _ in range(5):
        began_s = time.perf_counter()
        with pytest.raises(InvalidInput), RowFile(str(file), form, REQUEST_FIELDS) as found:
            list(found)
        times_s.append(time.perf_counter() - began_s)
    assert min(times_s) < REFUSAL_S_MAX


@pytest.mark.parametrize("name", ["anchor bomb", "deep yaml", "deep json", "not a number", "a key twice"])
def test_f_37_the_command_line_stores_nothing_of_them(installation: Installation, tmp_path: Path, name: str) -> None:
    """F-37: such a file is exit status 6, as rows and as a configuration, and no request comes of it."""
    form, text = BAD_FILES[name]
    file = tmp_path / f"bad.{form}"
    file.write_text(text)
    before = installation.ask("status")["requests"]
    installation.cli("request", "import", str(file), status=6)
    new = ("--account", "acme", "--client-id", "burst", "--username", "user-burst")
    installation.cli("request", "create", *new, "--configuration", str(file), status=6)
    assert installation.ask("status")["requests"] == before


def test_f_37_an_envelope_that_bursts_is_refused_at_once(installation: Installation) -> None:
    """F-37: the administrators' door reads as strictly as the devices' does, and goes on."""
    credential = json.loads((installation.folder / "admin-credential.json").read_text())
    with Wire(Address(installation.admin_port), V5) as wire:
        assert wire.connect("admin-burst", credential["name"], credential["credential"]) == 0
        assert wire.subscribe("ctl/v1/admin-burst/response") == (1,)
        for payload in BAD_JSON.values():
            assert _told(wire, payload)["ok"] is False
        deep: Any = {"id": "1", "verb": "request.create", "params": {"fields": {"configuration": {"a": {}}}}}
        at = deep["params"]["fields"]["configuration"]["a"]
        for _ in range(35):
            at["b"] = {}
            at = at["b"]
        assert _told(wire, json.dumps(deep).encode())["error"]["kind"] == "invalid_input"
        assert _told(wire, b'{"id":"2","verb":"status","params":{}}')["ok"] is True


def _told(wire: Wire, payload: bytes) -> dict[str, Any]:
    times_s = []
    while not times_s or min(times_s) > 10 * REFUSAL_S_MAX:
        assert len(times_s) < 5, times_s
        began_s = time.perf_counter()
        wire.publish("ctl/v1/admin-burst/request", payload)
        message = wire.message()
        assert message is not None
        times_s.append(time.perf_counter() - began_s)
    answer = json.loads(message.payload)
    assert isinstance(answer, dict)
    return answer
