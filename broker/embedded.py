"""The account broker of the evaluation mode: amqtt behind a guard, on loopback only. Nothing else imports amqtt.

amqtt 0.12 looks a session up before it authenticates, keeps what failed logins leave, hands retained messages to
strangers, goes deaf on `$` topics and has no deadline or size limit. `broker.embedded_guard` and the overrides
below close these; they are pinned one by one in tests/contracts/test_embedded_broker.py.
"""

import asyncio
import ipaddress
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin

from broker.embedded_guard import Admit, Connection, Guard, GuardLimits, R, Seen

_LISTENER = "default"


class EmbeddedBroker(Generic[R]):
    """MQTT 3.1.1 for a demo, an evaluation or a test. May be started again after a stop; keeps nothing meanwhile.

    Sessions end with their connection, whatever the client asked for. Raises ValueError for a host that is not
    loopback. tls: a server context, None for plain TCP.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 1883,
        tls: ssl.SSLContext | None = None,
        limits: GuardLimits | None = None,
    ) -> None:
        self._host, self._port, self._tls = _loopback(host), port, tls
        self._limits = limits or GuardLimits()
        self._address = (self._host, port)
        self._guard: Guard[R] | None = None
        self._amqtt: _Amqtt | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; with port 0 the port is known once it was started."""
        return self._address

    async def start(self, admit: Admit[R], seen: Seen[R]) -> None:
        """Serve on the running loop. ``admit`` decides on every login, ``seen`` hears who came and went."""
        _silence_amqtt()
        guard = Guard(self._serve, admit, seen, self._limits)
        broker = _Amqtt(
            {
                "listeners": {_LISTENER: {"type": "external"}},
                "plugins": {f"{_AccessPlugin.__module__}.{_AccessPlugin.__qualname__}": {"guard": guard}},
            }
        )
        await broker.start()
        self._guard, self._amqtt = guard, broker
        try:
            self._address = await guard.listen(self._host, self._port, self._tls)
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Cut everybody and free the port; harmless when it does not run."""
        guard, broker, self._guard, self._amqtt = self._guard, self._amqtt, None, None
        if guard is not None:
            await guard.stop()
        if broker is not None:
            await broker.shutdown()

    def kick(self, home: str) -> bool:
        """Cut the live connection of that session (see ``Rights.home``); False when there is none."""
        return self._guard is not None and self._guard.kick(home)

    def connections(self) -> Sequence[R]:
        """The rights of every live connection, those that wait for their CONNACK included."""
        return self._guard.connections() if self._guard is not None else ()

    async def _serve(self, connection: Connection[R]) -> None:
        if self._amqtt is not None:
            await self._amqtt.external_connected(_Reader(connection), _Writer(connection), _LISTENER)


class _Reader(ReaderAdapter):
    """amqtt reads what the guard let through, the admitted CONNECT first."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection

    async def read(self, n: int = -1) -> bytes:
        return await self._connection.read(n)

    def expect_packets(self) -> None:
        self._connection.expect_packets()

    def feed_eof(self) -> None:
        self._connection.close()


class _Writer(WriterAdapter):
    """amqtt writes each packet with one call of ``write``."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        self._connection.write(data)

    async def drain(self) -> None:
        # Waiting here would pile up amqtt's delivery tasks without bound; the guard cuts slow readers instead.
        return

    def get_peer_info(self) -> tuple[str, int]:
        return self._connection.address or "unknown", 0

    def get_ssl_info(self) -> None:
        return None

    async def close(self) -> None:
        self._connection.close()


class _AccessPlugin(BaseAuthPlugin, BaseTopicPlugin):
    """Every question of amqtt is answered from the rights of the live connection; without one the answer is no."""

    @dataclass
    class Config:
        """``guard`` is the live object; amqtt passes a field of type Any through as it is."""

        guard: Any

    async def authenticate(self, *, session: Any) -> bool:
        return self.config.guard.rights(session.client_id) is not None

    async def topic_filtering(self, *, session: Any = None, topic: str | None = None, action: Any = None) -> bool:
        rights = self.config.guard.rights(session.client_id) if session is not None else None
        if rights is None or topic is None:
            return False
        if action is Action.PUBLISH:
            return bool(rights.may_publish(topic))
        return action in (Action.SUBSCRIBE, Action.RECEIVE) and bool(rights.may_subscribe(topic))


class _Amqtt(Broker):
    """amqtt with three of its inner steps changed, for want of a public way."""

    async def _client_message_loop(self, client_session: Any, handler: Any) -> None:
        """The original misses an end or a DISCONNECT that comes before its first step: it waits for ever, or
        publishes the Will. Called now, `expect_packets` takes effect behind that step."""
        asyncio.get_running_loop().call_soon(handler.reader.expect_packets)
        await super()._client_message_loop(client_session, handler)

    async def _handle_message_delivery(
        self, client_session: Any, handler: Any, wait_deliver: "asyncio.Future[Any]"
    ) -> bool:
        """Pass one PUBLISH on. The original ends the session's loop, not its connection, on a `$` topic."""
        message = wait_deliver.result()
        if message is None or not await self._topic_filtering(client_session, message.topic, Action.PUBLISH):
            return True
        await self.internal_message_broadcast(message.topic, message.data)
        if message.retain:
            await self.retain_message(client_session, message.topic, message.data, message.qos)
        return True

    async def _publish_retained_messages_for_subscription(self, subscription: tuple[str, int], session: Any) -> None:
        """Only to who holds the subscription. The original is called for everybody's filters on each connect."""
        if any(holder is session for holder, _ in self.subscriptions.get(subscription[0], ())):
            await super()._publish_retained_messages_for_subscription(subscription, session)


def _loopback(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        if ipaddress.ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise ValueError(f"the embedded account broker is for evaluation and binds loopback addresses only, not {host!r}")


def _silence_amqtt() -> None:
    """amqtt logs payloads at DEBUG, tracebacks at normal ends, and prints some of them to stderr at DEBUG.

    Nothing of it leaves, at any level that a site sets: the guard logs what an administrator needs.
    """
    amqtt = logging.getLogger("amqtt")
    amqtt.setLevel(logging.CRITICAL)
    amqtt.propagate = False
    if not amqtt.handlers:
        amqtt.addHandler(logging.NullHandler())
    logging.getLogger("transitions").setLevel(logging.WARNING)
