"""Names that people and devices bring: client ids, usernames, passwords, endpoints (EC-08 to EC-10, EC-13, EC-14)."""

import string
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.model import names
from provisioner.model.topics import TopicRights

ALPHANUMERIC = string.ascii_letters + string.digits


# Client ids.


@given(st.text(ALPHANUMERIC, min_size=1, max_size=23))
def test_a_portable_client_id_passes_without_a_warning(client_id: str) -> None:
    """EC-08: 1 to 23 of 0-9 A-Z a-z are always accepted [MQTT-3.1.3-5]."""
    assert list(names.check_client_id(client_id)) == []
    assert list(names.warn_client_id(client_id)) == []


@pytest.mark.parametrize(
    "client_id",
    [
        "a" * 255,
        "é" * 127,
        "B827EBA1B2C3",
        "my-gateway-1-local",
        "b827:eb:a1",
        "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "gate 7",
        "größe_1.2",
    ],
    ids=["255 bytes", "254 bytes", "Kura MAC", "Kura replaced", "colons", "GUID", "inner blank", "umlaut"],
)
def test_a_client_id_within_the_limits_passes(client_id: str) -> None:
    """EC-08, AZ-11: up to 255 bytes of anything that cannot act in a topic, Kura's own ids and GUIDs among them."""
    assert list(names.check_client_id(client_id)) == []


@pytest.mark.parametrize(
    ("client_id", "rule"),
    [
        ("", "empty"),
        ("a" * 256, "255 bytes"),
        ("é" * 128, "255 bytes"),
        ("gw\ud800", "UTF-8"),
        ("gw\x00", "control"),
        ("gw\n", "control"),
        ("gw\x7f", "control"),
        ("\ufeffgw", "control"),
        ("g\u200bw", "control"),
        ("g\u202ew", "control"),
        ("g\u2028w", "control"),
        ("g\ue000w", "control"),
        ("gw::1", "'::'"),
        ("gw..1", "'..'"),
        ("..", "'..'"),
        (" gw", "white space"),
        ("gw\u00a0", "white space"),
        ("%c", "must not contain any of"),
        *((f"g{sign}w", "must not contain any of") for sign in "#+/*&,?>%\\"),
    ],
)
def test_a_client_id_that_breaks_a_rule_is_told_which(client_id: str, rule: str) -> None:
    """EC-08, F-09: what is empty, too long, not UTF-8, invisible or active in a topic is refused by a named rule."""
    broken = list(names.check_client_id(client_id))
    assert any(rule in each for each in broken), broken


@given(st.text(min_size=1, max_size=300))
def test_no_accepted_client_id_can_act_in_a_topic(client_id: str) -> None:
    """F-09: a client id that passes fills exactly one topic level, free of wildcards, in at most 255 bytes."""
    if list(names.check_client_id(client_id)):
        return
    topic = f"prov/v1/{client_id}/request"
    assert len(topic.split("/")) == 4
    assert TopicRights(publish=frozenset((topic,))).publish == {topic}
    assert len(client_id.encode("utf-8")) <= 255


@pytest.mark.parametrize(
    ("client_id", "warnings"), [("a" * 23, 0), ("a" * 24, 1), ("gw-1", 1), ("gé", 1), ("gw-" + "a" * 30, 2)]
)
def test_what_is_not_portable_is_warned_about(client_id: str, warnings: int) -> None:
    """EC-08: longer than 23 characters and characters beyond 0-9 A-Z a-z are two separate warnings."""
    assert len(list(names.warn_client_id(client_id))) == warnings


# Look-alikes.


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("Dev1", "dev1", True),
        ("DEV1", "dev1", True),
        ("\uff44\uff45\uff56\uff11", "dev1", True),
        ("\u212aey", "key", True),
        ("\ufb01re", "fire", True),
        ("STRASSE", "straße", True),
        ("e\u0301tage", "étage", True),
        ("dev1", "dev2", False),
        ("dev1", "dev-1", False),
    ],
)
def test_look_alikes_fold_together(one: str, other: str, alike: bool) -> None:
    """F-10: case variants, full-width forms, ligatures and decomposed accents collide; other names do not."""
    assert (names.case_folded(one) == names.case_folded(other)) is alike


# Usernames.


@pytest.mark.parametrize("username", ["abc", "A-b_9", "___", "a" * 255])
def test_a_username_of_three_letters_digits_dashes_underscores_passes(username: str) -> None:
    """EC-09, EC-10: three characters are enough."""
    assert list(names.check_username(username)) == []


@pytest.mark.parametrize(
    ("username", "rule"),
    [
        ("", "at least 3"),
        ("ab", "at least 3"),
        *(
            (name, "only letters")
            for name in ("a.b", "a b", "a+b", "é12", "abc\n", "a/b", "abc\x00", "\uff11\uff12\uff13", "a" * 256)
        ),
    ],
)
def test_a_username_that_breaks_a_rule_is_told_which(username: str, rule: str) -> None:
    """EC-09, EC-10, F-09: too short, or anything but ASCII letters, digits, dash and underscore."""
    (broken,) = names.check_username(username)
    assert rule in broken


# Passwords.

LENGTH, LOWER, UPPER, SPECIAL = "at least 12", "lower-case", "upper-case", "special"


@pytest.mark.parametrize(
    ("password", "rules"),
    [
        ("Abcdefghijk!", []),
        ("Ünïcödé-Wörd", []),
        ("A" * 128 + "a" * 127 + "!", []),
        ("Abcdefghij!", [LENGTH]),
        ("ABCDEFGHIJK!", [LOWER]),
        ("abcdefghijk!", [UPPER]),
        ("Abcdefghijkl", [SPECIAL]),
        ("Abcdefghijk1", [SPECIAL]),
        ("abc", [LENGTH, UPPER, SPECIAL]),
        ("", [LENGTH, LOWER, UPPER, SPECIAL]),
        ("A" * 128 + "a" * 128 + "!", ["at most 256"]),
        ("Abcdefghijk!\x00", ["NUL"]),
        ("Abcdefghijk!\ud800", ["UTF-8"]),
    ],
)
def test_a_password_is_told_every_rule_that_it_breaks(password: str, rules: list[str]) -> None:
    """EC-13, EC-14: twelve characters, lower, upper and special, no digit needed; all broken rules at once."""
    broken = list(names.check_password(password))
    assert len(broken) == len(rules)
    assert all(rule in text for rule, text in zip(rules, broken, strict=True)), broken


# Endpoints.


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://broker.example",
        "mqtts://broker.example:8883",
        "ws://10.0.0.7:80/mqtt",
        "wss://[2001:db8::1]:443/mqtt?x=1",
        "MQTTS://broker.example:65535",
    ],
)
def test_the_four_mqtt_schemes_are_accepted(url: str) -> None:
    """EC-18: mqtt, mqtts, ws and wss, with a host and perhaps a port and a path."""
    assert list(names.check_endpoint(url)) == []


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "begin with"),
        ("broker.example:1883", "begin with"),
        ("http://broker.example", "begin with"),
        ("tcp://broker.example", "begin with"),
        ("mqtt://", "name a host"),
        ("mqtt://:1883", "name a host"),
        ("mqtt://broker.example:0", "port from 1 to 65535"),
        ("mqtt://broker.example:65536", "port from 1 to 65535"),
        ("mqtt://broker.example:eight", "port from 1 to 65535"),
        ("mqtt://[2001:db8::1", "port from 1 to 65535"),
        ("mqtt://user:word@broker.example", "credentials"),
        ("mqtt://user@broker.example", "credentials"),
        ("mqtt://broker .example", "white space"),
        ("mqtt://broker.example\n", "white space"),
        ("mqtt://broker\x00.example", "white space"),
        ("mqtt://broker.example/\ud800", "white space"),
        ("mqtt://" + "b" * 2048, "2,048"),
    ],
)
def test_an_endpoint_that_no_device_can_use_is_told_why(url: str, rule: str) -> None:
    """EC-18: other schemes, no host, an impossible port, credentials or white space are refused."""
    broken = list(names.check_endpoint(url))
    assert any(rule in each for each in broken), broken


# All of them.


@pytest.mark.parametrize(
    "check", [names.check_client_id, names.check_username, names.check_password, names.check_endpoint]
)
@pytest.mark.parametrize("around", ["{}\x00", "{}\ud800", "mqtt://u:{}@h:99999\x00", "{}" + "x" * 5000])
def test_no_rule_quotes_the_value(check: Callable[[str], Iterator[str]], around: str) -> None:
    """F-39: a broken rule may end in a log, so it never shows what broke it."""
    broken = list(check(around.format("Canary-7f3a")))
    assert broken
    assert not any("Canary" in each or "7f3a" in each for each in broken)
