"""One trial: two throw-away devices on real connections, each rule tried in turn. Blocking, for a thread of its own.

A rule is judged by what arrives: a broker may grant a filter and deliver nothing, acknowledge a message and drop it,
or cut who asks. Only where it says of itself that it refuses, a grant alone is a leak.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from provisioner.link.probe import Door, Login, Probe, Will
from provisioner.services.isolation import (
    HOLDER,
    READING,
    RULES,
    SPY,
    Party,
    Verdict,
    filters_of,
    leaked_rule,
    stamp,
    verdict_of,
)

TRIAL_S_MAX = 10.0
QUIET_S = 0.15  # at the end, for what a broker delivers late
SOON_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is tried, and what it says of itself: a promise to refuse is held against it."""

    name: str
    door: Door
    refuses_subscribe: bool
    refuses_wills: bool
    checks_client_id: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who takes part. impostors: logins by which nobody may come as the holder. stranger: a client id of nobody. run:
    unguessable."""

    holder: Party
    spy: Party
    impostors: Sequence[Login]
    stranger: str
    run: str


class NotTried(Exception):
    """The trial cannot go on; the text says why."""


class Trial:
    """``run`` once."""

    def __init__(self, target: Target, cast: Cast) -> None:
        self._target, self._cast = target, cast
        self._until_s = time.monotonic() + TRIAL_S_MAX
        self._numbers = count(1)
        self._rule = RULES[0].name
        self._tried: set[str] = set()
        self._refused: set[str] = set()  # filters
        self._cuts = False  # who asks for what is not his
        self._leaks: dict[str, str] = {}
        self._live: dict[str, Probe] = {}
        self._parties: Mapping[str, Party] = {HOLDER: cast.holder, SPY: cast.spy}

    def run(self) -> Sequence[Verdict]:
        """A verdict for each rule; for those behind one that cannot be tried there is none, unless they leaked."""
        reason = None
        try:
            for rule in RULES:
                self._rule = rule.name
                self._attempts()[rule.name]()
                self._collect()
                self._tried.add(rule.name)
            self._rest()
        except NotTried as failure:
            reason = str(failure)
        finally:
            self._clear_away()
        known = {rule.name for rule in RULES if rule.name in self._tried or rule.name in self._leaks}
        verdicts = [verdict_of(rule, self._leaks.get(rule.name), None) for rule in RULES if rule.name in known]
        if reason is not None:
            verdicts += [verdict_of(rule, None, reason) for rule in RULES if rule.name not in known][:1]
        return verdicts

    def _attempts(self) -> Mapping[str, Callable[[], None]]:
        return {
            "own-topics": self._own_topics,
            "no-anonymous": self._no_anonymous,
            "read-retained": self._read_retained,
            **dict.fromkeys(READING, self._read),
            "write-other": lambda: self._write(retain=False),
            "will": lambda: self._leave_will(retain=False),
            "will-retained": lambda: self._leave_will(retain=True),
            "write-retained": lambda: self._write(retain=True),
            "takeover-wrong-password": self._take_over_by_guessing,
            "takeover-other-user": self._take_over_as_another,
        }

    # The rules

    def _own_topics(self) -> None:
        """Without this nothing that is refused proves anything."""
        for who, party in self._parties.items():
            self._open(who)
            for topic in party.speaks:
                payload = self._stamp(who)
                self._live[who].publish(topic, payload)
                if not self._live[who].await_payload(payload):
                    raise NotTried("a device does not hear what it publishes to its own topics")

    def _no_anonymous(self) -> None:
        nobody = Probe(self._target.door, self._cast.stranger, None, self._until_s)
        if nobody.connect():
            self._leak("")
        nobody.leave()

    def _read_retained(self) -> None:
        for topic in self._cast.holder.speaks:
            self._live[HOLDER].publish(topic, self._stamp(HOLDER), retain=True)
        self._settle()
        self._open(SPY)  # some brokers hand out retained messages to whoever connects
        granted = self._subscribe(filters_of(self._rule, self._cast.holder))
        self._settle_spy()
        self._unsubscribe(granted)

    def _read(self) -> None:
        granted = self._subscribe(filters_of(self._rule, self._cast.holder))
        if not granted:
            return
        if self._target.refuses_subscribe:
            self._leak("a filter was granted where foreign ones are refused")
        for topic in self._cast.holder.speaks:
            self._live[HOLDER].publish(topic, self._stamp(HOLDER))
        self._settle()
        self._settle_spy()
        self._unsubscribe(granted)

    def _write(self, *, retain: bool) -> None:
        if not self._cuts:
            for topic in self._cast.holder.topics:
                self._live[SPY].publish(topic, self._stamp(SPY), retain=retain)
            self._cuts = not self._settle_spy()
        if self._cuts:  # one topic at a time, or the others would not be tried
            for topic in self._cast.holder.topics:
                self._live[SPY].publish(topic, self._stamp(SPY), retain=retain)
                self._settle_spy()
        if retain:
            self._settle()
            self._open(HOLDER)
        self._settle()

    def _leave_will(self, *, retain: bool) -> None:
        for topic in dict.fromkeys((self._cast.holder.topics[0], self._cast.holder.topics[-1])):
            self._live[SPY].leave()
            will = Will(topic, self._stamp(SPY), retain)
            bearer = self._probe(self._cast.spy.client_id, self._cast.spy.login, will=will)
            if bearer.connect():
                if self._target.refuses_wills:
                    self._leak("it was accepted where foreign ones are refused")
                bearer.vanish()
            self._open(SPY)  # the same client id: what the end of the former one sets off comes before
            self._settle_spy()
            self._settle()
        if retain:
            self._open(HOLDER)
            self._settle()

    def _take_over_by_guessing(self) -> None:
        for login in self._cast.impostors:
            for clean in (True, False):
                self._intrude(login, clean=clean, refused=True)

    def _take_over_as_another(self) -> None:
        for clean in (True, False):
            self._intrude(self._cast.spy.login, clean=clean, refused=self._target.checks_client_id)
        self._settle_spy()  # where a client id has no meaning, it has taken over from itself

    def _intrude(self, login: Login, *, clean: bool, refused: bool) -> None:
        """Come as the holder. It must not get in, or not matter to the holder in any way."""
        for _ in range(2):  # a holder that was lost once may have been lost by chance
            if self._come_as_holder(login, clean=clean, refused=refused):
                return
            self._open(HOLDER)
        self._leak("the other device was cut off or made deaf")

    def _come_as_holder(self, login: Login, *, clean: bool, refused: bool) -> bool:
        """Whether the holder goes on undisturbed."""
        intruder = self._probe(self._cast.holder.client_id, login, clean=clean)
        if intruder.connect():
            if refused:
                self._leak("it was let in")
            for own in self._cast.holder.hears:
                intruder.subscribe(own)
            self._hears_itself(HOLDER)
            intruder.listen(QUIET_S)
            heard = [self._broken_by(SPY, payload) for payload in intruder.take()]
            if any(heard) and "read-other" not in self._leaks:  # else it reads as it would under any name
                self._leak("it read the other device's topics")
        intruder.vanish()
        return self._hears_itself(HOLDER)

    # Steps of them

    def _probe(self, client_id: str, login: Login, *, clean: bool = True, will: Will | None = None) -> Probe:
        return Probe(self._target.door, client_id, login, self._until_s, clean=clean, will=will)

    def _open(self, who: str) -> None:
        """A fresh connection in the place of the former one, with its own subscriptions and no other."""
        self._connect(who)
        self._subscribe_own(who)

    def _connect(self, who: str) -> None:
        if who in self._live:
            self._collect()
            self._live[who].leave()
        party = self._parties[who]
        probe = self._live[who] = self._probe(party.client_id, party.login)
        if not probe.connect():
            raise NotTried(f"a device with valid credentials cannot connect: {probe.failure}")

    def _subscribe_own(self, who: str) -> None:
        for own in self._parties[who].hears:
            if not self._live[who].subscribe(own):
                raise NotTried("a device cannot subscribe to its own topics")

    def _settle(self) -> None:
        """Everything before was delivered to the holder."""
        if not self._hears_itself(HOLDER):
            raise NotTried("the broker cut off a device that minds its own business, or does not answer it")

    def _settle_spy(self) -> bool:
        """The same for the spy. False when it was cut meanwhile; then it is back."""
        if self._hears_itself(SPY):
            return True
        if time.monotonic() > self._until_s:
            raise NotTried(f"it took longer than {TRIAL_S_MAX:g} s")
        self._open(SPY)
        return False

    def _hears_itself(self, who: str) -> bool:
        payload = self._stamp(who, "marker")
        self._live[who].publish(self._parties[who].speaks[0], payload)
        return self._live[who].await_payload(payload)

    def _subscribe(self, filters: Sequence[str]) -> Sequence[str]:
        """Those that were granted; what was refused once is not asked again. A broker may cut who asks: then the spy
        comes back for the next filter, and with its own subscriptions at the end only."""
        granted: list[str] = []
        cut = False
        for each in filters:
            if each in self._refused:
                continue
            if self._live[SPY].subscribe(each):
                granted.append(each)
                continue
            self._refused.add(each)
            if not self._live[SPY].is_open:
                cut = self._cuts = True
                self._connect(SPY)
                self._subscribe_again(granted)
        if cut:
            self._subscribe_own(SPY)
        return granted

    def _subscribe_again(self, filters: Sequence[str]) -> None:
        for each in filters:
            self._live[SPY].subscribe(each)

    def _unsubscribe(self, filters: Sequence[str]) -> None:
        for each in filters:
            self._live[SPY].unsubscribe(each)

    # Judging

    def _stamp(self, author: str, rule: str | None = None) -> bytes:
        return stamp(self._cast.run, author, rule or self._rule, next(self._numbers))

    def _leak(self, seen: str) -> None:
        self._leaks.setdefault(self._rule, seen)

    def _collect(self) -> None:
        for who, probe in self._live.items():
            self._judge(who, probe.take())

    def _judge(self, listener: str, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            rule = self._broken_by(listener, payload)
            if rule is not None:
                self._leaks.setdefault(rule, "")

    def _broken_by(self, listener: str, payload: bytes) -> str | None:
        return leaked_rule(self._cast.run, listener, payload, self._rule)

    def _rest(self) -> None:
        self._live[HOLDER].listen(QUIET_S)
        self._live[SPY].listen(SOON_S)  # what came meanwhile waits in its socket
        self._collect()

    def _clear_away(self) -> None:
        """Delete what may be retained, and leave."""
        holder = self._live.get(HOLDER)
        if holder is not None and holder.is_open:
            for topic in self._cast.holder.topics:
                holder.publish(topic, b"", retain=True)
        for probe in self._live.values():
            probe.leave()
