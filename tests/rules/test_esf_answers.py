"""What an answer becomes for a gateway: the reply to its trigger, then keys, packages, configuration (wire-esf)."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from provisioner.dialects.esf import Esf, EsfSettings
from provisioner.dialects.kura_payload import MetricType, decode
from provisioner.dialects.kura_xml import read
from provisioner.model.device_config import DATA_SERVICE_PID, TRANSPORT_PID, generated
from provisioner.model.messages import Answer, Delivery, Malformed, Outgoing, ProvisionMessage, Status
from provisioner.model.ports import Exchange
from provisioner.model.request import Package
from provisioner.model.secret import Secret
from tests.rules.esf_gateway import IDS, gateway_answers, payload
from tests.rules.nouns import NOON

BASE = "$EDC/provision/gw:1/"
ESF = Esf(EsfSettings())
# Replies.

ASKED = ProvisionMessage(message_id="boot-7", dialect="esf")
BORN = replace(ASKED, by_birth=True)


def reply(answer: Answer, asked: ProvisionMessage | Malformed = ASKED) -> tuple[str, Mapping[str, Any]]:
    (only,) = ESF.exchange("gw:1", asked, answer, ()).start(0.0)
    return only.topic, {each.name: (each.kind, each.value) for each in decode(only.payload).metrics}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.MALFORMED, 400),
        (Status.WAITING, 404),
        (Status.NOT_YET_ACTIVE, 404),
        (Status.EXPIRED, 404),
        (Status.REFUSED, 404),
        (Status.ALREADY_PROVISIONED, 404),
        (Status.BUSY, 500),
        (Status.CONFLICT, 500),
    ],
)
def test_every_refusal_has_its_code_and_its_status(status: Status, code: int) -> None:
    """EC-34: one of the codes that a gateway knows, and beside it the exact status, with the types of wire-esf."""
    topic, metrics = reply(Answer(status=status, message_id="boot-7", server_time=NOON, retry_after_s=60))
    assert topic == f"{BASE}PROV-V1/REPLY/boot-7"
    assert metrics == {
        "response.code": (MetricType.INT32, code),
        "prov.status": (MetricType.STRING, status.value),
        "prov.server.time": (MetricType.INT64, 1_772_366_400_000),
        "prov.retry.after": (MetricType.INT64, 60_000),
        "response.exception.message": (MetricType.STRING, status.value),
    }


def test_a_refusal_without_a_delay_says_none_and_a_detail_is_passed_on() -> None:
    """EC-34: the retry metric is there only when there is a delay."""
    answer = Answer(status=Status.MALFORMED, message_id="boot-7", server_time=NOON, detail="body: must be PEM")
    _, metrics = reply(answer)
    assert "prov.retry.after" not in metrics
    assert metrics["response.exception.message"] == (MetricType.STRING, "body: must be PEM")


def test_an_unreadable_id_is_answered_on_a_level_of_its_own() -> None:
    """wire-json: every bad message is answered."""
    topic, _ = reply(
        Answer(status=Status.MALFORMED, message_id=None, server_time=NOON), Malformed(detail="x", dialect="esf")
    )
    assert topic == f"{BASE}PROV-V1/REPLY/unknown"


def test_a_birth_that_is_refused_is_met_with_silence() -> None:
    """wire-esf: a stock gateway asked nothing and would not understand."""
    exchange = ESF.exchange("gw:1", BORN, Answer(status=Status.EXPIRED, message_id="x", server_time=NOON), ())
    assert list(exchange.start(0.0)) == []
    assert exchange.done


# Grants.

PASSWORD = Secret("Fg-Canary-0123456789")
URL = "mqtts://b.example:8883"
DELIVERY = Delivery(
    device_id="dev-1",
    account="acme",
    broker_url=URL,
    client_id="gw:1",
    username="dev-1-1",
    password=PASSWORD,
    configuration={
        **generated(URL, "acme", "gw:1", "dev-1-1", PASSWORD),
        "org.example.A": {"poll": {"rate": {"type": "Long", "value": 5}}, "mode": "fast"},
    },
)
PACKAGES = (
    Package(name="heater", version="1.0", url="https://h/heater.dp"),
    Package(name="pump", version="2.0", url="https://h/pump.dp"),
)


def granted(**changes: Any) -> Answer:
    delivery = replace(DELIVERY, **changes)
    return Answer(status=Status.PROVISIONED, message_id="boot-7", server_time=NOON, delivery=delivery)


def start(answer: Answer, asked: ProvisionMessage = ASKED) -> tuple[Exchange, list[Outgoing]]:
    exchange = ESF.exchange("gw:1", asked, answer, IDS[: ESF.ids_needed(answer)])
    return exchange, list(exchange.start(0.0))


def play(exchange: Exchange, outgoing: list[Outgoing]) -> list[Outgoing]:
    """Everything that is sent to a gateway which takes all of it, ``outgoing`` first."""
    sent: list[Outgoing] = []
    while outgoing:
        sent += outgoing
        answers = gateway_answers(outgoing[-1], [])
        outgoing = [message for topic, data in answers for message in exchange.receive(topic, data, 0.0)]
    return sent


def test_a_grant_by_prov_is_a_reply_and_then_the_dialogue() -> None:
    """wire-esf: the trigger is answered with 200 first, then the configuration is put."""
    _, (answered, asked) = start(granted())
    metrics = decode(answered.payload)
    assert answered.topic == f"{BASE}PROV-V1/REPLY/boot-7"
    assert (metrics.integer("response.code"), metrics.text("prov.status")) == (200, "provisioned")
    assert metrics.metric("response.exception.message") is None
    assert asked.topic == f"{BASE}CONF-V1/PUT/configurations"


def test_a_grant_by_birth_is_the_dialogue_alone() -> None:
    """wire-esf: nobody waits for a reply to a BIRTH."""
    _, outgoing = start(granted(), BORN)
    assert [each.topic for each in outgoing] == [f"{BASE}CONF-V1/PUT/configurations"]


def test_the_configuration_is_the_merged_one() -> None:
    """EC-18, EC-27, EC-29: the five parameters, auto-on-startup and every further component, typed."""
    _, outgoing = start(granted(), BORN)
    parts = {each.pid: each.plain() for each in read(decode(outgoing[0].payload).body or b"")}
    assert parts[TRANSPORT_PID] == {
        "broker-url": URL,
        "topic.context.account-name": "acme",
        "client-id": "gw:1",
        "username": "dev-1-1",
        "password": PASSWORD,
    }
    assert parts[DATA_SERVICE_PID] == {"connect.auto-on-startup": True}
    assert parts["org.example.A"] == {"poll.rate": 5, "mode": "fast"}


CERTIFIED = {"certificate": "CERT", "ca": "CA"}


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, ["CONF-V1/PUT/configurations"]),
        ({"packages": PACKAGES}, ["DEPLOY-V2/EXEC/download", "DEPLOY-V2/EXEC/download", "CONF-V1/PUT/configurations"]),
        (
            CERTIFIED,
            [
                "KEYS-V2/POST/keystores/entries/certificate",
                "KEYS-V2/POST/keystores/entries/certificate",
                "CONF-V1/PUT/configurations",
            ],
        ),
        (
            {**CERTIFIED, "private_key": Secret("KEY"), "packages": PACKAGES[:1]},
            ["KEYS-V2/POST/keystores/entries/privatekey", "DEPLOY-V2/EXEC/download", "CONF-V1/PUT/configurations"],
        ),
    ],
    ids=["configuration", "packages", "certificate", "private key and package"],
)
def test_keys_come_first_and_the_configuration_last(changes: dict[str, Any], steps: list[str]) -> None:
    """EC-35, EC-36: keys, packages, configuration, each once, and then everything is taken."""
    exchange, outgoing = start(granted(**changes), BORN)
    sent = play(exchange, outgoing)
    assert [each.topic.removeprefix(BASE) for each in sent] == steps
    assert (exchange.done, exchange.taken, exchange.failure) == (True, True, None)
    assert list(exchange.installed) == [each.name for each in changes.get("packages", ())]


def test_certificates_are_stored_under_the_names_that_the_gateway_will_use() -> None:
    """ID-08: own certificate by client id, the authority's by account; a key of ours comes with its chain."""
    exchange, outgoing = start(granted(**CERTIFIED), BORN)
    entries = [json.loads(decode(each.payload).body or b"") for each in play(exchange, outgoing)[:2]]
    assert [(each["alias"], each["certificate"]) for each in entries] == [("gw:1", "CERT"), ("acme-ca", "CA")]
    exchange, outgoing = start(granted(**CERTIFIED, private_key=Secret("KEY")), BORN)
    entry = json.loads(decode(outgoing[0].payload).body or b"")
    assert (entry["alias"], entry["privateKey"], entry["certificateChain"]) == ("gw:1", "KEY", ["CERT", "CA"])


@pytest.mark.parametrize(
    "bad", [{"x": [1, "a"]}, {"x": [{"y": 1}]}, {"x": {"type": "Tall", "value": 1}}, {"x": "\x01"}]
)
def test_a_configuration_that_a_gateway_cannot_carry_fails_after_the_reply(bad: dict[str, Any]) -> None:
    """EC-27: the device hears that it was granted, and the administrator which property stood in the way."""
    exchange, outgoing = start(granted(configuration={"org.example.A": bad}))
    assert [each.topic for each in outgoing] == [f"{BASE}PROV-V1/REPLY/boot-7"]
    assert exchange.done
    assert not exchange.taken
    assert exchange.failure is not None
    assert exchange.failure.startswith("configuration: ")
    assert "'x'" in exchange.failure


def test_a_value_that_its_stated_type_cannot_hold_is_told_from_an_unknown_type() -> None:
    """EC-27: the administrator learns component, property and rule, and is not sent to look at a right type."""
    misfit = {"poll": {"rate": {"type": "Byte", "value": 300}}}
    exchange, _ = start(granted(configuration={"org.example.A": misfit}))
    assert exchange.failure == "configuration: 'org.example.A': 'poll.rate': a int does not fit type Byte"
    unknown = {"poll": {"rate": {"type": "Tall", "value": 1}}}
    exchange, _ = start(granted(configuration={"org.example.A": unknown}))
    assert exchange.failure is not None
    assert exchange.failure.startswith("configuration: 'org.example.A': 'poll.rate': type must be one of String, Long,")


@pytest.mark.parametrize("refusal", [400, 404, 500])
def test_a_gateway_that_refuses_ends_the_delivery(refusal: int) -> None:
    """EC-34: not taken, with the step, the code and the gateway's words."""
    exchange, _ = start(granted(), BORN)
    words = payload(("response.code", refusal), ("response.exception.message", "no such component"))
    assert list(exchange.receive(f"$EDC/provision/fleetgate/CONF-V1/REPLY/{IDS[0]}", words, 1.0)) == []
    assert (exchange.done, exchange.taken) == (True, False)
    assert exchange.failure == f"CONF-V1/PUT/configurations: refused with {refusal}: no such component"


def test_the_exchange_passes_on_when_it_wants_to_be_woken_and_what_it_waits_for() -> None:
    """wire-esf: a lost request is sent again after a second, and only its own reply topic is open to the device."""
    exchange, outgoing = start(granted(), BORN)
    assert exchange.deadline() == 1.0
    assert exchange.expected_topics() == {f"$EDC/provision/fleetgate/CONF-V1/REPLY/{IDS[0]}"}
    assert list(exchange.tick(0.9)) == []
    assert list(exchange.tick(1.0)) == outgoing


def test_no_secret_of_a_grant_is_ever_shown() -> None:
    """F-39: not in the repr of what is sent, nor of what failed."""
    answer = granted(**CERTIFIED, private_key=Secret("CanaryKey"))
    exchange, outgoing = start(answer)
    failed, _ = start(granted(configuration={"p": {"password": PASSWORD, "x": [1, "a"]}}))
    shown = repr(answer) + repr(outgoing) + repr(exchange) + str(failed.failure)
    assert "Canary" not in shown
