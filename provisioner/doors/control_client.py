"""The other end of the administrators' door: a blocking client over MQTT 5, for the command line."""

import itertools
import json
import queue
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from provisioner.model.errors import FleetgateError, InvalidInput, NotAllowed, Problem, Unavailable
from provisioner.model.secret import Secret

TIMEOUT_S = 10.0
PACKET_BYTES_MAX = 66_560  # until the server says what it takes
ENVELOPE_BYTES_MAX = 1_024  # what a packet holds beside the parameters
CHUNK_BYTES_MAX = 131_072
CHUNK_ROWS_MAX = 200
_NOT_THEIRS = frozenset((0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C))  # reason codes of section 3.2.2.2: retrying is no use


class Unreachable(Unavailable):
    """No service answers there, or it went away before it answered."""


class LoginRefused(NotAllowed):
    """The service does not take the name and the credential."""


class Refused(FleetgateError):
    """The service answered that it did not do it. kind: as in ``error_kinds``."""

    def __init__(self, kind: str, message: str, problems: Sequence[Problem] = ()) -> None:
        self.kind, self.problems = kind, tuple(problems)
        super().__init__(message)

    @classmethod
    def read(cls, error: Mapping[str, Any]) -> Self:
        """From the ``error`` of an answer or of one row of an import."""
        problems = [Problem(p["field"], p["rule"], p["shape"]) for p in error.get("problems", ())]
        return cls(error["kind"], error["message"], problems)


class ControlClient:
    """One connection for as long as the ``with`` block. Not for several threads."""

    def __init__(
        self,
        host: str,
        port: int,
        name: str,
        credential: Secret,
        *,
        ca: Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """ca: PEM file of the authority that the server's certificate must come from; None: no TLS."""
        self._host, self._port, self._timeout_s = host, port, timeout_s
        client_id = f"admin-{secrets.token_hex(8)}"
        self._topic = f"ctl/v1/{client_id}/request"
        self._answers_on = f"ctl/v1/{client_id}/response"
        self._arrived: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._verdict: ReasonCode | None = None
        self._settled = threading.Event()
        self._packet_bytes_max = PACKET_BYTES_MAX
        self._tls: _Tls | None = None
        self._client = self._made(client_id, name, credential, ca)

    def __enter__(self) -> Self:
        try:
            self._client.connect(self._host, self._port, keepalive=60)
        except OSError as error:
            if self._tls is not None:
                self._tls.close()
            raise Unreachable(f"no service at {self._where}: {_reason(error)}") from None
        self._client.loop_start()
        try:
            self._expect_settled("accept the connection")
            self._check_verdict()
            self._settled.clear()
            self._client.subscribe(self._answers_on, qos=1)
            self._expect_settled("accept the subscription")
            self._check_verdict()
        except FleetgateError:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def ask(self, verb: str, *, patience_s: float = 0.0, **params: Any) -> Any:
        """The verb's result. patience_s: how long the service was asked to wait before it answers.

        Parameters that are None are left out. Raises Refused, or Unreachable when no answer comes; then it is
        unknown whether the verb was done."""
        id = secrets.token_hex(8)
        given = {name: value for name, value in params.items() if value is not None}
        payload = json.dumps({"id": id, "verb": verb, "params": given}, separators=(",", ":")).encode()
        if len(payload) > self._packet_bytes_max:
            raise Refused("limit", f"the service takes at most {self._packet_bytes_max:,} bytes, not {len(payload):,}")
        answer = self._exchange(id, payload, self._timeout_s + patience_s)
        if answer["ok"]:
            return answer["result"]
        raise Refused.read(answer["error"])

    def pages(self, verb: str, *, limit: int | None = None, **params: Any) -> Iterator[Mapping[str, Any]]:
        """Every item of a listing, page after page; at most ``limit``."""
        left, after = limit, None
        while left is None or left > 0:
            page = self.ask(verb, after=after, limit=min(left or 500, 500), **params)
            yield from page["items"]
            left = None if left is None else left - len(page["items"])
            if (after := page["after"]) is None:
                return

    def send_rows(
        self,
        rows: Iterable[tuple[int, Mapping[str, Any]]],
        *,
        dry_run: bool = False,
        arrived: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """The result of each row of an import, in order. Rows that the service did not get to are sent again.

        arrived: is given each result of an answer before the first of them is: who asks for no more has them all."""
        bytes_max = self._packet_bytes_max - ENVELOPE_BYTES_MAX
        source, waiting = iter(rows), list[tuple[int, Mapping[str, Any]]]()
        while True:
            waiting += itertools.islice(source, CHUNK_ROWS_MAX - len(waiting))
            if not waiting:
                return
            chunk = _chunk(waiting, min(CHUNK_BYTES_MAX, bytes_max))
            if len(chunk) == 1 and _bytes(chunk[0]) > bytes_max:
                results = [_too_large(chunk[0], bytes_max)]
            else:
                results = self.ask("request.import", rows=chunk, dry_run=dry_run)["rows"]
            if not results:
                raise Unreachable(f"{self._where} answered without a result")
            if arrived is not None:
                for result in results:
                    arrived(result)
            yield from results
            del waiting[: len(results)]

    @property
    def _where(self) -> str:
        return f"{self._host}:{self._port}"

    def _made(self, client_id: str, name: str, credential: Secret, ca: Path | None) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5, reconnect_on_failure=False
        )
        client.connect_timeout = self._timeout_s
        client.username_pw_set(name, credential.reveal())
        if ca is not None:
            self._tls = _Tls(ca)
            client.tls_set_context(self._tls)
        client.on_socket_open = _without_delay
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

    def _expect_settled(self, what: str) -> None:
        if not self._settled.wait(self._timeout_s):
            raise Unreachable(f"{self._where} did not {what} within {self._timeout_s:g} s")

    def _check_verdict(self) -> None:
        verdict = self._verdict
        if verdict is None or (verdict.is_failure and verdict.value not in _NOT_THEIRS):
            raise Unreachable(f"{self._where} ended the connection: {verdict or 'closed'}")
        if verdict.is_failure:
            raise LoginRefused(f"{self._where} refused the login: {verdict}")

    def _exchange(self, id: str, payload: bytes, within_s: float) -> Mapping[str, Any]:
        """The answer with that id; those of questions that were given up are passed over."""
        self._client.publish(self._topic, payload, qos=1)
        until_s = time.monotonic() + within_s
        while True:
            try:
                arrived = self._arrived.get(timeout=max(0.0, until_s - time.monotonic()))
            except queue.Empty:
                raise Unreachable(f"{self._where} did not answer within {within_s:g} s") from None
            if arrived is None:
                raise Unreachable(f"{self._where} ended the connection before it answered")
            answer: Mapping[str, Any] = json.loads(arrived)
            if answer.get("id") in (id, None):
                return answer

    def _leave(self) -> None:
        client = self._client
        client.disconnect()
        client.loop_stop()
        # paho closes its last two sockets when it is dropped; our callbacks would make that wait for the collector.
        client.on_connect = client.on_subscribe = client.on_disconnect = client.on_message = None

    def _on_connect(
        self, client: mqtt.Client, data: Any, flags: Any, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._verdict = code
        self._packet_bytes_max = getattr(properties, "MaximumPacketSize", PACKET_BYTES_MAX)
        self._settled.set()

    def _on_subscribe(
        self, client: mqtt.Client, data: Any, number: int, codes: list[ReasonCode], properties: Properties | None
    ) -> None:
        self._verdict = codes[0]
        self._settled.set()

    def _on_disconnect(
        self, client: mqtt.Client, data: Any, flags: Any, code: ReasonCode, properties: Properties | None
    ) -> None:
        if self._verdict is None or not self._verdict.is_failure:
            self._verdict = None
        self._settled.set()
        self._arrived.put(None)

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        self._arrived.put(bytes(message.payload))


class _Tls(ssl.SSLContext):
    """Trusts one authority, and closes what paho leaves open when a handshake fails."""

    _wrapped: ssl.SSLSocket | None = None

    def __new__(cls, ca: Path) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, ca: Path) -> None:
        self.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self.load_verify_locations(ca)
        except OSError as error:
            rule = f"must be the authority's certificate: {_reason(error)}"
            raise InvalidInput([Problem(str(ca), rule, "something else")]) from None

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        self._wrapped = super().wrap_socket(*args, **kwargs)
        return self._wrapped

    def close(self) -> None:
        if self._wrapped is not None:
            self._wrapped.close()


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    return error.strerror or type(error).__name__


def _chunk(rows: Sequence[tuple[int, Mapping[str, Any]]], bytes_max: int) -> list[tuple[int, Any]]:
    """The first rows that fit into one packet; at least one, whether it fits or not."""
    chunk: list[tuple[int, Any]] = []
    bytes_left = bytes_max
    for row in rows:
        bytes_left -= _bytes(row) + 1
        if chunk and bytes_left < 0:
            break
        chunk.append(row)
    return chunk


def _bytes(row: tuple[int, Any]) -> int:
    return len(json.dumps(row))


def _too_large(row: tuple[int, Any], bytes_max: int) -> Mapping[str, Any]:
    message = f"the service takes rows of at most {bytes_max:,} bytes as JSON, not {_bytes(row):,}"
    return {"line": row[0], "ok": False, "error": {"kind": "limit", "message": message, "problems": []}}


def _without_delay(client: mqtt.Client, data: Any, sock: Any) -> None:
    """A question is one small packet: it must not wait for more to come."""
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
