"""Who may come in and what a connection may do (EC-04; F-01..F-04, F-09, F-11), as tables and properties."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.access import (
    Denial,
    DenialKind,
    Login,
    check_login,
    covers,
    may_publish,
    may_subscribe,
    may_will,
)
from broker.packets import Subscription
from broker.reason_codes import ReasonCode
from broker.subscriptions import Subscriptions
from provisioner.model.topics import TopicRights

LOGIN = Login(client_id="gw-1", username="fleet", password=b"secret-pass", address="192.0.2.1", version=4, secure=True)
NATIVE = TopicRights(
    publish=frozenset(("prov/v1/gw-1/request", "prov/v1/gw-1/ack")), subscribe=frozenset(("prov/v1/gw-1/response",))
)
ESF = TopicRights(
    publish=frozenset(("$EDC/provision/gw-1/MQTT/BIRTH",)),
    below="$EDC/provision/gw-1/",
    wills=frozenset(("$EDC/provision/gw-1/MQTT/LWT",)),
)
NOBODY: frozenset[str] = frozenset()


def test_a_complete_login_passes() -> None:
    """EC-04: client id, username and password, in the characters that names may have, are all it takes."""
    assert check_login(LOGIN) is None
    assert check_login(replace(LOGIN, client_id="ü-1", username="line.4@plant")) is None


@pytest.mark.parametrize(
    ("username", "password", "reason"),
    [
        (None, None, "anonymous"),
        (None, b"secret-pass", "password_without_username"),
        ("fleet", None, "password_missing"),
        ("fleet", b"", "password_missing"),
        ("", b"secret-pass", "username_malformed"),
        ("fleet", b"x" * 1_025, "password_too_long"),
    ],
)
def test_f11_incomplete_credentials_are_refused(username: str | None, password: bytes | None, reason: str) -> None:
    """F-11: nobody is anonymous, and neither half of the credentials may be absent or empty."""
    login = replace(LOGIN, username=username, password=password)
    assert check_login(login) == Denial(DenialKind.NOT_AUTHORIZED, reason)


@pytest.mark.parametrize(
    "client_id",
    [
        "",
        "a+b",
        "#",
        "a/b",
        "a\0b",
        "\ufeffgw",
        "%c",
        "..",
        "a..b",
        "a\nb",
        "\u202egw",
        "a\u2028b",
        "x" * 256,
        "\ud800",
    ],
)
def test_f09_client_ids_that_could_act_in_a_topic_are_refused(client_id: str) -> None:
    """F-09: wildcards, separators, patterns, control and invisible characters never get past CONNECT."""
    assert check_login(replace(LOGIN, client_id=client_id)) == Denial(DenialKind.CLIENT_ID, "client_id_malformed")


@pytest.mark.parametrize("username", ["a+", "#", "a/b", "a\0", "\ufeffa", "a\r\n", "x" * 256])
def test_f09_usernames_that_could_act_in_a_topic_are_refused(username: str) -> None:
    """F-09: the same for the username, and the peer is not told which part was wrong."""
    assert check_login(replace(LOGIN, username=username)) == Denial(DenialKind.NOT_AUTHORIZED, "username_malformed")


def test_f01_a_retained_will_is_refused_before_anybody_is_asked() -> None:
    """F-01: no rights can make a retained Will acceptable."""
    login = replace(LOGIN, will_topic="$EDC/provision/gw-1/MQTT/LWT", will_retain=True)
    assert check_login(login) == Denial(DenialKind.NOT_AUTHORIZED, "will_retained")


def test_the_password_never_shows() -> None:
    """A login may be logged: its representation has no password in it."""
    assert "secret-pass" not in repr(LOGIN)


@pytest.mark.parametrize(
    ("topic", "retain", "allowed"),
    [
        ("$EDC/provision/gw-1/MQTT/LWT", False, True),
        ("$EDC/provision/gw-1/MQTT/LWT", True, False),
        ("$EDC/provision/gw-2/MQTT/LWT", False, False),
        ("prov/v1/gw-2/response", False, False),
        ("$SYS/broker", False, False),
    ],
)
def test_f01_wills_only_on_the_own_topic(topic: str, retain: bool, allowed: bool) -> None:
    """F-01: the one own Will topic of an ESF session, and a native session has none."""
    assert may_will(ESF, topic, retain) is allowed
    assert not may_will(NATIVE, topic, retain)


@pytest.mark.parametrize(
    "topic_filter",
    ["#", "+/#", "prov/#", "prov/+/response", "prov/v1/+/response", "prov/v1/gw-1/+", "prov/v1/gw-1/#",
     "prov/v1/gw-1/request", "prov/v1/gw-2/response", "$SYS/#", "$CONTROL/#", "$share/g/prov/v1/gw-1/response",
     "$share/g/prov/v1/gw-2/response", "prov/v1/gw-1/response/", "PROV/v1/gw-1/response"],
)  # fmt: skip
def test_f02_f04_a_native_session_subscribes_to_its_answer_only(topic_filter: str) -> None:
    """F-02, F-04: every filter but the exact one is refused, wildcards over the own topics included."""
    assert may_subscribe(NATIVE, "prov/v1/gw-1/response")
    assert not may_subscribe(NATIVE, topic_filter)


@pytest.mark.parametrize(
    ("topic_filter", "allowed"),
    [
        ("$EDC/provision/gw-1/#", True),
        ("$EDC/provision/gw-1/+/REPLY/#", True),
        ("$EDC/provision/gw-1/CONF-V1/GET/configurations", True),
        ("$EDC/provision/gw-1", True),
        ("$EDC/provision/gw-10/#", False),
        ("$EDC/provision/+/#", False),
        ("$EDC/+/gw-1/#", False),
        ("$EDC/#", False),
        ("+/provision/gw-1/#", False),
        ("$share/g/$EDC/provision/gw-1/#", False),
    ],
)
def test_an_esf_session_subscribes_below_its_own_prefix(topic_filter: str, allowed: bool) -> None:
    """F-02 with wire-esf: one wildcard of its own, and the prefix is compared literally, never as a pattern."""
    assert may_subscribe(ESF, topic_filter) is allowed


def test_rights_without_a_prefix_grant_no_prefix() -> None:
    """F-02: an absent or empty prefix must not be taken for "below everything"."""
    assert not may_subscribe(TopicRights(), "#")
    assert not may_subscribe(TopicRights(), "")


def test_publishing_is_exact_and_can_be_permitted_for_a_while() -> None:
    """F-07: exact topics, and those the application waits for an answer on."""
    assert may_publish(NATIVE, NOBODY, "prov/v1/gw-1/request")
    assert not may_publish(NATIVE, NOBODY, "prov/v1/gw-1/response")
    reply = "$EDC/provision/me/CONF-V1/REPLY/1"
    assert not may_publish(ESF, NOBODY, reply)
    assert may_publish(ESF, frozenset((reply,)), reply)


LEVEL = st.text(alphabet="ab$", max_size=2)
TOPIC = st.lists(LEVEL, min_size=1, max_size=5).map("/".join).filter(bool)
FILTER = st.tuples(st.lists(st.one_of(LEVEL, st.just("+")), min_size=1, max_size=5), st.sampled_from(((), ("#",)))).map(
    lambda parts: "/".join((*parts[0], *parts[1]))
)


def covered_by_the_book(wanted: list[str], levels: list[str]) -> bool:
    """Section 4.7 by recursion over levels."""
    if wanted == ["#"]:
        return True
    if not wanted or not levels:
        return wanted == levels
    return wanted[0] in ("+", levels[0]) and covered_by_the_book(wanted[1:], levels[1:])


@given(FILTER.filter(bool), TOPIC)
def test_covering_is_what_section_4_7_says(topic_filter: str, topic: str) -> None:
    """Filters match as MQTT says, and a leading wildcard never reaches a "$" topic [MQTT-4.7.2-1]."""
    hidden = topic.startswith("$") and topic_filter[0] in "+#"
    expected = covered_by_the_book(topic_filter.split("/"), topic.split("/")) and not hidden
    assert covers(topic_filter, topic) is expected


@given(TOPIC.filter(lambda topic: not topic.startswith("$share")), FILTER.filter(bool))
def test_a_granted_filter_stays_below_the_prefix(topic: str, topic_filter: str) -> None:
    """F-02: whatever a granted filter can match lies at or below the connection's own prefix."""
    rights = TopicRights(below="a/b/")
    if may_subscribe(rights, topic_filter) and covers(topic_filter, topic):
        assert topic == "a/b" or topic.startswith("a/b/")


def test_f03_each_filter_of_a_subscribe_is_decided_on_its_own() -> None:
    """F-03: an allowed filter in front does not carry a forbidden one in, nor the other way round."""
    wanted = [Subscription(one, 2) for one in ("prov/v1/gw-1/response", "#", "$share/g/prov/v1/gw-1/response")]
    subscriptions = Subscriptions(filters_max=4)
    refused = [ReasonCode.NOT_AUTHORIZED, ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED]
    assert subscriptions.grant(NATIVE, wanted) == [1, *refused]
    assert subscriptions.qos("prov/v1/gw-1/response") == 1
    assert subscriptions.qos("prov/v1/gw-2/response") is None


def test_subscriptions_are_bounded_and_can_be_given_back() -> None:
    """A connection holds a bounded number of filters; the best granted QoS counts; UNSUBACK tells what was there."""
    subscriptions = Subscriptions(filters_max=2)
    prefix = "$EDC/provision/gw-1"
    wanted = [Subscription(f"{prefix}/#", 0), Subscription(f"{prefix}/+", 1), Subscription(f"{prefix}/x", 1)]
    assert subscriptions.grant(ESF, wanted) == [0, 1, ReasonCode.QUOTA_EXCEEDED]
    assert subscriptions.qos(f"{prefix}/a") == 1
    assert subscriptions.qos(f"{prefix}/a/b") == 0
    assert subscriptions.forget([f"{prefix}/+", f"{prefix}/x"]) == [0, ReasonCode.NO_SUBSCRIPTION_EXISTED]
    assert subscriptions.qos(f"{prefix}/a") == 0
