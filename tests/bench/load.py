"""A raw load generator: whole walks of devices, a fixed number of them under way.

One walk is: connect, SUBSCRIBE, PUBLISH a provision message, take the answer, PUBACK, DISCONNECT; with
``second_topic`` also: connect to the ``broker_url`` of the answer with the credentials in it and publish one message.
Packets are encoded before the clock starts, so that the generator is not what is measured.
``python -m tests.bench.load PORT [--devices N] [--in-flight C] [--ca FILE] [--second-topic TOPIC]``
"""

import argparse
import asyncio
import json
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from broker.encoding import encode
from broker.loop import run
from broker.packets import V311, Connect, Disconnect, PubAck, Publish, Subscribe, Subscription

_CONNACK, _PUBLISH, _PUBACK, _SUBACK = 2, 3, 4, 9
_GOODBYE = encode(Disconnect(), V311)


@dataclass(frozen=True, slots=True)
class Device:
    """Who walks. ``message`` is the provision message as published."""

    client_id: str
    username: str
    password: bytes = field(repr=False)
    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """``tls`` None: plain. ``second_topic`` None: no second hop; else a template with {client_id}, {username} and
    {account}. second_ca: where an answer brings a certificate, that is the login on the second hop, to a server whose
    certificate this authority signed. arrival_s: all of them arrive within this time, evenly, however many are under
    way; None: ``in_flight`` of them are, and the next one comes when one is done."""

    host: str = "127.0.0.1"
    port: int
    in_flight: int = 50
    tls: ssl.SSLContext | None = None
    second_tls: ssl.SSLContext | None = None
    second_topic: str | None = None
    walk_s_max: float = 30.0
    second_ca: Path | None = None
    arrival_s: float | None = None


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Figures of one round; latencies are of whole walks that succeeded, in seconds.

    outcomes: status of the answer, or what went wrong, with how many. passwords: how many different ones came."""

    devices: int
    provisioned: int
    seconds: float
    cpu_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    worst_s: float
    outcomes: dict[str, int]
    passwords: int

    @property
    def devices_per_s(self) -> float:
        return self.provisioned / self.seconds


class _Failed(Exception):
    """A walk that ended early; the text says where."""


class _Client(asyncio.Protocol):
    """Sends scripted bytes and wakes the walk for each packet of the server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hello: bytes) -> None:
        self._loop = loop
        self._hello = hello
        self._buffer = b""
        self._packets: list[tuple[int, bytes]] = []
        self._waiter: asyncio.Future[None] | None = None
        self._lost = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since the transports of uvloop are no subclasses.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (packet := self._next()) is not None:
            self._packets.append(packet)
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._wake()

    async def expect(self, kind: int, where: str) -> bytes:
        """The body of the next packet of this type; others are passed over."""
        while True:
            while self._packets:
                found, body = self._packets.pop(0)
                if found == kind:
                    return body
            if self._lost:
                raise _Failed(f"lost_at_{where}")
            self._waiter = self._loop.create_future()
            await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _next(self) -> tuple[int, bytes] | None:
        """Type and body of the first whole packet."""
        length = shift = 0
        for at in range(1, min(len(self._buffer), 5)):
            byte = self._buffer[at]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                end = at + 1 + length
                if len(self._buffer) < end:
                    return None
                packet = self._buffer[0] >> 4, self._buffer[at + 1 : end]
                self._buffer = self._buffer[end:]
                return packet
        return None


@dataclass(frozen=True, slots=True)
class _Script:
    """What one device says on the first hop, as bytes."""

    device: Device
    hello: bytes
    subscribe: bytes
    publish: bytes


@dataclass(slots=True)
class _Tally:
    latencies_s: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    passwords: set[str] = field(default_factory=set)


async def load(devices: Iterable[Device], plan: LoadPlan) -> LoadResult:
    """Walk them all and measure."""
    scripts = [_script(one) for one in devices]
    tally = _Tally()
    queue = iter(scripts)
    cpu_s, started_s = time.process_time(), time.perf_counter()
    if plan.arrival_s is None:
        await asyncio.gather(*(_worker(queue, plan, tally) for _ in range(min(plan.in_flight, len(scripts)))))
    else:
        gap_s = plan.arrival_s / len(scripts)
        await asyncio.gather(*(_arrive(script, n * gap_s, plan, tally) for n, script in enumerate(scripts)))
    seconds, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    ordered = sorted(tally.latencies_s) or [0.0]
    return LoadResult(
        devices=len(scripts),
        provisioned=tally.outcomes["provisioned"],
        seconds=seconds,
        cpu_s=cpu_s,
        p50_s=_percentile(ordered, 0.50),
        p90_s=_percentile(ordered, 0.90),
        p99_s=_percentile(ordered, 0.99),
        worst_s=ordered[-1],
        outcomes=dict(tally.outcomes),
        passwords=len(tally.passwords),
    )


def constant_devices(count: int) -> Iterator[Device]:
    """Devices for a gate that admits everybody."""
    for number in range(count):
        message = json.dumps({"request_id": f"r{number}", "activation_key": "K" * 26, "device": {"model_id": "bench"}})
        yield Device(f"bench-{number:06d}", "bench-fleet", b"bench-password", message.encode())


async def _worker(queue: Iterator[_Script], plan: LoadPlan, tally: _Tally) -> None:
    for script in queue:
        await _timed(script, plan, tally)


async def _arrive(script: _Script, after_s: float, plan: LoadPlan, tally: _Tally) -> None:
    await asyncio.sleep(after_s)
    await _timed(script, plan, tally)


async def _timed(script: _Script, plan: LoadPlan, tally: _Tally) -> None:
    started_s = time.perf_counter()
    try:
        async with asyncio.timeout(plan.walk_s_max):
            outcome = await _walk(script, plan, tally)
    except TimeoutError:
        outcome = "too_slow"
    except (OSError, _Failed) as failure:
        outcome = str(failure) if isinstance(failure, _Failed) else type(failure).__name__
    tally.outcomes[outcome] += 1
    if outcome == "provisioned":
        tally.latencies_s.append(time.perf_counter() - started_s)


async def _walk(script: _Script, plan: LoadPlan, tally: _Tally) -> str:
    answer = await _first_hop(script, plan)
    status = str(answer.get("status"))
    if status == "provisioned":
        tally.passwords.add(str(answer["password"]))
        if plan.second_topic is not None:
            await _second_hop(answer, plan, plan.second_topic)
    return status


async def _first_hop(script: _Script, plan: LoadPlan) -> dict[str, object]:
    client = await _connect(plan.host, plan.port, plan.tls, script.hello)
    try:
        await _expect_accepted(client, "connack")
        client.transport.write(script.subscribe)
        if (await client.expect(_SUBACK, "suback"))[2] >= 0x80:
            raise _Failed("subscribe_refused")
        client.transport.write(script.publish)
        body = await client.expect(_PUBLISH, "answer")
        at = 2 + int.from_bytes(body[:2], "big")
        client.transport.write(encode(PubAck(int.from_bytes(body[at : at + 2], "big")), V311) + _GOODBYE)
        answer = json.loads(body[at + 2 :])
    finally:
        client.transport.close()
    assert isinstance(answer, dict)
    return answer


async def _second_hop(answer: dict[str, object], plan: LoadPlan, template: str) -> None:
    url = urlsplit(str(answer["broker_url"]))
    client_id, username = str(answer["client_id"]), str(answer["username"])
    topic = template.format(client_id=client_id, username=username, account=answer.get("account", ""))
    tls = plan.second_tls if url.scheme in ("mqtts", "wss") else None
    if plan.second_ca is not None and answer.get("certificate"):
        tls = _showing(answer, plan.second_ca)
        hello = encode(Connect(client_id), V311)
    else:
        hello = encode(Connect(client_id, username=username, password=str(answer["password"]).encode()), V311)
    client = await _connect(url.hostname or "", url.port or 1883, tls, hello)
    try:
        await _expect_accepted(client, "second_connack")
        client.transport.write(encode(Publish(topic, b"hello", qos=1, packet_id=1), V311))
        await client.expect(_PUBACK, "second_puback")
        client.transport.write(_GOODBYE)
    finally:
        client.transport.close()


def _showing(answer: dict[str, object], ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    with tempfile.NamedTemporaryFile("w") as both:
        both.write(f"{answer['certificate']}{answer['private_key']}")
        both.flush()
        context.load_cert_chain(both.name)
    return context


async def _expect_accepted(client: _Client, where: str) -> None:
    code = (await client.expect(_CONNACK, where))[1]
    if code:
        raise _Failed(f"{where}_{code}")


async def _connect(host: str, port: int, tls: ssl.SSLContext | None, hello: bytes) -> _Client:
    loop = asyncio.get_running_loop()
    name = host if tls is not None else None
    _, client = await loop.create_connection(lambda: _Client(loop, hello), host, port, ssl=tls, server_hostname=name)
    return client


def _script(device: Device) -> _Script:
    topic = f"prov/v1/{device.client_id}"
    return _Script(
        device,
        encode(Connect(device.client_id, username=device.username, password=device.password), V311),
        encode(Subscribe(1, (Subscription(f"{topic}/response", 1),)), V311),
        encode(Publish(f"{topic}/request", device.message, qos=1, packet_id=2), V311),
    )


def _percentile(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--devices", type=int, default=3_000)
    parser.add_argument("--in-flight", type=int, default=50)
    parser.add_argument("--ca", help="PEM file: walk over TLS and trust this")
    parser.add_argument("--second-topic", help="template of the topic on the account broker")
    arguments = parser.parse_args()
    tls = ssl.create_default_context(cafile=arguments.ca) if arguments.ca else None
    plan = LoadPlan(
        port=arguments.port,
        in_flight=arguments.in_flight,
        tls=tls,
        second_tls=tls,
        second_topic=arguments.second_topic,
    )
    result = run(load(constant_devices(arguments.devices), plan))
    print(json.dumps(asdict(result) | {"devices_per_s": round(result.devices_per_s)}))


if __name__ == "__main__":
    main()
