"""The service's own connection to a mosquitto: in a thread of its own, heard and used on the event loop."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from provisioner.model.errors import Unavailable
from provisioner.model.secret import Secret
from provisioner.mqtt_client import Client

_log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15
RECONNECT_S_MAX = 2

Heard = Callable[[str, bytes], None]
Up = Callable[[bool], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlAddress:
    """Where the service reaches mosquitto, and as whom. ca: PEM file; None for plain TCP, on the loopback only.

    lasts: the session of ``client_id`` is kept while the connection is away, and what happened is told afterwards."""

    host: str
    port: int
    username: str
    password: Secret
    client_id: str
    ca: Path | None = None
    lasts: bool = True

    def client(self, client_id: str, *, clean: bool, comes_back: bool = True) -> Client:
        """Not connected yet. Raises OSError when ``ca`` cannot be read."""
        client = Client(client_id, clean=clean, tls=self._tls(), comes_back=comes_back)
        client.username_pw_set(self.username, self.password.reveal())
        return client

    def _tls(self) -> ssl.SSLContext | None:
        """The name in mosquitto's certificate is verified."""
        if self.ca is None:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


class MosquittoLink:
    """Connects again for ever. Once ``start`` was called, everything but the callbacks of paho is on the loop."""

    def __init__(self, address: ControlAddress, filters: Sequence[str]) -> None:
        self._address, self._filters = address, filters
        self._client: Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_up, self._is_answered = asyncio.Event(), asyncio.Event()
        self._kept_session = False
        self._work: set[asyncio.Task[None]] = set()
        self.refused: str | None = None  # in mosquitto's words, of the newest attempt

    @property
    def is_up(self) -> bool:
        return self._is_up.is_set()

    async def start(self, up: Up, heard: Heard, down: Callable[[], None] = lambda: None) -> None:
        """up: called each time the connection is there and subscribed, with whether mosquitto kept what was said
        since the last one. heard: topic and payload of every message. down: called when the connection is lost."""
        self._loop = asyncio.get_running_loop()
        self._up, self._heard, self._down = up, heard, down
        self._client = self._new_client()
        self._client.connect_async(self._address.host, self._address.port, KEEP_ALIVE_S)
        self._client.loop_start()

    async def stop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.leave)
        self._is_up.clear()
        for task in self._work:
            task.cancel()

    def soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Have this done beside everything else; ``stop`` gives up what is not done by then."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    def check_up(self) -> None:
        """Raises Unavailable when the connection is not there."""
        self._there()

    async def wait_up(self, within_s: float) -> bool:
        """Whether it is up; returns as soon as mosquitto has let us in or refused us for the first time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_answered.wait(), within_s)
        return self.is_up

    def publish(self, topic: str, payload: bytes, *, qos: int = 0) -> None:
        """Raises Unavailable when the connection is not there."""
        if self._there().publish(topic, payload, qos).rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise Unavailable("mosquitto does not answer")

    def _there(self) -> Client:
        if self._client is None or not self.is_up:
            raise Unavailable("mosquitto does not answer")
        return self._client

    def _new_client(self) -> Client:
        own = self._address
        client = own.client(own.client_id, clean=not own.lasts)
        client.reconnect_delay_set(1, RECONNECT_S_MAX)
        client.suppress_exceptions = True  # one that escaped would end the network thread for good
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_message = self._on_subscribe, self._on_message
        return client

    def _on_connect(self, client: mqtt.Client, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        self.refused = str(code) if code.is_failure else None
        if code.is_failure:
            _log.warning("mosquitto at %s:%d refuses the service: %s", self._address.host, self._address.port, code)
            self._later(self._is_answered.set)
            return
        self._kept_session = bool(flags.session_present)
        client.subscribe([(each, 1) for each in self._filters])

    def _on_subscribe(self, client: Any, data: Any, mid: int, codes: Sequence[ReasonCode], properties: Any) -> None:
        refused = [each for each, code in zip(self._filters, codes, strict=True) if code.is_failure]
        if refused:
            _log.error("mosquitto does not let us hear %s; render its configuration again", ", ".join(refused))
            return
        self._later(self._now_up, self._kept_session)

    def _on_disconnect(self, client: Any, data: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        self._later(self._now_down)

    def _on_message(self, client: Any, data: Any, message: mqtt.MQTTMessage) -> None:
        self._later(self._heard, message.topic, bytes(message.payload))

    def _now_up(self, kept_session: bool) -> None:
        self._is_up.set()
        self._is_answered.set()
        self._up(kept_session)

    def _now_down(self) -> None:
        self._is_up.clear()
        self._down()

    def _later(self, call: Callable[..., object], *arguments: object) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(call, *arguments)
