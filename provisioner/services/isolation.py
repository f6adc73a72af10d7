"""What isolation means: the rules, the filters and topics that try each of them, and how what is heard is judged. Pure.

Two throw-away devices stand for any two. The holder minds its own business, the spy tries everything else.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from provisioner.link.probe import Login

ACCOUNT_PREFIX: Final = "fleetgate-selftest-"
_THROW_AWAY = re.compile(f"{ACCOUNT_PREFIX}[0-9A-Z]{{16}}", re.ASCII)
HOLDER, SPY = "holder", "spy"


@dataclass(frozen=True, slots=True)
class Rule:
    """promise: what holds. leak: what was seen when it does not. advice: what to do then."""

    name: str
    promise: str
    leak: str
    advice: str


_ACL = "restrict every user to the topics below its own prefixes, on this listener too"
_WILL = "check the Will's topic against the publish rights of who leaves it, or refuse Wills"
_LOGIN = "bind each client id to its user, and check the password before anything else"

RULES: Final = (
    Rule("own-topics", "a device can use its own topics", "it cannot", "see that the broker runs and knows its users"),
    Rule(
        "no-anonymous",
        "nobody gets in without a login",
        "a connection without username and password was accepted",
        "turn anonymous access off (mosquitto: allow_anonymous false, for every listener)",
    ),
    Rule(
        "read-retained",
        "what a device had retained comes to nobody else",
        "the spy was given a message that the other device had retained",
        f"{_ACL}, and check them when a retained message is delivered as well",
    ),
    Rule("read-other", "another device's topics cannot be read", "the spy read the other device's topics", _ACL),
    Rule(
        "read-neighbours",
        "no wildcard reaches into other devices' topics",
        "the spy read another device's topics through a wildcard over accounts or devices",
        f"{_ACL}; no pattern may let a wildcard stand in the place of an account or a client id",
    ),
    Rule("read-all", "'#' and '+/#' bring nothing", "the spy read what others say through '#' or '+/#'", _ACL),
    Rule(
        "read-broker-state",
        "'$SYS/#' brings nothing",
        "the spy read the broker's own state",
        "deny devices the topics below $SYS: they name clients and addresses",
    ),
    Rule(
        "shared-subscription",
        "'$share/...' brings nothing of others",
        "the spy read another device's topics through a shared subscription",
        "check the filter behind $share/<group>/ like any other, or turn shared subscriptions off",
    ),
    Rule("write-other", "another device's topics cannot be written", "the spy's words reached the other device", _ACL),
    Rule("will", "a Will reaches no other device", "the spy's Will reached, or may reach, the other device", _WILL),
    Rule(
        "will-retained",
        "a retained Will reaches no other device",
        "the spy's retained Will reached, or may reach, the other device",
        _WILL,
    ),
    Rule(
        "write-retained",
        "nothing can be left for another device",
        "the spy's retained message was given to the other device",
        _ACL,
    ),
    Rule(
        "takeover-wrong-password",
        "a client id is not taken without its user's password",
        "a wrong password, or a forged certificate, got in as the other device, or cut it off, or made it deaf",
        _LOGIN,
    ),
    Rule(
        "takeover-other-user",
        "a client id is not taken with another user's login",
        "the spy's own login got in as the other device, or cut it off, or made it deaf",
        _LOGIN,
    ),
)
BY_NAME: Final[Mapping[str, Rule]] = {rule.name: rule for rule in RULES}
READING: Final = ("read-other", "read-neighbours", "read-all", "read-broker-state", "shared-subscription")
TAKING_OVER: Final = ("takeover-wrong-password", "takeover-other-user")


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One throw-away device. speaks: topics that it may publish to, and hears again. hears: filters of its own.

    topics: all on which anything of it may be seen, or said to it."""

    client_id: str
    login: Login
    speaks: Sequence[str]
    hears: Sequence[str]
    topics: Sequence[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """held: None when it could not be tried."""

    rule: str
    held: bool | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One listener of the gate, or one account broker. took_s: the throw-away logins' making and removal included."""

    target: str
    took_s: float
    verdicts: Sequence[Verdict]

    @property
    def leaks(self) -> Sequence[str]:
        """The rules that do not hold, by name."""
        return [verdict.rule for verdict in self.verdicts if verdict.held is False]

    @property
    def holds(self) -> bool:
        """Every rule was tried, and held."""
        return all(verdict.held for verdict in self.verdicts)

    @property
    def summary(self) -> str:
        """Names the leaked rules, or why it is not known."""
        if self.leaks:
            return f"leaks: {', '.join(self.leaks)}"
        unknown = next((verdict.detail for verdict in self.verdicts if verdict.held is None), None)
        return unknown or "holds"


def is_throw_away(account: str) -> bool:
    """Whether this can only be the account of a self-test; no other may be called so."""
    return _THROW_AWAY.fullmatch(account) is not None


def filters_of(rule: str, holder: Party) -> Sequence[str]:
    """What the spy subscribes to for this rule, each filter once."""
    match rule:
        case "read-retained":
            return _once((*holder.topics, *_own_subtrees(holder), "#"))
        case "read-other":
            return _once((*holder.topics, *_own_subtrees(holder)))
        case "read-neighbours":
            return _once(wide for topic in holder.topics for wide in _neighbours(topic, holder.client_id))
        case "read-all":
            return ("#", "+/#", "+/+/#")
        case "read-broker-state":
            return ("$SYS/#",)
        case "shared-subscription":
            shared = (f"$share/fleetgate/{each}" for each in (*_own_subtrees(holder), "#"))
            return _once(shared)
    raise ValueError(f"{rule} is not tried by reading")


def stamp(run: str, author: str, rule: str, number: int) -> bytes:
    """A payload that says whose it is and what it was published for. run: unguessable."""
    return f"{run} {author} {rule} {number}".encode()


def leaked_rule(run: str, listener: str, payload: bytes, trying: str) -> str | None:
    """The rule that a heard payload breaks, None when the listener may hear it. trying: the rule being tried; a
    message that was not published for any rule, or by nobody of this run, broke it if it is one of reading."""
    if not payload:
        return None  # a retained message being deleted
    words = payload.decode("utf-8", "replace").split(" ")
    ours = len(words) == 4 and words[0] == run
    if ours and words[1] == listener:
        return None
    if ours and words[2] in BY_NAME:
        return words[2]
    return trying if trying in (*READING, *TAKING_OVER) else "read-other"


def verdict_of(rule: Rule, seen: str | None, reason: str | None) -> Verdict:
    """seen: how it leaked. reason: why it could not be tried. Both None: it holds."""
    if seen is not None:
        return Verdict(rule.name, False, f"LEAK: {rule.leak}{f' ({seen})' if seen else ''}. To do: {rule.advice}")
    if reason is not None:
        return Verdict(rule.name, None, f"not tried: {reason}")
    return Verdict(rule.name, True, rule.promise)


def _own_subtrees(party: Party) -> Iterable[str]:
    """Its topics as far as its client id, and everything below."""
    for topic in party.topics:
        levels = topic.split("/")
        yield "/".join([*levels[: levels.index(party.client_id) + 1], "#"])


def _neighbours(topic: str, client_id: str) -> Iterable[str]:
    """Filters that reach it from above, and those with a wildcard in the place of the account or the client id."""
    levels = topic.split("/")
    place = levels.index(client_id)
    for depth in range(1, place + 1):
        yield "/".join([*levels[:depth], "#"])
    yield "/".join([*levels[:place], "+", "#"])
    yield "/".join([*levels[:place], "+", *levels[place + 1 :]])
    # A wildcard does not stand for a first level that begins with "$" [MQTT-4.7.2-1].
    fixed = 1 if topic.startswith("$") else 0
    yield "/".join([*levels[:fixed], *["+"] * (place - fixed), client_id, "#"])


def _once(filters: Iterable[str]) -> Sequence[str]:
    return tuple(dict.fromkeys(filters))
