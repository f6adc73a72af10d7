"""One connection of the gate: what its packets mean for the application, and what the application holds of it."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Final, ParamSpec

from broker.access import Admission, Close, Denial, DenialKind, Incident, Login, may_publish
from broker.admission import REFUSALS, decide
from broker.driver import SessionDriver, Step
from broker.encoding import encode
from broker.hall import Hall, logger
from broker.limits import Standing, TokenBucket
from broker.listener import Entrance
from broker.packets import V311, ConnAck
from broker.reason_codes import ReasonCode
from broker.session import MessageTooLarge, OutboundFull
from broker.session_events import (
    Acknowledged,
    ConnectReceived,
    Event,
    PublishReceived,
    SubscribeReceived,
    UnsubscribeReceived,
)
from broker.session_settings import Refusal
from broker.session_state import State
from broker.subscriptions import Subscriptions

P = ParamSpec("P")

_UNASKED_REFUSAL: Final = encode(ConnAck(Refusal.SERVER_UNAVAILABLE.code_v311), V311)
_SHORTAGES: Final = {
    "accept_rate": Refusal.RATE_EXCEEDED,
    "connections_max": Refusal.QUOTA_EXCEEDED,
    "unauthenticated_max": Refusal.QUOTA_EXCEEDED,
}


class GateConnection(SessionDriver):
    """See ``access.Connection`` for the application's half; the rest is called by the wire and the hall."""

    __slots__ = (
        "_admission", "_admit_by_s", "_delivering", "_finish_timer", "_in_flight", "_messages", "_permitted",
        "_refusals", "_shortage", "_subscriptions", "_told", "_turn_away_at_s", "id", "listener", "secure", "standing",
        "version",
    )  # fmt: skip

    def __init__(self, hall: Hall, entrance: Entrance) -> None:
        super().__init__(hall, entrance)
        self.id = secrets.token_urlsafe(12)
        self.listener = entrance.listener.name
        self.secure = entrance.listener.tls is not None
        self.version: int = V311
        self.standing: Standing | None = None
        self._shortage: str | None = None
        self._turn_away_at_s = self._admit_by_s = 0.0
        self._admission: Admission | None = None
        self._subscriptions = Subscriptions(hall.limits.filters_max)
        self._permitted: frozenset[str] = frozenset()
        self._in_flight: dict[int, str] = {}
        self._messages: TokenBucket | None = None
        self._refusals = 0
        self._delivering = False
        self._told = False
        self._finish_timer: asyncio.TimerHandle | None = None

    # What the application sees

    @property
    def identity(self) -> str:
        return self._admission.identity if self._admission else ""

    @property
    def client_id(self) -> str:
        return self._admission.client_id if self._admission else ""

    @property
    def username(self) -> str:
        return self._admission.username if self._admission else ""

    @property
    def is_open(self) -> bool:
        return self._session.state is State.OPEN

    @property
    def contended(self) -> bool:
        return self._hall.roster.is_contended(self.identity, self, self._hall.clock())

    def send(self, topic: str, payload: bytes) -> bool:
        qos = self._subscriptions.qos(topic)
        if qos is None or not self.is_open:
            return False
        try:
            if qos:
                self._in_flight[self._session.publish(topic, payload, self._hall.clock())] = topic
            else:
                self._session.publish_at_most_once(topic, payload)
        except (OutboundFull, MessageTooLarge) as failure:
            self._observe("answer.refused", "queue_full" if isinstance(failure, OutboundFull) else "packet_too_large")
            return False
        if not self._delivering:
            self._flush_soon()
        self._arm()
        return True

    def permit(self, topics: frozenset[str]) -> None:
        self._permitted = topics

    def engage(self) -> None:
        self._hall.roster.engage(self.identity, self, self._hall.clock())

    def release(self) -> None:
        self._hall.roster.release(self.identity, self)
        if self._hall.draining:
            self.leave_if_idle()

    def finish(self, grace_s: float) -> None:
        if self.is_open and self._finish_timer is None:
            self._finish_timer = self._hall.loop.call_later(grace_s, self.close, Close.FINISHED)

    # What the hall asks

    def turn_away(self, shortage: str) -> None:
        """There is no room: answer its CONNECT so, or say it unasked when none comes soon."""
        self._shortage = shortage
        self._turn_away_at_s = self._hall.clock() + self._hall.limits.turned_away_wait_s
        self._observe("connect.refused", shortage)

    def leave_if_idle(self) -> None:
        """Shutting down: go, unless an answer is being made or is not acknowledged yet."""
        engaged = self._hall.roster.is_engaged(self.identity, self, self._hall.clock())
        if self._pump is None and not engaged and not self._in_flight:
            self.close(Close.SHUTTING_DOWN)

    # What the driver asks

    def wire_up(self, address: str) -> None:
        self.address = address
        self._hall.receive(self)
        self._arm()

    def _on_wire_lost(self) -> None:
        self._hall.farewell(self)

    def _on_ended(self, reason: Close) -> None:
        if self._finish_timer is not None:
            self._finish_timer.cancel()
            self._finish_timer = None
        self._hall.awaited.pop(self, None)
        self._hall.roster.leave(self.identity, self)
        if self._pump is None:
            self._tell_closed(reason)

    def _on_rest(self) -> None:
        if self._reason is not None:
            self._tell_closed(self._reason)
        if self._hall.draining:
            self.leave_if_idle()
            self._hall.left()

    def _deadline(self) -> float | None:
        state = self._session.state
        if state is State.AUTHENTICATING:
            return self._admit_by_s
        if self._shortage is not None and state is State.AWAITING_CONNECT:
            return self._turn_away_at_s
        return self._session.deadline()

    def _on_time(self, now: float) -> None:
        state = self._session.state
        if state is State.AUTHENTICATING:
            if now >= self._admit_by_s:
                self._observe("connect.refused", "application_slow")
                self._refuse(Refusal.SERVER_UNAVAILABLE)
        elif self._shortage is None or state is not State.AWAITING_CONNECT:
            self._tick(now)
        elif now >= self._turn_away_at_s:
            if self._wire.can_write:
                self._wire.write(_UNASKED_REFUSAL)
            self.close(Close.OVERLOADED)

    def _handle(self, event: Event) -> Step | None:
        match event:
            case PublishReceived():
                return self._on_publish(event)
            case ConnectReceived():
                return self._on_connect(event)
            case Acknowledged():
                self._on_acknowledged(event)
            case SubscribeReceived() if self._may_ask():
                self._on_subscribe(event)
            case UnsubscribeReceived() if self._may_ask():
                codes = self._subscriptions.forget(event.topic_filters)
                self._session.answer_unsubscribe(event.packet_id, codes)
        return None

    # CONNECT

    def _on_connect(self, event: ConnectReceived) -> Step | None:
        self._hall.awaited.pop(self, None)
        if self._session.state is not State.AUTHENTICATING:
            return None  # what came behind it has ended the session already
        self.version = event.version
        if self._shortage is not None or self._hall.draining:
            self._refuse(_SHORTAGES.get(self._shortage or "", Refusal.SERVER_UNAVAILABLE))
            return None
        self._hold()
        self._admit_by_s = self._hall.clock() + self._hall.limits.admit_s_max
        self._arm()
        will = event.will
        login = Login(
            client_id=event.client_id,
            username=event.username,
            password=event.password,
            address=self.address,
            version=event.version,
            secure=self.secure,
            will_topic=None if will is None else will.topic,
            will_retain=will is not None and will.retain,
            clean=event.clean_start,
            listener=self.listener,
        )
        return self._admit(login)

    async def _admit(self, login: Login) -> None:
        outcome = await decide(self._hall, login)
        if self._session.state is not State.AUTHENTICATING:
            return
        if isinstance(outcome, Admission) and not self._hall.admit(self, outcome):
            outcome = Denial(DenialKind.BUSY, "contenders_max")
        if isinstance(outcome, Denial):
            incident = Incident("connect.refused", outcome.reason, login.client_id, login.username, self.address)
            self._hall.observe(incident)
            self._refuse(REFUSALS[outcome.kind])
            return
        self._admission = outcome
        self._tell(self._hall.application.opened, self)
        if self._session.state is State.AUTHENTICATING:
            self._take(self._session.accept(self._hall.clock()))
            self._arm()

    def _refuse(self, refusal: Refusal) -> None:
        self._session.refuse(refusal)
        self._end(Close.VIOLATION)

    # PUBLISH, both ways

    def _on_publish(self, event: PublishReceived) -> Step | None:
        if self._admission is None:
            return None
        if event.retain:
            fault = "retain"
        elif not may_publish(self._admission.rights, self._permitted, event.topic):
            fault = "topic"
        else:
            return self._deliver(event)
        self._observe("publish.refused", fault)
        self._acknowledge(event, ReasonCode.NOT_AUTHORIZED)
        self._count_refusal()
        return None

    async def _deliver(self, event: PublishReceived) -> None:
        wait_s = self._bucket().wait_s(self._hall.clock())
        if wait_s:
            self._hold()
            await asyncio.sleep(wait_s)
        if self._is_dismissed:
            return  # another speaks for its identity by now; an answer that nobody hears must not be made
        self._bucket().take(self._hall.clock())
        self._hall.displace(self._hall.roster.claim(self.identity, self, self._hall.clock()), self.address)
        self._delivering = True
        try:
            await self._hall.application.received(self, event.topic, event.payload, event.dup)
        finally:
            self._delivering = False
        # The PUBACK in front of the answers: a device leaves as soon as it has its answer, and leaving with a PUBACK
        # unread resets the connection, which can take away the acknowledgement that the device has just sent.
        answers = self._session.take_output()
        self._acknowledge(event, ReasonCode.SUCCESS)
        self._wire.write(self._session.take_output() + answers)

    def _acknowledge(self, event: PublishReceived, code: ReasonCode) -> None:
        if event.packet_id is not None and self.is_open:
            self._session.acknowledge(event.packet_id, code)

    def _on_acknowledged(self, event: Acknowledged) -> None:
        topic = self._in_flight.pop(event.packet_id, None)
        if topic is None:
            return
        if event.reason_code >= ReasonCode.UNSPECIFIED_ERROR:
            self._observe("answer.refused", "by_the_device")
        else:
            self._tell(self._hall.application.acknowledged, self, topic)
        if self._hall.draining:
            self.leave_if_idle()

    # SUBSCRIBE

    def _on_subscribe(self, event: SubscribeReceived) -> None:
        if self._admission is None:
            return
        grants = self._subscriptions.grant(self._admission.rights, event.subscriptions)
        self._session.answer_subscribe(event.packet_id, grants)
        for grant in grants:
            if grant >= ReasonCode.UNSPECIFIED_ERROR:
                self._observe("subscribe.refused", ReasonCode(grant).name.lower())
                self._count_refusal()

    # Bounds of one connection

    def _bucket(self) -> TokenBucket:
        if self._messages is None:
            limits = self._hall.limits
            self._messages = TokenBucket(limits.messages_burst, limits.messages_per_s, self._hall.clock())
        return self._messages

    def _may_ask(self) -> bool:
        if not self.is_open:
            return False
        if self._bucket().take(self._hall.clock()):
            return True
        self._observe("flood", "message_rate")
        self.close(Close.VIOLATION)
        return False

    def _count_refusal(self) -> None:
        self._refusals += 1
        if self._refusals > self._hall.limits.refusals_max:
            self._observe("flood", "refusals")
            self.close(Close.VIOLATION)

    # Telling the application

    def _tell(self, callback: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            callback(*args, **kwargs)
        except Exception as error:
            logger.error("the application failed on %s: %s", callback.__name__, type(error).__name__)
            self._observe("application.failed", type(error).__name__)
            self.close(Close.FAILED)

    def _tell_closed(self, reason: Close) -> None:
        if self._admission is not None and not self._told:
            self._told = True
            self._tell(self._hall.application.closed, self, reason)

    def _observe(self, action: str, reason: str) -> None:
        client_id = self.client_id or None
        self._hall.observe(Incident(action, reason, client_id, self.username or None, self.address))
