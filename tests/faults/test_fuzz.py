"""F-38: connections and provision messages with random damage leave the service as it was.

The seed is printed; ``FUZZ_SEED=...`` in the environment sets it."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import SystemRandom

import pytest

from broker.encoding import encode
from broker.packets import V5, V311, Connect, Disconnect, Publish, Subscribe, Subscription, Version, Will
from provisioner.dialects.kura_payload import KuraPayload, metric
from provisioner.dialects.kura_payload import encode as kura
from tests.support.device import Address, Credentials, Wire
from tests.support.gateway import EsfGateway
from tests.support.installation import Installation
from tests.support.mutator import Mutator

CONNECTIONS = 10_000
PAYLOADS = 5_000
AT_ONCE = 40
PAYLOADS_A_CONNECTION = 250
SEED = int(os.environ.get("FUZZ_SEED", "38"))
DESCRIPTORS_SPARE = 5
GROWN_BYTES_MAX = 50_000_000


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("fuzz") / "installation")
    with made.running():
        made.account()
        _warm(made)
        yield made


def _warm(installation: Installation) -> None:
    """What the first devices need, and the working memory of the two threads that hash passwords, is no growth."""
    for number in range(20):
        installation.legitimate_device_provisions(f"warm-{number}")
    with ThreadPoolExecutor(4) as pool:
        codes = pool.map(lambda number: _guess(installation, number), range(8))
    assert set(codes) == {5}


def _guess(installation: Installation, number: int) -> int:
    with Wire(installation.plain) as wire:
        return wire.connect("warm-1", "user-warm-1", f"Chosen-password-{number}")


@contextmanager
def unharmed(installation: Installation, name: str) -> Iterator[None]:
    """After the block the service is what it was: nothing escaped, nothing is kept, the next device provisions."""
    descriptors, memory = installation.descriptors(), installation.resident_bytes()
    yield
    until_s = time.monotonic() + 15
    while installation.descriptors() > descriptors + DESCRIPTORS_SPARE:
        assert time.monotonic() < until_s, f"{installation.descriptors()} descriptors, {descriptors} before"
        time.sleep(0.1)
    assert installation.resident_bytes() < memory + GROWN_BYTES_MAX
    installation.legitimate_device_provisions(f"after-{name}", within_s=5.0)
    log = installation.log.read_text()
    for word in ("Traceback", "application failed", "Exception", "never retrieved"):
        assert word not in log, log[max(0, log.index(word) - 500) : log.index(word) + 1_500]
    assert not installation.audit("application.failed")
    assert installation.ask("fsck") == {"findings": []}


def whole_walks(credentials: Credentials) -> list[tuple[bytes, bytes]]:
    """What devices say from CONNECT to DISCONNECT: the CONNECT, and everything behind it."""
    walks = []
    base, esf = f"prov/v1/{credentials.client_id}", f"$EDC/provision/{credentials.client_id}"
    for version in (V311, V5):
        for will in (None, Will(f"{esf}/MQTT/LWT", b"")):
            connect = Connect(
                credentials.client_id, username=credentials.username, password=credentials.password.encode(), will=will
            )
            rest = (
                Subscribe(1, (Subscription(f"{base}/response", 1), Subscription(f"{esf}/#", 0))),
                Publish(f"{base}/request", b'{"request_id":"m-1","device":{"a":1}}', qos=1, packet_id=2),
                Publish(f"{esf}/MQTT/BIRTH", kura(KuraPayload()), qos=0),
                Publish(f"{base}/ack", b'{"request_id":"m-1","result":"applied"}', qos=2, packet_id=3),
                Disconnect(),
            )
            walks.append((encode(connect, version), _encoded(rest, version)))
    return walks


def _encoded(packets: Sequence[Subscribe | Publish | Disconnect], version: Version) -> bytes:
    return b"".join(encode(packet, version) for packet in packets)


async def throw(gate: Address, streams: Sequence[bytes]) -> Counter[bytes]:
    """Each on a connection of its own, from many addresses; counts the first bytes of what was answered."""
    heard: Counter[bytes] = Counter()
    free = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, stream: bytes) -> None:
        async with free:
            source = (f"127.38.{number // 250 % 250}.{number % 250 + 1}", 0)
            reader, writer = await asyncio.open_connection(gate.host, gate.port, local_addr=source)
            try:
                async with asyncio.timeout(2):
                    writer.write(stream)
                    writer.write_eof()
                    heard[(await reader.read(1))] += 1
                    await reader.read()
            except (OSError, TimeoutError):
                heard[b"cut"] += 1
            finally:
                writer.close()

    await asyncio.gather(*(one(number, stream) for number, stream in enumerate(streams)))
    return heard


def throw_all(installation: Installation, seed: int, count: int) -> Counter[bytes]:
    devices = [installation.request(f"walk-{seed}-{number}") for number in range(100)]
    walks = [walk for device in devices for walk in whole_walks(device)]
    mutator = Mutator(f"{seed}/walks", [connect + rest for connect, rest in walks])
    streams = []
    for _ in range(count):
        connect, rest = mutator.chance.choice(walks)
        # Half of them get past the door, so that what lies behind it is tried as well.
        streams.append(connect + mutator.damaged(rest) if mutator.chance.random() < 0.5 else mutator.next())
    return asyncio.run(throw(installation.plain, streams))


def json_samples(key: str) -> list[bytes]:
    whole = {"request_id": "m-1", "activation_key": key, "csr": "-----BEGIN", "device": {"model_id": "S", "n": 1}}
    return [
        json.dumps(whole).encode(),
        b'{"request_id":"m-1","device":{"a":[1,2,{"b":null}],"c":1.5e3,"\\u00e9":true}}',
    ]


def kura_samples() -> list[bytes]:
    metrics = (
        metric("request.id", "m-1"), metric("requester.client.id", "gw"), metric("prov.version", 1),
        metric("activation.key", "WRONG"), metric("serial_number", "S"), metric("x", 1.5), metric("y", b"\x00"),
    )  # fmt: skip
    message = KuraPayload(timestamp_ms=1_700_000_000_000, metrics=metrics, body=b"-----BEGIN")
    return [kura(message), kura(message, compress=True), kura(KuraPayload(metrics=metrics[:3]))]


def ask_json(installation: Installation, seed: int, count: int) -> Counter[str]:
    """Every question gets one answer, whatever is left of it."""
    answers: Counter[str] = Counter()
    mutator: Mutator | None = None
    for number in range(count):
        if number % PAYLOADS_A_CONNECTION == 0:
            credentials = installation.request(f"json-{seed}-{number}", activation_key=True)
            mutator = mutator or Mutator(f"{seed}/json", json_samples(credentials.activation_key or ""))
            device = installation.device(credentials)
        assert mutator is not None
        answers[json.loads(device.ask_raw(mutator.next()))["status"]] += 1
        if (number + 1) % PAYLOADS_A_CONNECTION == 0:
            device.wire.leave()
    return answers


def ask_kura(installation: Installation, seed: int, count: int) -> Counter[str | None]:
    answers: Counter[str | None] = Counter()
    mutator = Mutator(f"{seed}/kura", kura_samples())
    for number in range(count):
        if number % PAYLOADS_A_CONNECTION == 0:
            gateway = EsfGateway(installation.plain, installation.request(f"kura-{seed}-{number}", activation_key=True))
        gateway.wire.publish(f"{gateway.base}/MQTT/BIRTH", mutator.next(), wait=False)
        answers[gateway.ask(mutator.next()).text("prov.status")] += 1
        if (number + 1) % PAYLOADS_A_CONNECTION == 0:
            gateway.wire.leave()
    return answers


def test_f_38_ten_thousand_damaged_connections(installation: Installation) -> None:
    """F-38: after 10,000 mutated walks the service is alive, has kept nothing, and has logged no traceback."""
    print(f"seed {SEED}")
    with unharmed(installation, "walks"):
        heard = throw_all(installation, SEED, CONNECTIONS)
    print(heard)
    assert heard[b"\x20"] > CONNECTIONS // 10, "hardly anything got as far as a CONNACK"


def test_f_38_five_thousand_damaged_questions(installation: Installation) -> None:
    """F-38: 5,000 mutated provision messages, JSON and Kura, are answered one by one, nearly all with a refusal."""
    print(f"seed {SEED}")
    with unharmed(installation, "questions"):
        by_json = ask_json(installation, SEED, PAYLOADS // 2)
        by_kura = ask_kura(installation, SEED, PAYLOADS // 2)
    print(by_json, by_kura)
    assert by_json.total() == by_kura.total() == PAYLOADS // 2
    assert by_json["malformed"] > PAYLOADS // 10
    assert by_kura["malformed"] > PAYLOADS // 10
    assert "provisioned" not in by_kura, "none of them had the key"


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("turn", range(10))
def test_f_38_other_seeds(installation: Installation, turn: int) -> None:
    """F-38: the same with a new seed at each run."""
    seed = SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    with unharmed(installation, f"seed-{seed}"):
        throw_all(installation, seed, CONNECTIONS)
        ask_json(installation, seed, PAYLOADS // 2)
        ask_kura(installation, seed, PAYLOADS // 2)
