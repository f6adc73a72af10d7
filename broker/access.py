"""Who may come in at the gate and what a connection may do there: the rules, and the two protocols that
the application behind the gate is written against. Pure: no clock, no socket, no random source."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Protocol

NAME_BYTES_MAX = 255
PASSWORD_BYTES_MAX = 1_024

# Wildcards and the separator act in a topic; '%' starts the patterns of other brokers (%c, %u).
_CLIENT_ID_FORBIDDEN = frozenset("+#/%")
_USERNAME_FORBIDDEN = frozenset("+#/")
_UNPRINTABLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


class DenialKind(Enum):
    """What the peer is told; everything finer is for the audit log only (F-20)."""

    NOT_AUTHORIZED = "not_authorized"
    CLIENT_ID = "client_id"
    BUSY = "busy"
    RATE = "rate"
    UNAVAILABLE = "unavailable"


class Close(StrEnum):
    """Why a connection ended, as ``Application.closed`` is told."""

    LEFT = "left"  # the device said DISCONNECT
    LOST = "lost"  # the network connection ended without one: where another broker would publish the Will
    FINISHED = "finished"  # ``Connection.finish`` and the grace was over
    TAKEN_OVER = "taken_over"
    KEEP_ALIVE = "keep_alive"
    IDLE = "idle"
    VIOLATION = "violation"
    REVOKED = "revoked"
    ADMINISTRATIVE = "administrative"
    OVERLOADED = "overloaded"
    SHUTTING_DOWN = "shutting_down"
    FAILED = "failed"  # the application raised


class Rights(Protocol):
    """Exact topics, at most one wildcard of its own, and where it may leave a Will."""

    @property
    def publish(self) -> frozenset[str]: ...
    @property
    def subscribe(self) -> frozenset[str]: ...
    @property
    def below(self) -> str | None:
        """None, or a topic prefix that ends in "/"; filters below it are granted."""

    @property
    def wills(self) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A CONNECT as the application sees it.

    version: protocol level, 4 (MQTT 3.1.1) or 5. secure: it came through TLS. address: without the port.
    listener: the name of the listener that it came through.
    """

    client_id: str
    username: str | None
    password: bytes | None = field(repr=False)
    address: str
    version: int
    secure: bool
    will_topic: str | None = None
    will_retain: bool = False
    clean: bool = True
    listener: str = ""


@dataclass(frozen=True, slots=True)
class Admission:
    """``identity`` is the key under which a newer connection takes over from an older one. It is never the
    client id alone: two tenants may share a client id."""

    identity: str
    client_id: str
    username: str
    rights: Rights


@dataclass(frozen=True, slots=True)
class Denial:
    """``reason`` is a code for the audit log; the peer only learns what ``kind`` maps to."""

    kind: DenialKind
    reason: str


@dataclass(frozen=True, slots=True)
class Incident:
    """Something was refused or cut. ``count`` > 1: that many like it were summed up into one.

    action: connect.refused, connect.locked_out, connect.timeout, subscribe.refused, publish.refused, answer.refused,
    packet.violation, flood, connection.taken_over or application.failed.
    """

    action: str
    reason: str
    client_id: str | None
    username: str | None
    address: str
    count: int = 1


class Connection(Protocol):
    """One admitted connection. The verbs never block; on a closed connection they do nothing."""

    @property
    def id(self) -> str:
        """Unguessable and never used twice."""

    @property
    def identity(self) -> str: ...
    @property
    def client_id(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def listener(self) -> str: ...
    @property
    def is_open(self) -> bool: ...

    @property
    def contended(self) -> bool:
        """Another connection of the same identity is engaged just now."""

    def send(self, topic: str, payload: bytes) -> bool:
        """QoS 1, never retained. False, and nothing is sent, when no granted filter of this connection covers
        the topic, when too much is unacknowledged, when the device takes no packet of this size, or when it is
        closed. A device that subscribed with QoS 0 gets it with QoS 0, and ``acknowledged`` never comes."""

    def permit(self, topics: frozenset[str]) -> None:
        """Replace the set of further topics that it may publish to just now."""

    def engage(self) -> None:
        """Until ``release``, the end of the connection or ``engaged_s_max`` no newer connection displaces it; called
        again it counts anew, up to ``engaged_total_s_max``."""

    def release(self) -> None: ...

    def close(self, reason: Close) -> None: ...

    def finish(self, grace_s: float) -> None:
        """Its business is done: cut it after ``grace_s`` if the device has not left by itself."""


class Application(Protocol):
    """What stands behind the gate. Calls about one connection come one after another, in order: ``closed`` is
    the last one and waits for a ``received`` that is running."""

    async def admit(self, login: Login) -> Admission | Denial:
        """Decide about a CONNECT without any side effect that a refused peer could use. Raising means UNAVAILABLE."""

    def opened(self, connection: Connection) -> None:
        """CONNACK 0 is about to be sent."""

    async def received(self, connection: Connection, topic: str, payload: bytes, dup: bool) -> None:
        """A message that the connection may publish. The PUBACK is sent when this returns, so returning means
        that its effects are durable; what was sent meanwhile leaves behind it. Raising closes the connection and
        nothing is acknowledged."""

    def acknowledged(self, connection: Connection, topic: str) -> None:
        """The device sent PUBACK for a message that was sent to it on ``topic``."""

    def closed(self, connection: Connection, reason: Close) -> None: ...

    def foresaw(self, incident: Incident) -> bool:
        """Whether the application has it done to itself, to test the gate: then it is neither counted nor told."""

    def observed(self, incident: Incident) -> None: ...


def check_login(login: Login) -> Denial | None:
    """Refuse before anybody is asked what can never be right (F-01, F-09, F-11)."""
    if _broken_name(login.client_id, _CLIENT_ID_FORBIDDEN) or ".." in login.client_id:
        return Denial(DenialKind.CLIENT_ID, "client_id_malformed")
    for reason in _credential_faults(login):
        return Denial(DenialKind.NOT_AUTHORIZED, reason)
    if login.will_topic is not None and login.will_retain:
        return Denial(DenialKind.NOT_AUTHORIZED, "will_retained")
    return None


def may_publish(rights: Rights, permitted: frozenset[str], topic: str) -> bool:
    """Exact topics only; ``permitted`` are the ones the application asked an answer on."""
    return topic in rights.publish or topic in permitted


def may_subscribe(rights: Rights, topic_filter: str) -> bool:
    """F-02, F-04: one of the exact filters, or literally at or below the connection's own prefix."""
    if topic_filter.startswith("$share/"):
        return False
    if topic_filter in rights.subscribe:
        return True
    below = rights.below
    if not below:
        return False
    # "a/b/#" also matches "a/b" itself (section 4.7.1.2), so the prefix without its "/" reveals nothing more.
    return topic_filter == below[:-1] or topic_filter.startswith(below)


def may_will(rights: Rights, topic: str, retain: bool) -> bool:
    """F-01: a Will is accepted on the connection's own topic only, and delivered to nobody even then."""
    return not retain and topic in rights.wills


def covers(topic_filter: str, topic: str) -> bool:
    """A message on ``topic`` goes to a subscription of ``topic_filter`` (section 4.7)."""
    if "#" not in topic_filter and "+" not in topic_filter:
        return topic_filter == topic
    if topic.startswith("$") and topic_filter[0] in "#+":
        return False  # [MQTT-4.7.2-1]
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()  # covers its parent level as well (section 4.7.1.2)
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(one in ("+", level) for one, level in zip(wanted, levels, strict=True))


def _credential_faults(login: Login) -> Iterator[str]:
    if login.username is None:
        yield "anonymous" if login.password is None else "password_without_username"
    elif _broken_name(login.username, _USERNAME_FORBIDDEN):
        yield "username_malformed"
    if not login.password:
        yield "password_missing"
    elif len(login.password) > PASSWORD_BYTES_MAX:
        yield "password_too_long"


def _broken_name(name: str, forbidden: frozenset[str]) -> bool:
    """True for what may never become a part of a topic or of a log line."""
    if not name or forbidden & set(name):
        return True
    if name.isascii():
        return not name.isprintable() or len(name) > NAME_BYTES_MAX
    if any(unicodedata.category(character) in _UNPRINTABLE for character in name):
        return True
    return len(name.encode()) > NAME_BYTES_MAX
