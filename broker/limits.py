"""What the gate takes from strangers before it stops listening to them. Pure: the clock is an argument.

Only failures are charged, and only to those who made them: a fleet that comes up behind one address, or that shares
one username, is never slowed down by its own successes (F-19). Every table forgets its oldest entry when it is full.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeVar

from broker.access import Denial, DenialKind
from broker.session_settings import SessionSettings

_V = TypeVar("_V")

FILES_RESERVED = 256  # for everything in the process that is not a connection of the gate
_IPV6_SITE_BITS = 64  # one customer usually has a /64 or more, and may walk through all of its addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """Every bound of a gate; those of a single session are in ``session``. ValueError names a bad field."""

    session: SessionSettings = field(default_factory=SessionSettings)

    connections_max: int = 16_000
    """Open sockets, strangers included; one more is told "server unavailable" (v5 0x97)."""
    unauthenticated_max: int = 12_000
    """Sockets without an accepted CONNECT. When all are taken, the oldest stranger makes room. See ``fitted``."""
    unauthenticated_protected_s: float = 2.0
    """A younger stranger is not displaced; the newcomer is turned away instead."""
    turned_away_max: int = 1_000
    """Sockets that wait for the answer that there is no room; beyond them a socket is closed without one."""
    turned_away_wait_s: float = 1.0
    """How long such a socket may take for its CONNECT before it gets a 3.1.1 CONNACK unasked."""
    accepts_burst: int = 20_000
    accepts_per_s: float = 6_000.0
    """New sockets of everybody together."""

    address_failures_burst: int = 1_000
    address_failures_per_s: float = 100.0
    """Failed logins of one address (IPv6: of one /64), whoever it claims to be."""
    username_failures_burst: int = 200
    username_failures_per_s: float = 20.0
    """Failed logins of one username from one address."""
    lockout_failures: int = 10
    lockout_s: float = 300.0
    """Failures in a row of one (username, client id, address), and how long nothing of it is tried then."""
    attempts_at_once_max: int = 64
    """Logins of one (username, client id, address) that may be under way."""
    identity_connects_burst: int = 300
    identity_connects_per_s: float = 5.0
    flapping_s: float = 60.0
    """Accepted logins of one identity, and how long a flapping one is told to wait ("busy")."""
    tracked_max: int = 20_000
    """Entries in each table of the above."""

    admit_s_max: float = 10.0
    """The application's time for one login."""
    contenders_max: int = 64
    """Connections of one identity beside the one that is engaged."""
    engaged_s_max: float = 20.0
    engaged_total_s_max: float = 300.0
    """How long a connection is not displaced after it was last engaged, and all in all."""
    filters_max: int = 32
    """Subscriptions of one connection."""
    messages_burst: int = 1_000
    messages_per_s: float = 500.0
    """PUBLISH, SUBSCRIBE and UNSUBSCRIBE of one connection; what comes faster is read later."""
    refusals_max: int = 100
    """Refused actions of one connection; one more ends it."""
    linger_s: float = 1.0
    """How long a peer that was sent away may take to read the reason."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if name != "session" and not 0 < value <= 10_000_000:
                raise ValueError(f"{name} is not in 0..10000000 (exclusive of 0)")


def fitted(limits: GateLimits, open_files_max: int) -> GateLimits:
    """Limits that leave the rest of the process its files: a socket too many would fail a store or a log instead.
    And strangers get three quarters of the places at most, for nobody makes room where all places are taken."""
    turned_away_max = max(1, min(limits.turned_away_max, open_files_max // 10))
    connections_max = max(1, min(limits.connections_max, open_files_max - turned_away_max - FILES_RESERVED))
    return replace(
        limits,
        turned_away_max=turned_away_max,
        connections_max=connections_max,
        unauthenticated_max=min(limits.unauthenticated_max, max(1, connections_max * 3 // 4)),
    )


@dataclass(frozen=True, slots=True)
class Attempt:
    """Who claims to be whom, and from where."""

    address: str
    username: str
    client_id: str


class TokenBucket:
    """``burst`` at once, ``per_s`` in the long run; may be charged below zero, down to one more burst."""

    __slots__ = ("_at_s", "_burst", "_per_s", "_tokens")

    def __init__(self, burst: float, per_s: float, now: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._tokens = burst
        self._at_s = now

    def level(self, now: float) -> float:
        """Tokens at ``now``; a clock that steps back adds none."""
        if now > self._at_s:
            self._tokens = min(self._burst, self._tokens + (now - self._at_s) * self._per_s)
            self._at_s = now
        return self._tokens

    def charge(self, now: float, tokens: float = 1) -> None:
        self._tokens = max(-self._burst, self.level(now) - tokens)

    def take(self, now: float) -> bool:
        """Charge one token if there is a whole one."""
        if self.level(now) < 1:
            return False
        self._tokens -= 1
        return True

    def wait_s(self, now: float) -> float:
        """0.0, or how long until ``take`` succeeds."""
        return max(0.0, (1 - self.level(now)) / self._per_s)


class BucketTable:
    """One bucket for each key that was charged lately; an unknown key has a full one."""

    __slots__ = ("_buckets", "_burst", "_max", "_per_s")

    def __init__(self, burst: float, per_s: float, tracked_max: int) -> None:
        self._burst = burst
        self._per_s = per_s
        self._max = tracked_max
        self._buckets: OrderedDict[int, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def is_empty(self, key: int, now: float) -> bool:
        bucket = self._buckets.get(key)
        return bucket is not None and bucket.level(now) < 1

    def charge(self, key: int, now: float, tokens: float = 1) -> None:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._burst, self._per_s, now)
            if len(self._buckets) > self._max:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        bucket.charge(now, tokens)


@dataclass(slots=True)
class _Strikes:
    """Failures in a row and the time of the last; ``locked_until_s`` is 0.0 while fewer than the limit."""

    count: int
    at_s: float
    locked_until_s: float = 0.0


class LoginLimits:
    """Guessing is slow for the one who guesses and costs nobody else anything."""

    def __init__(self, limits: GateLimits) -> None:
        self.gates = 1
        """Of how many gates this is one: as each sees a part of all attempts, each attempt counts so many times."""
        self._limits = limits
        tracked = limits.tracked_max
        self._addresses = BucketTable(limits.address_failures_burst, limits.address_failures_per_s, tracked)
        self._usernames = BucketTable(limits.username_failures_burst, limits.username_failures_per_s, tracked)
        self._identities = BucketTable(limits.identity_connects_burst, limits.identity_connects_per_s, tracked)
        self._strikes: OrderedDict[int, _Strikes] = OrderedDict()
        self._proven: OrderedDict[int, None] = OrderedDict()
        self._flapping: OrderedDict[int, float] = OrderedDict()
        self._under_way: dict[int, int] = {}  # bounded by the sockets that wait for their CONNACK

    @property
    def tracked(self) -> int:
        """Entries in all tables together: at most six times ``tracked_max`` and the logins under way."""
        tables = (self._addresses, self._usernames, self._identities, self._strikes, self._proven, self._flapping)
        return sum(len(table) for table in tables) + len(self._under_way)

    def begin(self, attempt: Attempt, now: float) -> Denial | None:
        """None: try it, and tell ``end`` how it went. A Denial: do not, and there is nothing to tell."""
        site = site_of(attempt.address)
        key = _key(site, attempt.username, attempt.client_id)
        strikes = self._strikes.get(key)
        if strikes is not None and now < strikes.locked_until_s:
            return Denial(DenialKind.RATE, "locked_out")
        under_way = self._under_way.get(key, 0)
        if under_way >= self._limits.attempts_at_once_max:
            return Denial(DenialKind.BUSY, "attempts_at_once")
        if key not in self._proven:
            if self._usernames.is_empty(_key(site, attempt.username), now):
                return Denial(DenialKind.RATE, "username_throttled")
            if self._addresses.is_empty(_key(site), now):
                return Denial(DenialKind.RATE, "address_throttled")
        self._under_way[key] = under_way + 1
        return None

    def end(self, attempt: Attempt, now: float, success: bool | None) -> bool:
        """Whether this failure was the one too many, and nothing of the kind is tried for a while.

        success: None when nobody can tell (the application was not able to answer, the peer went away)."""
        site = site_of(attempt.address)
        key = _key(site, attempt.username, attempt.client_id)
        left = self._under_way.get(key, 1) - 1
        if left:
            self._under_way[key] = left
        else:
            self._under_way.pop(key, None)
        if success:
            self._strikes.pop(key, None)
            _remember(self._proven, key, None, self._limits.tracked_max)
        elif success is False:
            self._addresses.charge(_key(site), now, self.gates)
            self._usernames.charge(_key(site, attempt.username), now, self.gates)
            return self._strike(key, now)
        return False

    def lock_out(self, attempt: Attempt, now: float) -> None:
        """As after the last failure of a row; it happened at another gate."""
        self._lock(_key(site_of(attempt.address), attempt.username, attempt.client_id), now)

    def connected(self, identity: str, now: float) -> Denial | None:
        """Count an accepted login of this identity; a Denial when it comes and goes too often."""
        key = _key(identity)
        until_s = self._flapping.get(key)
        if until_s is not None:
            if now < until_s:
                return Denial(DenialKind.BUSY, "flapping")
            del self._flapping[key]
        elif self._identities.is_empty(key, now):
            _remember(self._flapping, key, now + self._limits.flapping_s, self._limits.tracked_max)
            return Denial(DenialKind.BUSY, "flapping")
        self._identities.charge(key, now, self.gates)
        return None

    def _strike(self, key: int, now: float) -> bool:
        strikes = self._strikes.get(key)
        if strikes is None or now - strikes.at_s > self._limits.lockout_s:
            strikes = _Strikes(0, now)
        strikes.count += self.gates
        strikes.at_s = now
        if strikes.count >= self._limits.lockout_failures:
            self._lock(key, now)
            return True
        _remember(self._strikes, key, strikes, self._limits.tracked_max)
        return False

    def _lock(self, key: int, now: float) -> None:
        self._proven.pop(key, None)
        locked = _Strikes(0, now, now + self._limits.lockout_s)
        _remember(self._strikes, key, locked, self._limits.tracked_max)


class Standing(Enum):
    """What a socket counts as."""

    STRANGER = "stranger"
    ADMITTED = "admitted"
    TURNED_AWAY = "turned_away"


class Doorway:
    """Counts the sockets and says whether there is room for one more."""

    __slots__ = ("_accepts", "_limits", "counts")

    def __init__(self, limits: GateLimits, now: float) -> None:
        self._limits = limits
        self._accepts = TokenBucket(limits.accepts_burst, limits.accepts_per_s, now)
        self.counts = dict.fromkeys(Standing, 0)

    def shortage(self, now: float) -> str | None:
        """None when a new socket may come in as a stranger, else the reason why not."""
        strangers = self.counts[Standing.STRANGER]
        if not self._accepts.take(now):
            return "accept_rate"
        if self.counts[Standing.ADMITTED] + strangers >= self._limits.connections_max:
            return "connections_max"
        if strangers >= self._limits.unauthenticated_max:
            return "unauthenticated_max"
        return None

    @property
    def can_answer_more(self) -> bool:
        """There is room to tell one more that there is no room."""
        return self.counts[Standing.TURNED_AWAY] < self._limits.turned_away_max

    def move(self, before: Standing | None, after: Standing | None) -> None:
        """None: not in the building."""
        if before is not None:
            self.counts[before] -= 1
        if after is not None:
            self.counts[after] += 1


def site_of(address: str) -> str:
    """The address as limits know it: IPv6 by its /64, an IPv4-mapped one as IPv4."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> (128 - _IPV6_SITE_BITS):x}/{_IPV6_SITE_BITS}"


def _key(*parts: str) -> int:
    """A table key of constant size: strangers choose the names, and 20,000 long ones would cost 20 MB."""
    return hash(parts)


def _remember(table: OrderedDict[int, _V], key: int, value: _V, entries_max: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > entries_max:
        table.popitem(last=False)
