"""The platform's dialogue with a gateway (EC-27, EC-34, EC-35): requests, order, re-sending, replies, refusals."""

import json
from typing import Any

import pytest

from provisioner.dialects.esf_requests import (
    BACK_OFF_S,
    MESSAGE_CHARACTERS_MAX,
    DialogueState,
    download_id,
    package_step,
    private_key_step,
)
from provisioner.dialects.kura_payload import decode
from provisioner.dialects.kura_xml import Component, read
from provisioner.model.errors import IllegalMove
from provisioner.model.ports import Exchange
from provisioner.model.request import Package
from provisioner.model.secret import Secret
from tests.rules.esf_gateway import (
    CONF,
    CONFIGURATION,
    DEPLOY,
    DOWNLOAD,
    HEATER,
    IDS,
    INSTALL,
    KEYS,
    OK,
    PUMP,
    asked,
    dialogue,
    notify,
    payload,
    reply_topic,
    topics,
)

# Requests.


def test_a_configuration_request_is_what_a_gateway_expects() -> None:
    """PUT on CONF-V1 with both mandatory metrics and the XML as body."""
    out = dialogue(CONFIGURATION).start(0)
    assert topics(out) == [CONF]
    assert asked(out).text("request.id") == IDS[0]
    assert asked(out).text("requester.client.id") == "fleetgate"
    assert read(asked(out).body or b"") == [Component("org.example.A", {"x": 1})]


def test_a_package_request_is_what_a_gateway_expects() -> None:
    """EXEC/download with the metrics that Kura refuses to do without, in the types that it casts to (EC-35)."""
    out = dialogue(HEATER).start(0)
    assert topics(out) == [DEPLOY]
    assert {(each.name, each.kind.name, each.value) for each in asked(out).metrics} == {
        ("request.id", "STRING", IDS[0]),
        ("requester.client.id", "STRING", "fleetgate"),
        ("dp.uri", "STRING", "https://h/heater.dp"),
        ("dp.name", "STRING", "heater"),
        ("dp.version", "STRING", "1.0.0"),
        ("dp.download.protocol", "STRING", "HTTPS"),
        ("dp.install", "BOOL", True),
        ("dp.install.system.update", "BOOL", False),
        ("dp.download.hash", "STRING", "SHA-256:" + "ab" * 32),
        ("job.id", "INT64", download_id(IDS[0])),
    }
    assert 0 <= download_id(IDS[0]) < 2**63


def test_a_package_without_a_digest_is_asked_for_without_one() -> None:
    """The hash metric is there only when there is a hash."""
    assert asked(dialogue(PUMP).start(0)).metric("dp.download.hash") is None


@pytest.mark.parametrize("url", ["ftp://h/x.dp", "heater.dp", ""])
def test_a_package_needs_an_http_address(url: str) -> None:
    """Refused when the step is built, not by the gateway."""
    with pytest.raises(ValueError, match="http"):
        package_step(Package(name="n", version="1", url=url))


def test_key_store_requests_are_what_a_gateway_expects() -> None:
    """POST on KEYS-V2 with a JSON body, for a trusted certificate and for a key with its chain."""
    flow = dialogue(KEYS, private_key_step("device", Secret("KEY"), ["LEAF", "CA"], keystore_pid="Own"))
    first = flow.start(0)
    second = flow.receive(reply_topic("KEYS-V2", 0), OK, 0)
    assert topics(first + second) == [
        "$EDC/provision/gw:1/KEYS-V2/POST/keystores/entries/certificate",
        "$EDC/provision/gw:1/KEYS-V2/POST/keystores/entries/privatekey",
    ]
    assert json.loads(asked(first).body or b"") == {
        "keystoreServicePid": "SSLKeystore", "alias": "broker-ca", "certificate": "PEM",
    }  # fmt: skip
    assert json.loads(asked(second).body or b"") == {
        "keystoreServicePid": "Own", "alias": "device", "privateKey": "KEY", "certificateChain": ["LEAF", "CA"],
    }  # fmt: skip


def test_no_repr_shows_a_key() -> None:
    """Neither a step nor an outgoing message shows what it carries."""
    step = private_key_step("device", Secret("geheim"), ["LEAF"])
    assert "geheim" not in f"{step!r} {step} {dialogue(step, compress=False).start(0)!r}"


def test_a_key_without_its_chain_is_refused() -> None:
    """A gateway answers 400 to it."""
    with pytest.raises(ValueError, match="chain"):
        private_key_step("device", Secret("KEY"), [])


# The walk.


def test_steps_run_keys_then_packages_then_configuration() -> None:
    """Whatever order they are given in, the configuration goes last, and each waits for the one before (EC-34)."""
    flow: Exchange = dialogue(CONFIGURATION, PUMP, KEYS, HEATER)
    assert topics(list(flow.start(0))) == ["$EDC/provision/gw:1/KEYS-V2/POST/keystores/entries/certificate"]
    assert asked(list(flow.receive(reply_topic("KEYS-V2", 0), OK, 1))).text("dp.name") == "pump"
    assert flow.receive(reply_topic("DEPLOY-V2", 1), OK, 2) == []
    assert asked(list(flow.receive(INSTALL, notify(1, "install", "COMPLETED"), 3))).text("dp.name") == "heater"
    assert flow.receive(reply_topic("DEPLOY-V2", 2), OK, 4) == []
    assert topics(list(flow.receive(INSTALL, notify(2, "install", "COMPLETED"), 5))) == [CONF]
    assert not flow.done and not flow.taken and flow.installed == ("pump", "heater")
    assert flow.receive(reply_topic("CONF-V1", 3), OK, 6) == []
    assert flow.done and flow.taken and flow.failure is None and flow.deadline() is None


def test_a_dialogue_with_nothing_to_ask_is_done() -> None:
    """No step, no message."""
    flow = dialogue(request_ids=())
    assert not flow.done
    assert flow.start(0) == []
    assert flow.state is DialogueState.DONE and flow.expected_topics() == frozenset()


@pytest.mark.parametrize("when", ["running", "done", "failed"])
def test_a_dialogue_starts_once(when: str) -> None:
    """A second start raises and changes nothing, whatever has happened since."""
    flow = dialogue(CONFIGURATION)
    flow.start(0)
    if when != "running":
        flow.receive(reply_topic("CONF-V1", 0), OK if when == "done" else payload(("response.code", 400)), 0)
    before = (flow.state, flow.deadline(), flow.expected_topics(), flow.failure)
    assert before[0] == when
    with pytest.raises(IllegalMove):
        flow.start(1)
    assert (flow.state, flow.deadline(), flow.expected_topics(), flow.failure) == before


# Re-sending.


def test_an_unanswered_request_is_sent_again_at_1_3_7_15_s_and_given_up_at_23_s() -> None:
    """Five copies, byte for byte the same, then failure: the first may have come before the gateway subscribed."""
    flow = dialogue(CONFIGURATION)
    sent = {0.0: flow.start(0)}
    while (due := flow.deadline()) is not None:
        assert flow.tick(due - 0.001) == []
        sent[due] = flow.tick(due)
    assert list(sent) == [0, 1, 3, 7, 15, 23]
    assert [len(out) for out in sent.values()] == [1, 1, 1, 1, 1, 0]
    assert len({out[0].payload for out in sent.values() if out}) == 1
    assert flow.state is DialogueState.FAILED
    assert flow.failure == "CONF-V1/PUT/configurations: no answer to 5 requests"
    assert flow.tick(1000) == []


def test_a_late_clock_sends_one_copy_not_a_burst() -> None:
    """After a stall of a minute one copy goes out and the back-off counts from then."""
    flow = dialogue(CONFIGURATION)
    flow.start(0)
    assert len(flow.tick(60)) == 1
    assert flow.deadline() == 60 + BACK_OFF_S[1]


def test_the_back_off_begins_anew_with_each_step() -> None:
    """A slow first step does not cost the second one its copies."""
    flow = dialogue(KEYS, CONFIGURATION)
    flow.start(0)
    flow.tick(1)
    flow.tick(3)
    assert topics(flow.receive(reply_topic("KEYS-V2", 0), OK, 4)) == [CONF]
    assert flow.deadline() == 4 + BACK_OFF_S[0]


def test_every_copy_may_be_answered_once_also_after_the_end() -> None:
    """A gateway that received three copies answers three times; none of them is a foreign publish."""
    flow = dialogue(CONFIGURATION)
    topic = reply_topic("CONF-V1", 0)
    flow.start(0)
    flow.tick(1)
    flow.tick(3)
    for _ in range(3):
        assert flow.expected_topics() == {topic}
        assert flow.receive(topic, OK, 4) == []
        assert flow.state is DialogueState.DONE
    assert flow.expected_topics() == frozenset()


def test_a_late_refusal_of_a_copy_changes_nothing() -> None:
    """The first answer counts."""
    flow = dialogue(KEYS, CONFIGURATION)
    flow.start(0)
    flow.tick(1)
    flow.receive(reply_topic("KEYS-V2", 0), OK, 2)
    assert flow.receive(reply_topic("KEYS-V2", 0), payload(("response.code", 500)), 2) == []
    assert flow.state is DialogueState.RUNNING


# Expected topics.


def test_expected_topics_are_exact_and_follow_the_steps() -> None:
    """Nothing before the start; the reply of what was sent; NOTIFY from the first package on; no wildcard."""
    flow = dialogue(KEYS, HEATER, CONFIGURATION)
    assert flow.expected_topics() == frozenset()
    flow.start(0)
    assert flow.expected_topics() == {reply_topic("KEYS-V2", 0)}
    flow.receive(reply_topic("KEYS-V2", 0), OK, 0)
    assert flow.expected_topics() == {reply_topic("DEPLOY-V2", 1), INSTALL, DOWNLOAD}
    flow.receive(reply_topic("DEPLOY-V2", 1), OK, 0)
    assert flow.expected_topics() == {INSTALL, DOWNLOAD}
    flow.receive(INSTALL, notify(1, "install", "COMPLETED"), 0)
    assert flow.expected_topics() == {reply_topic("CONF-V1", 2), INSTALL, DOWNLOAD}
    flow.receive(reply_topic("CONF-V1", 2), OK, 0)
    assert flow.expected_topics() == frozenset()


@pytest.mark.parametrize(
    "topic",
    [
        reply_topic("CONF-V1", 1),
        reply_topic("DEPLOY-V2", 0),
        f"$EDC/provision/other/CONF-V1/REPLY/{IDS[0]}",
        f"$EDC/other/fleetgate/CONF-V1/REPLY/{IDS[0]}",
        reply_topic("CONF-V1", 0) + "/x",
        "$EDC/provision/gw:1/MQTT/BIRTH",
        INSTALL,
    ],
)
def test_a_message_on_any_other_topic_is_ignored(topic: str) -> None:
    """Only the exact reply topic of an outstanding request moves the dialogue."""
    flow = dialogue(CONFIGURATION)
    flow.start(0)
    assert flow.receive(topic, OK, 0) == []
    assert flow.state is DialogueState.RUNNING and flow.deadline() == 1


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\x1f\x8b\x08", payload(("response.code", "200")), payload(("response.code", True))]
)
def test_an_unreadable_reply_counts_as_not_received(data: bytes) -> None:
    """The request is sent again and a proper reply still ends it (F-38)."""
    flow = dialogue(CONFIGURATION)
    flow.start(0)
    assert flow.receive(reply_topic("CONF-V1", 0), data, 0) == []
    assert len(flow.tick(1)) == 1
    flow.receive(reply_topic("CONF-V1", 0), OK, 1)
    assert flow.state is DialogueState.DONE


# Refusals.


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (payload(("response.code", 400), ("response.exception.message", "bad XML")), "bad XML"),
        (payload(("response.code", 500), body=b"Malformed download request"), "Malformed download request"),
        (payload(("response.code", 404)), "no reason given"),
        (payload(("response.code", 500), body=b"\xff\n\x1b[2J"), "\ufffd  [2J"),
        (payload(("response.code", 500), ("response.exception.message", "x" * 5000)), "x" * MESSAGE_CHARACTERS_MAX),
    ],
)
def test_a_refusal_ends_the_dialogue_with_the_words_of_the_gateway(reply: bytes, words: str) -> None:
    """On one line and cut, from the metric or from the body; no further step is sent."""
    flow = dialogue(KEYS, CONFIGURATION)
    flow.start(0)
    assert flow.receive(reply_topic("KEYS-V2", 0), reply, 0) == []
    assert flow.state is DialogueState.FAILED and flow.done and not flow.taken and flow.deadline() is None
    code = decode(reply).integer("response.code")
    assert flow.failure == f"KEYS-V2/POST/keystores/entries/certificate: refused with {code}: {words}"


# Construction.


@pytest.mark.parametrize(
    "settings",
    [
        {"request_ids": ()},
        {"request_ids": (IDS[0],) * 2},
        {"request_ids": ("short",)},
        {"request_ids": ("a" * 21,)},
        {"request_ids": (IDS[0] + "/x",)},
        {"client_id": "a/b"},
        {"client_id": "+"},
        {"client_id": ""},
        {"account": "#"},
        {"requester": "a\0b"},
        {"control_prefix": ""},
    ],
)
def test_names_that_would_break_a_topic_are_refused(settings: dict[str, Any]) -> None:
    """A topic level holds no separator and no wildcard; request ids are distinct and of 128 bits."""
    with pytest.raises(ValueError, match=r"topic level|request id"):
        dialogue(CONFIGURATION, **settings)
