"""The connection to a broker that stands in the place of the gate: one network thread, services on the loop.

A message is acknowledged when what it caused is durable and answered, never before: what a crash interrupts, the
broker delivers again to the next connection under the same client id. At most ``window`` messages are under way.
"""

import asyncio
import logging
import random
import ssl
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from provisioner.model.secret import Secret
from provisioner.mqtt_client import Client

log = logging.getLogger(__name__)

_paho_log = log.getChild("paho")
_paho_log.setLevel(logging.WARNING)

WINDOW_MIN = 100
KEEP_ALIVE_S = 30
SESSION_EXPIRY_S = 300  # what devices ask while the provisioner is away waits so long at the broker
PACKET_BYTES_MAX = 66_560
BACKOFF_BASE_S = 0.25
BACKOFF_CAP_S = 15.0
ANSWERS_QUEUED_MAX = 10_000  # while the broker is away; 64 KiB each at the very most
_SLOT_WAIT_S = 0.2
_chance = random.SystemRandom()
_KEEP_RETAINED_AWAY = 2  # [MQTT-3.3.1-11]

Handler = Callable[[str, bytes, bool], Awaitable[None]]
"""Topic, payload, and whether it was published to be retained. Returns when what it caused is durable and sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """client_id: kept over restarts, so that the broker knows whose messages it holds; different for each provisioner.

    share_group: several provisioners of one group share the messages among them; None takes all alone.
    window: how many messages may be unacknowledged at once, in either direction."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    client_id: str
    username: str
    password: Secret
    filters: Sequence[str]
    share_group: str | None = None
    window: int = WINDOW_MIN

    def __post_init__(self) -> None:
        if not WINDOW_MIN <= self.window <= 65_535:
            raise ValueError(f"window must be from {WINDOW_MIN} to 65,535")


@dataclass(frozen=True, slots=True)
class _Mail:
    """One message, and the connection that it came on: a packet id means nothing on another one."""

    topic: str
    payload: bytes
    retain: bool
    packet_id: int
    qos: int
    connection: int


class MosquittoLink:
    """``start`` returns at once; the link comes up when the broker lets it, and again after each loss."""

    def __init__(self, options: LinkOptions, received: Handler) -> None:
        self._options, self._received = options, received
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = threading.Semaphore(options.window)
        self._stopping = threading.Event()
        self._order = threading.Lock()  # an acknowledgement belongs to the connection of its message
        self._connection = 0
        self._losses = 0
        self._is_up = False
        self._client = self._make_client()

    @property
    def is_up(self) -> bool:
        """Connected and subscribed: what devices publish now arrives."""
        return self._is_up

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types for it
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = self._options.window
        properties.MaximumPacketSize = PACKET_BYTES_MAX
        self._client.connect_async(
            self._options.host, self._options.port, KEEP_ALIVE_S, clean_start=False, properties=properties
        )
        self._client.loop_start()

    def send(self, topic: str, payload: bytes) -> bool:
        """QoS 1, never retained. While the link is down it waits; False: too much waits, and it is dropped."""
        code = self._client.publish(topic, payload, qos=1, retain=False).rc
        taken = code in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN)
        if not taken:
            log.warning("an answer is dropped: %s", code.name)
        return taken

    async def stop(self, grace_s: float) -> None:
        """Let what is under way be answered, then leave. What came too late is delivered again next time."""
        self._stopping.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._client.leave)

    # On the network thread

    def _make_client(self) -> Client:
        options = self._options
        client = Client(options.client_id, protocol=MQTTProtocolVersion.MQTTv5, tls=options.tls, manual_ack=True)
        client.username_pw_set(options.username, options.password.reveal())
        client.max_inflight_messages_set(options.window)
        client.max_queued_messages_set(ANSWERS_QUEUED_MAX)
        client.reconnect_delay_set(0, 0)  # the waiting is ours: paho's has no jitter
        client.suppress_exceptions = True  # one that escaped would end the network thread for good
        client.enable_logger(_paho_log)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

    def _on_connect(
        self,
        client: mqtt.Client,
        userdata: Any,
        flags: mqtt.ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if code.is_failure:
            log.warning("the provision broker refuses us: %s", code)
            return
        with self._order:
            self._connection += 1
        broker_takes = getattr(properties, "ReceiveMaximum", self._options.window)
        if broker_takes < self._options.window:
            log.warning("the provision broker takes %d messages at once: raise its max_inflight_messages", broker_takes)
        share = f"$share/{self._options.share_group}/" if self._options.share_group else ""
        how = SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=_KEEP_RETAINED_AWAY)
        client.subscribe([(share + each, how) for each in self._options.filters])

    def _on_subscribe(
        self, client: mqtt.Client, userdata: Any, packet_id: int, codes: list[ReasonCode], properties: Properties | None
    ) -> None:
        refused = [str(code) for code in codes if code.is_failure]
        if refused:
            log.error("the provision broker refuses %d of %d subscriptions: %s", len(refused), len(codes), refused[0])
            return
        self._losses, self._is_up = 0, True
        log.info("joined the provision broker at %s:%d", self._options.host, self._options.port)

    def _on_connect_fail(self, client: mqtt.Client, userdata: Any) -> None:
        log.warning("the provision broker at %s:%d cannot be reached", self._options.host, self._options.port)
        self._wait()

    def _on_disconnect(
        self,
        client: mqtt.Client,
        userdata: Any,
        flags: mqtt.DisconnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        with self._order:
            self._connection += 1
        self._is_up = False
        if not self._stopping.is_set():
            log.warning("the provision broker is lost: %s", code)
            self._wait()

    def _wait(self) -> None:
        """Full jitter: provisioners that lost one broker do not come back to it at one instant (F-31)."""
        longest_s = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2 ** min(self._losses, 16))
        self._losses += 1
        self._stopping.wait(_chance.uniform(0, longest_s))

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        """Holds the network thread while as many messages as the window allows are under way: the broker waits, too."""
        while not self._slots.acquire(timeout=_SLOT_WAIT_S):
            if self._stopping.is_set():
                return
        mail = _Mail(message.topic, bytes(message.payload), message.retain, message.mid, message.qos, self._connection)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._take, mail)

    # On the event loop

    def _take(self, mail: _Mail) -> None:
        if self._stopping.is_set():
            self._slots.release()
            return
        task = asyncio.create_task(self._handle(mail))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, mail: _Mail) -> None:
        try:
            await self._received(mail.topic, mail.payload, mail.retain)
        except Exception as error:
            # Delivered again it would fail again, and fill the window; a device that has no answer asks again.
            log.error("a message could not be handled: %s", type(error).__name__)
        finally:
            self._slots.release()
        with self._order:
            if mail.qos and mail.connection == self._connection:
                self._client.ack(mail.packet_id, mail.qos)
