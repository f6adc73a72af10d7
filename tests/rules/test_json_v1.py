"""The native dialect: wire-json as golden bytes in both directions, and every malformed field by its name."""

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.dialects.json_v1 import JsonV1, encode, rfc3339
from provisioner.model.device_config import generated
from provisioner.model.messages import Acknowledgement, Answer, Delivery, Incoming, Malformed, ProvisionMessage, Status
from provisioner.model.request import Package
from provisioner.model.secret import Secret
from tests.rules.nouns import NOON

REQUEST, RESPONSE, ACK = (f"prov/v1/gw1/{what}" for what in ("request", "response", "ack"))
DIALECT = JsonV1()


def decoded(body: Any, topic: str = REQUEST) -> Incoming | None:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return DIALECT.decode("gw1", topic, payload, "fresh")


def malformed(body: Any, topic: str = REQUEST) -> Malformed:
    incoming = decoded(body, topic)
    assert isinstance(incoming, Malformed)
    return incoming


# Topics.


def test_a_device_may_use_its_own_three_topics_and_no_other() -> None:
    """EC-04: two topics to publish to, one filter to subscribe to, no wildcard, no Will."""
    rights = DIALECT.rights("gw1")
    assert rights.publish == {REQUEST, ACK}
    assert rights.subscribe == {RESPONSE}
    assert rights.below is None
    assert rights.wills == frozenset()


@pytest.mark.parametrize(
    "topic", ["prov/v1/gw2/request", "prov/v2/gw1/request", "$EDC/provision/gw1/MQTT/BIRTH", "", "x"]
)
def test_other_topics_are_not_of_this_dialect(topic: str) -> None:
    """Another client id's topic, another version and another dialect are left to others."""
    assert decoded({"request_id": "m1"}, topic) is None


# Device to gate.


def test_the_golden_provision_message() -> None:
    """wire-json: every field of the message, from its bytes."""
    payload = (
        b'{"request_id":"boot-7","activation_key":"7K2M9Q","csr":"-----BEGIN CERTIFICATE REQUEST-----",'
        b'"device":{"serial_number":"S1","floor":3,"load":0.5,"spare":null,"indoor":true}}'
    )
    assert decoded(payload) == ProvisionMessage(
        message_id="boot-7",
        dialect="json_v1",
        activation_key=Secret("7K2M9Q"),
        csr="-----BEGIN CERTIFICATE REQUEST-----",
        device={"serial_number": "S1", "floor": 3, "load": 0.5, "spare": None, "indoor": True},
    )


@pytest.mark.parametrize(
    "body",
    [
        {"request_id": "m1"},
        {"request_id": "m1", "activation_key": None, "csr": None, "device": None},
        {"request_id": "m1", "device": {}, "what_a_later_version_says": [1]},
    ],
)
def test_the_shortest_message_is_an_id(body: Any) -> None:
    """Null is absent, and a field that is not known is no error."""
    assert decoded(body) == ProvisionMessage(message_id="m1", dialect="json_v1")


@pytest.mark.parametrize(
    ("body", "ack"),
    [
        ({"request_id": "m1", "result": "applied"}, Acknowledgement(message_id="m1", applied=True)),
        (
            {"request_id": "m1", "result": "failed", "detail": "disk full"},
            Acknowledgement(message_id="m1", applied=False, detail="disk full"),
        ),
        (
            {"request_id": "m1", "result": "failed", "detail": "x" * 1000},
            Acknowledgement(message_id="m1", applied=False, detail="x" * 256),
        ),
    ],
)
def test_an_acknowledgement_says_how_it_went(body: Any, ack: Acknowledgement) -> None:
    """EC-36: applied or failed; a long explanation is cut."""
    assert decoded(body, ACK) == ack


BAD_FIELDS: dict[str, list[Any]] = {
    "request_id": [None, "", "x" * 65, 7, ["m1"], "a\nb", "a\x00", "\u200b"],
    "activation_key": ["", "x" * 257, 7, {}, False],
    "csr": ["", "x" * 16_385, ["PEM"], 0],
    "device": [
        *("text", [], 7, False),
        *({"a": []}, {"a": {}}, {"a": "x" * 1025}, {"x" * 1025: 1}),
        {str(number): number for number in range(65)},
    ],
}


@pytest.mark.parametrize(("field", "bad"), [(field, bad) for field, values in BAD_FIELDS.items() for bad in values])
def test_a_malformed_field_is_named(field: str, bad: Any) -> None:
    """EC-34: the detail begins with the field; the id is said back whenever it can be read."""
    answer = malformed({"request_id": "m1", field: bad})
    assert answer.detail.startswith(f"{field}: must ")
    assert answer.message_id == (None if field == "request_id" else "m1")
    assert answer.dialect == "json_v1"


@pytest.mark.parametrize(
    ("field", "bad"),
    [("request_id", ""), ("result", None), ("result", "done"), ("result", ["applied"]), ("detail", 7), ("detail", "")],
)
def test_a_malformed_field_of_an_acknowledgement_is_named(field: str, bad: Any) -> None:
    """EC-34: the same holds on the ack topic."""
    answer = malformed({"request_id": "m1", "result": "applied", field: bad}, ACK)
    assert answer.detail.startswith(f"{field}: must ")


@pytest.mark.parametrize(
    ("payload", "rule"),
    [
        (b"", "must be JSON"),
        (b"not json", "must be JSON"),
        (b"[]", "JSON object"),
        (b'"text"', "JSON object"),
        (b"null", "JSON object"),
        (b'{"request_id": "m1", "request_id": "m2"}', "repeat a key"),
        (b'{"request_id": "m1", "device": {"x": NaN}}', "NaN"),
        (b'{"request_id": "m1", "device": {"x": 1e400}}', "double"),
        (b'{"request_id": "m1", "device": {"x": 9223372036854775808}}', "64 bits"),
        (b'{"request_id": "m1", "device": {"x": "\\ud800"}}', "half a character"),
        (b'{"request_id": "m1", "x": ' + b"[" * 10_000, "32 levels"),
        (b'{"request_id": "m1"}' + b" " * 65_536, "65536 bytes"),
        (b'{"request_id": "\xff"}', "UTF-8"),
        (b"\x1f\x8b\x08\x00", "UTF-8"),
    ],
)
@pytest.mark.parametrize("topic", [REQUEST, ACK])
def test_a_payload_that_is_no_object_is_malformed_as_a_whole(payload: bytes, rule: str, topic: str) -> None:
    """F-37: the detail names the payload and the rule; nothing is met with silence."""
    bad = malformed(payload, topic)
    assert bad.detail.startswith("payload: ")
    assert rule in bad.detail


@pytest.mark.parametrize(
    "body",
    [
        {"request_id": "m1", "activation_key": "Canary-7f3a" * 50},
        {"request_id": "m1", "activation_key": ["Canary-7f3a"]},
        {"request_id": "Canary-7f3a\n", "activation_key": "Canary-7f3a"},
        b'{"activation_key": "Canary-7f3a", "activation_key": ""}',
    ],
)
def test_no_malformed_message_is_quoted(body: Any) -> None:
    """F-39: neither the detail nor any repr shows what was sent."""
    assert "Canary" not in repr(malformed(body))


def test_a_message_does_not_show_its_key() -> None:
    """F-39: also not one that can be read."""
    assert "Canary" not in repr(decoded({"request_id": "m1", "activation_key": "Canary-7f3a"}))


@given(st.binary(max_size=80))
def test_any_bytes_are_answered(payload: bytes) -> None:
    """F-38: whatever is published to the request topic is a message or malformed, never nothing."""
    assert isinstance(decoded(payload), ProvisionMessage | Malformed)


# Gate to device.

PASSWORD = Secret("Fg-0123456789ABCDEFGHJKMNPQR")
LEAST = Delivery(
    device_id="dev-1",
    account="acme",
    broker_url="mqtts://b.example:8883",
    client_id="gw1",
    username="dev-1-1",
    password=PASSWORD,
)
PROVISIONED = Answer(status=Status.PROVISIONED, message_id="boot-7", server_time=NOON, delivery=LEAST)


def test_the_golden_answer_of_a_provisioned_device() -> None:
    """wire-json, EC-34, EC-35: the whole answer as bytes, parts that the account does not use left out."""
    delivery = replace(
        LEAST,
        configuration={"org.example.Größe": {"x": [1, None], "password": PASSWORD}},
        packages=(Package(name="heater", version="1.0", url="https://h/heater.dp", sha256="0a" * 32),),
    )
    assert encode(replace(PROVISIONED, delivery=delivery)) == (
        b'{"request_id":"boot-7","status":"provisioned","server_time":"2026-03-01T12:00:00.000Z",'
        b'"device_id":"dev-1","account":"acme","broker_url":"mqtts://b.example:8883","client_id":"gw1",'
        b'"username":"dev-1-1","password":"Fg-0123456789ABCDEFGHJKMNPQR",'
        b'"configuration":{"org.example.Gr\xc3\xb6\xc3\x9fe":{"x":[1,null],"password":"Fg-0123456789ABCDEFGHJKMNPQR"}},'
        b'"packages":[{"name":"heater","version":"1.0","url":"https://h/heater.dp","sha256":"' + b"0a" * 32 + b'"}]}'
    )


def test_certificates_follow_when_there_are_any() -> None:
    """ID-08: certificate, ca, key of ours and the time to renew, in this order at the end."""
    delivery = replace(
        LEAST, certificate="CERT", ca="CA", private_key=Secret("KEY"), renew_after=NOON + timedelta(days=45)
    )
    assert encode(replace(PROVISIONED, delivery=delivery)).endswith(
        b'"packages":[],"certificate":"CERT","ca":"CA","private_key":"KEY","renew_after":"2026-04-15T12:00:00.000Z"}'
    )


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.PROVISIONED])
@pytest.mark.parametrize("retry_after_s", [None, 60])
@pytest.mark.parametrize("detail", [None, "csr: must be a PEM PKCS#10 request"])
def test_every_other_status_says_no_more_than_it_must(
    status: Status, retry_after_s: int | None, detail: str | None
) -> None:
    """EC-34: id, status, server time, and only when there is one a retry delay and a detail."""
    body = json.loads(
        encode(Answer(status=status, message_id="m1", server_time=NOON, retry_after_s=retry_after_s, detail=detail))
    )
    extra = {"retry_after_s": retry_after_s, "detail": detail}
    expected = {"request_id": "m1", "status": status.value, "server_time": "2026-03-01T12:00:00.000Z"}
    assert body == expected | {name: value for name, value in extra.items() if value is not None}


def test_an_answer_to_an_unreadable_id_has_none() -> None:
    """A device is answered even when it cannot be told which message this is about."""
    answer = Answer(status=Status.MALFORMED, message_id=None, server_time=NOON, detail="payload: must be JSON")
    assert json.loads(encode(answer))["request_id"] is None


def test_a_delivery_belongs_to_provisioned_alone() -> None:
    """EC-16: credentials cannot be put into a refusal, nor left out of a grant."""
    with pytest.raises(ValueError, match="provisioned"):
        replace(PROVISIONED, status=Status.REFUSED)
    with pytest.raises(ValueError, match="provisioned"):
        replace(PROVISIONED, delivery=None)


def test_the_answer_goes_to_the_devices_own_topic_and_the_exchange_is_over() -> None:
    """EC-05, F-07: one message, on the response topic of the one who asked."""
    exchange = DIALECT.exchange("gw1", ProvisionMessage(message_id="boot-7", dialect="json_v1"), PROVISIONED, ())
    (only,) = exchange.start(0.0)
    assert (only.topic, only.payload) == (RESPONSE, encode(PROVISIONED))
    assert (exchange.done, exchange.taken, exchange.failure, exchange.deadline()) == (True, False, None, None)
    assert exchange.expected_topics() == frozenset()
    assert DIALECT.ids_needed(PROVISIONED) == 0


def test_nothing_but_the_payload_itself_shows_the_secrets() -> None:
    """F-39: answers, deliveries and outgoing messages have reprs without them."""
    delivery = replace(
        LEAST, private_key=Secret("PRIVATE"), configuration=generated("mqtt://b", "a", "c", "u", PASSWORD)
    )
    answer = replace(PROVISIONED, delivery=delivery)
    exchange = DIALECT.exchange("gw1", ProvisionMessage(message_id="m", dialect="json_v1"), answer, ())
    shown = repr(answer) + repr(exchange.start(0.0))
    assert PASSWORD.reveal() not in shown
    assert "PRIVATE" not in shown


def test_what_is_not_json_is_never_sent_as_text() -> None:
    """A value that slipped in fails loudly instead of arriving as its repr."""
    with pytest.raises(TypeError, match="datetime"):
        encode(replace(PROVISIONED, delivery=replace(LEAST, configuration={"pid": {"at": NOON}})))


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (NOON, "2026-03-01T12:00:00.000Z"),
        (NOON.replace(microsecond=999_999), "2026-03-01T12:00:00.999Z"),
        (datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=-5))), "2026-03-01T17:00:00.000Z"),
    ],
)
def test_times_are_rfc_3339_in_utc(instant: datetime, text: str) -> None:
    """EC-20: milliseconds and a Z, whatever the offset was."""
    assert rfc3339(instant) == text
