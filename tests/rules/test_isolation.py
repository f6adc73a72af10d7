"""The rules of isolation: what tries them, and whose message breaks which."""

import pytest

from broker.access import covers
from provisioner.link.probe import Login
from provisioner.model.secret import Secret
from provisioner.services.isolation import (
    HOLDER,
    READING,
    RULES,
    SPY,
    Party,
    Report,
    Verdict,
    filters_of,
    is_throw_away,
    leaked_rule,
    stamp,
    verdict_of,
)

RUN = "RUN0000000000000"
AT_BROKER = Party(
    client_id="gw12",
    login=Login("user", Secret("x")),
    speaks=("acme/gw12/data", "$EDC/acme/gw12/data"),
    hears=("acme/gw12/#", "$EDC/acme/gw12/#"),
    topics=("acme/gw12/data", "acme/gw12", "$EDC/acme/gw12/data"),
)
NEIGHBOURS = {
    *("acme/#", "acme/+/#", "acme/+/data", "acme/+", "+/gw12/#"),
    *("$EDC/#", "$EDC/acme/#", "$EDC/acme/+/#", "$EDC/acme/+/data", "$EDC/+/gw12/#"),
}


def test_every_kind_of_foreign_filter_is_tried() -> None:
    """Literal topics, own subtrees, wildcards over each level, everything, the broker's state, shared ones."""
    tried = {rule: set(filters_of(rule, AT_BROKER)) for rule in (*READING, "read-retained")}
    assert tried["read-other"] == {*AT_BROKER.topics, "acme/gw12/#", "$EDC/acme/gw12/#"}
    assert tried["read-neighbours"] == NEIGHBOURS
    assert tried["read-all"] == {"#", "+/#", "+/+/#"}
    assert tried["read-broker-state"] == {"$SYS/#"}
    assert "$share/fleetgate/acme/gw12/#" in tried["shared-subscription"]
    assert tried["read-retained"] > tried["read-other"]


def test_each_tried_filter_could_bring_something() -> None:
    """A filter that covers none of the other device's topics would prove nothing."""
    for rule in ("read-other", "read-neighbours", "read-all"):
        for each in filters_of(rule, AT_BROKER):
            assert any(covers(each, topic) for topic in AT_BROKER.topics), each


@pytest.mark.parametrize(
    ("listener", "payload", "trying", "broken"),
    [
        (SPY, stamp(RUN, SPY, "write-other", 1), "read-all", None),
        (SPY, stamp(RUN, HOLDER, "read-all", 1), "read-all", "read-all"),
        (SPY, stamp(RUN, HOLDER, "read-retained", 1), "write-other", "read-retained"),
        (SPY, stamp(RUN, HOLDER, "marker", 1), "shared-subscription", "shared-subscription"),
        (SPY, stamp(RUN, HOLDER, "marker", 1), "write-other", "read-other"),
        (SPY, b"mosquitto version 2.0.11", "read-broker-state", "read-broker-state"),
        (SPY, b"\xff\xfe", "will", "read-other"),
        (SPY, b"", "read-all", None),
        (HOLDER, stamp(RUN, SPY, "will", 9), "takeover-other-user", "will"),
        (HOLDER, stamp("RUN0000000000001", HOLDER, "read-all", 1), "own-topics", "read-other"),
    ],
)
def test_a_heard_message_breaks_the_rule_that_it_was_published_for(
    listener: str, payload: bytes, trying: str, broken: str | None
) -> None:
    """However late it comes; what is of somebody else entirely breaks the reading rule that is being tried."""
    assert leaked_rule(RUN, listener, payload, trying) == broken


def test_a_report_says_what_leaked_or_why_it_is_not_known() -> None:
    """A rule that could not be tried is neither held nor broken, and one leak makes the whole leak."""
    held, leak = verdict_of(RULES[1], None, None), verdict_of(RULES[3], "", None)
    unknown = verdict_of(RULES[0], None, "the broker is away")
    assert (held.held, leak.held, unknown.held) == (True, False, None)
    assert RULES[3].advice in leak.detail
    assert Report(target="t", took_s=0.1, verdicts=[held]).summary == "holds"
    report = Report(target="t", took_s=0.1, verdicts=[held, leak, unknown])
    assert (report.summary, report.holds) == ("leaks: read-other", False)
    away = Report(target="t", took_s=0.1, verdicts=[Verdict("own-topics", None, "not tried: away")])
    assert (away.summary, away.holds, away.leaks) == ("not tried: away", False, [])


def test_only_the_whole_name_is_a_selftests() -> None:
    """What begins like one, or is followed by more, may be an account of somebody."""
    assert is_throw_away("fleetgate-selftest-0123456789ABCDEF")
    for name in ("fleetgate-selftest-", "fleetgate-selftest-0123456789abcdef", "fleetgate-selftest-0123456789ABCDEF0"):
        assert not is_throw_away(name)
