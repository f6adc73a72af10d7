"""The platform's dialogue with a gateway (EC-27, EC-34, EC-35): order, re-sending, replies, packages, failure."""

import json
import random
from typing import Any

import pytest

from provisioner.dialects.esf_requests import (
    BACK_OFF_S,
    MESSAGE_CHARACTERS_MAX,
    Dialogue,
    DialogueState,
    Step,
    certificate_step,
    configuration_step,
    download_id,
    package_step,
    private_key_step,
)
from provisioner.dialects.kura_payload import KuraPayload, MetricType, MetricValue, decode, encode, metric
from provisioner.dialects.kura_xml import Component, read
from provisioner.model.errors import IllegalMove
from provisioner.model.messages import Outgoing
from provisioner.model.ports import Exchange
from provisioner.model.request import Package
from provisioner.model.secret import Secret

IDS = tuple(f"{number:032x}" for number in range(0xA0, 0xA8))
KEYS = certificate_step("broker-ca", "PEM")
HEATER = package_step(Package(name="heater", version="1.0.0", url="https://h/heater.dp", sha256="AB" * 32))
PUMP = package_step(Package(name="pump", version="2.0.0", url="http://h/pump.dp"))
CONFIGURATION = configuration_step([Component("org.example.A", {"x": 1})])

DEPLOY = "$EDC/provision/gw:1/DEPLOY-V2/EXEC/download"
CONF = "$EDC/provision/gw:1/CONF-V1/PUT/configurations"
INSTALL = "$EDC/provision/fleetgate/DEPLOY-V2/NOTIFY/gw:1/install"
DOWNLOAD = "$EDC/provision/fleetgate/DEPLOY-V2/NOTIFY/gw:1/download"


def dialogue(*steps: Step, **settings: Any) -> Dialogue:
    names = {"requester": "fleetgate", "control_prefix": "$EDC", "account": "provision", "client_id": "gw:1"}
    return Dialogue(steps, **{**names, "request_ids": IDS, **settings})


def payload(*metrics: tuple[str, MetricValue], body: bytes | None = None) -> bytes:
    return encode(KuraPayload(metrics=tuple(metric(*each) for each in metrics), body=body))


def reply_topic(app: str, number: int) -> str:
    return f"$EDC/provision/fleetgate/{app}/REPLY/{IDS[number]}"


OK = payload(("response.code", 200))
BUSY = payload(("response.code", 500), ("dp.download.status", "IN_PROGRESS"), body=b"Another resource is in download")


def notify(number: int, kind: str, status: str, **more: str) -> bytes:
    """What a gateway says of the download that request `number` started."""
    metrics = [metric("job.id", download_id(IDS[number]), MetricType.INT64), metric(f"dp.{kind}.status", status)]
    metrics += [metric(name.replace("_", "."), text) for name, text in more.items()]
    return encode(KuraPayload(metrics=tuple(metrics)))


def topics(outgoing: list[Outgoing]) -> list[str]:
    return [each.topic for each in outgoing]


def asked(outgoing: list[Outgoing]) -> KuraPayload:
    (only,) = outgoing
    return decode(only.payload)


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
    assert not flow.done and flow.installed == ("pump", "heater")
    assert flow.receive(reply_topic("CONF-V1", 3), OK, 6) == []
    assert flow.done and flow.failure is None and flow.deadline() is None


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
    assert flow.state is DialogueState.FAILED and flow.done and flow.deadline() is None
    code = decode(reply).integer("response.code")
    assert flow.failure == f"KEYS-V2/POST/keystores/entries/certificate: refused with {code}: {words}"


# Packages.


def installing(*steps: Step, limit_s: float = 300) -> Dialogue:
    """A dialogue whose first package was taken by the gateway at 10 s."""
    flow = dialogue(*steps, install_limit_s=limit_s)
    flow.start(10)
    flow.receive(reply_topic("DEPLOY-V2", 0), OK, 10)
    return flow


def test_a_package_is_done_when_its_installation_is_reported_not_when_it_is_accepted() -> None:
    """200, progress and a finished download are not enough (EC-35)."""
    flow = installing(HEATER, CONFIGURATION)
    for kind, status in (("download", "IN_PROGRESS"), ("download", "COMPLETED"), ("install", "IN_PROGRESS")):
        topic = INSTALL if kind == "install" else DOWNLOAD
        assert flow.receive(topic, notify(0, kind, status), 20) == []
        assert flow.installed == () and flow.deadline() == 310
    assert topics(flow.receive(INSTALL, notify(0, "install", "COMPLETED"), 30)) == [CONF]
    assert flow.installed == ("heater",)


def test_a_package_that_was_there_already_counts_as_installed() -> None:
    """Kura's other word for success."""
    flow = installing(HEATER)
    flow.receive(INSTALL, notify(0, "install", "ALREADY DONE"), 20)
    assert flow.state is DialogueState.DONE


@pytest.mark.parametrize(
    ("topic", "data", "reason"),
    [
        (INSTALL, notify(0, "install", "FAILED", dp_install_error_message="no space"), "install FAILED: no space"),
        (DOWNLOAD, notify(0, "download", "FAILED", dp_download_error_message="404"), "download FAILED: 404"),
        (DOWNLOAD, notify(0, "download", "CANCELLED"), "download CANCELLED: no reason given"),
    ],
)
def test_a_package_that_fails_ends_the_dialogue(topic: str, data: bytes, reason: str) -> None:
    """With the words of the gateway; the configuration, which would make it leave, is not sent."""
    flow = installing(HEATER, CONFIGURATION)
    assert flow.receive(topic, data, 20) == []
    assert flow.failure == f"DEPLOY-V2/EXEC/download: {reason}"


def test_a_package_that_takes_too_long_ends_the_dialogue() -> None:
    """The limit counts from the moment the gateway took it; progress does not extend it."""
    flow = installing(HEATER, limit_s=60)
    flow.receive(DOWNLOAD, notify(0, "download", "IN_PROGRESS"), 69)
    assert flow.deadline() == 70
    assert flow.tick(69.9) == [] and flow.state is DialogueState.RUNNING
    assert flow.tick(70) == []
    assert flow.failure == "DEPLOY-V2/EXEC/download: not installed within 60 s"


@pytest.mark.parametrize(
    "data",
    [
        notify(1, "install", "COMPLETED"),
        payload(("dp.install.status", "COMPLETED")),
        payload(("job.id", "1"), ("dp.install.status", "FAILED")),
        notify(0, "uninstall", "COMPLETED"),
        b"\xff",
    ],
)
def test_a_notice_of_another_download_moves_nothing(data: bytes) -> None:
    """Only the number that was sent with the request counts, so an older exchange cannot end this one."""
    flow = installing(HEATER)
    assert flow.receive(INSTALL, data, 20) == []
    assert flow.state is DialogueState.RUNNING and flow.installed == ()


def test_progress_stands_in_for_a_lost_reply() -> None:
    """A notice shows that the request arrived: it is not sent again, and the limit runs."""
    flow = dialogue(HEATER, install_limit_s=60)
    flow.start(0)
    flow.receive(DOWNLOAD, notify(0, "download", "IN_PROGRESS"), 0.5)
    assert flow.tick(5) == [] and flow.deadline() == 60.5
    assert flow.receive(reply_topic("DEPLOY-V2", 0), OK, 6) == []
    flow.receive(INSTALL, notify(0, "install", "COMPLETED"), 7)
    assert flow.state is DialogueState.DONE


def test_a_finished_installation_stands_in_for_everything_lost_before() -> None:
    """Reply and progress may all be lost; the last notice alone ends the step."""
    flow = dialogue(HEATER)
    flow.start(0)
    flow.receive(INSTALL, notify(0, "install", "COMPLETED"), 0.5)
    assert flow.state is DialogueState.DONE and flow.installed == ("heater",)


def test_busy_with_a_copy_of_this_request_means_under_way() -> None:
    """The reply to the first copy was lost; the second one meets its own download."""
    flow = dialogue(HEATER, install_limit_s=60)
    flow.start(0)
    flow.tick(1)
    assert flow.receive(reply_topic("DEPLOY-V2", 0), BUSY, 1.1) == []
    assert flow.deadline() == 61.1


def test_busy_with_another_download_is_asked_again() -> None:
    """The only copy was answered busy, so it was not taken: it goes out again on the back-off and may then succeed."""
    flow = dialogue(HEATER)
    flow.start(0)
    assert flow.receive(reply_topic("DEPLOY-V2", 0), BUSY, 0.1) == []
    assert topics(flow.tick(1)) == [DEPLOY]
    flow.receive(reply_topic("DEPLOY-V2", 0), OK, 1.1)
    flow.receive(INSTALL, notify(0, "install", "COMPLETED"), 2)
    assert flow.state is DialogueState.DONE


def test_a_gateway_that_stays_busy_is_given_up() -> None:
    """Busy answers do not go on for ever."""
    flow = dialogue(HEATER)
    flow.start(0)
    while (due := flow.deadline()) is not None:
        flow.receive(reply_topic("DEPLOY-V2", 0), BUSY, due - 0.5)
        flow.tick(due)
    assert flow.failure == "DEPLOY-V2/EXEC/download: no answer to 5 requests"


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


@pytest.mark.parametrize("seed", range(60))
def test_a_lossy_gateway_is_either_served_in_order_or_given_up(seed: int) -> None:
    """With any loss of requests, replies and notices the dialogue ends in time, never skips a step, never repeats one
    that the gateway confirmed, and is done only when the gateway took everything."""
    chance = random.Random(seed)
    loss = chance.choice([0.0, 0.3, 0.6, 0.95])
    flow = dialogue(KEYS, HEATER, PUMP, CONFIGURATION, install_limit_s=30)
    taken: list[str] = []
    now_s, out = 0.0, flow.start(0)
    while not flow.done:
        arriving = [each for each in out if chance.random() >= loss]
        out = []
        for request in arriving:
            for topic, data in gateway_answers(request, taken):
                if chance.random() >= loss:
                    assert topic in flow.expected_topics()
                    out += flow.receive(topic, data, now_s)
        if not out and (due := flow.deadline()) is not None:
            now_s = due
            out = flow.tick(now_s)
        assert now_s < 200
    in_order = list(dict.fromkeys(taken))
    assert in_order == ["KEYS-V2", "heater", "pump", "CONF-V1"][: len(in_order)]
    assert (flow.state is DialogueState.DONE) == (flow.failure is None)
    if flow.state is DialogueState.DONE:
        assert len(in_order) == 4 and flow.installed == ("heater", "pump")
    if loss == 0.0:
        assert flow.state is DialogueState.DONE and taken == in_order


def gateway_answers(request: Outgoing, taken: list[str]) -> list[tuple[str, bytes]]:
    """A gateway that takes whatever arrives: reply, and for a package the notices of download and installation."""
    message = decode(request.payload)
    app = request.topic.split("/")[3]
    taken.append(message.text("dp.name") or app)
    answers = [(f"$EDC/provision/fleetgate/{app}/REPLY/{message.text('request.id')}", OK)]
    number = message.integer("job.id")
    if number is not None:
        mark = metric("job.id", number, MetricType.INT64)
        for topic, kind in ((DOWNLOAD, "download"), (INSTALL, "install")):
            status = metric(f"dp.{kind}.status", "COMPLETED")
            answers.append((topic, encode(KuraPayload(metrics=(mark, status)))))
    return answers
