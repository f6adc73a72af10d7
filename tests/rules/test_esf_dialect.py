"""The ESF dialect: what a gateway may do here, and which of its messages are provision messages (wire-esf)."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.dialects.esf import Esf, EsfSettings
from provisioner.dialects.kura_payload import KuraPayload, Metric, MetricValue, encode, metric
from provisioner.model.messages import (
    Ignored,
    Incoming,
    Malformed,
    ProvisionMessage,
)
from provisioner.model.secret import Secret
from provisioner.model.topics import TopicRights

BASE = "$EDC/provision/gw1/"
PROV, BIRTH = f"{BASE}MQTT/PROV", f"{BASE}MQTT/BIRTH"
ESF = Esf(EsfSettings())
CSR = "-----BEGIN CERTIFICATE REQUEST-----"


def payload(*metrics: Metric, body: bytes | None = None, **plain: MetricValue) -> bytes:
    """Metrics by keyword read with dots for underscores, but for the three that have underscores."""
    kept = ("serial_number", "model_id", "firmware_version", "display_name", "kura_version")
    named = tuple(metric(n if n in kept else n.replace("_", "."), value) for n, value in plain.items())
    return encode(KuraPayload(metrics=(*named, *metrics), body=body))


def heard(topic: str, data: bytes, dialect: Esf = ESF) -> Incoming | None:
    return dialect.decode("gw1", topic, data, "fresh-id")


def malformed(data: bytes) -> Malformed:
    incoming = heard(PROV, data)
    assert isinstance(incoming, Malformed)
    return incoming


# Rights.


def test_an_esf_session_may_say_four_things_and_hear_what_is_its_own() -> None:
    """EC-04, F-01, F-02: its own lifecycle topics, its own wildcard, and a Will that is heard by nobody."""
    rights = ESF.rights("gw1")
    assert rights.publish == {f"{BASE}MQTT/{what}" for what in ("BIRTH", "APPS", "DC", "PROV")}
    assert rights.below == BASE
    assert rights.wills == {f"{BASE}MQTT/LWT"}
    assert rights.subscribe == frozenset()


def test_the_names_in_topics_are_settings() -> None:
    """wire-esf: prefix and provision account are the installation's."""
    rights = Esf(EsfSettings(control_prefix="$ACME", provision_account="gate")).rights("gw1")
    assert rights.below == "$ACME/gate/gw1/"


def test_a_device_that_is_called_like_the_requester_hears_no_replies() -> None:
    """EC-04: its wildcard would be that of the replies, whose topics hold the ids that nobody else may know."""
    assert ESF.rights("fleetgate") == TopicRights()
    named = Esf(EsfSettings(requester="plant-1"))
    assert named.rights("plant-1") == TopicRights()
    assert named.rights("fleetgate").below == "$EDC/provision/fleetgate/"


@pytest.mark.parametrize("name", ["control_prefix", "provision_account", "requester", "reply_app"])
@pytest.mark.parametrize("wrong", ["", "a/b", "+", "a#", "\0"])
def test_a_setting_that_is_no_topic_level_is_refused(name: str, wrong: str) -> None:
    """wire-esf: said at the start and by its name, for each gateway would fail on it later."""
    with pytest.raises(ValueError, match=f"^{name} "):
        EsfSettings(**{name: wrong})


# The PROV trigger.


def test_a_prov_message_is_a_provision_message() -> None:
    """EC-33: id, key, device data and CSR, each from its place."""
    data = payload(
        request_id="boot-7",
        requester_client_id="gw1",
        prov_version=1,
        activation_key="7K2M9Q",
        serial_number="S1",
        model_id="M1",
        firmware_version="7.4",
        prov_attempt=2,
        body=CSR.encode(),
    )
    assert heard(PROV, data) == ProvisionMessage(
        message_id="boot-7",
        dialect="esf",
        activation_key=Secret("7K2M9Q"),
        csr=CSR,
        device={"serial_number": "S1", "model_id": "M1", "firmware_version": "7.4", "prov.attempt": 2},
    )


def test_the_shortest_prov_message_is_an_id() -> None:
    """Everything but the id is optional, and an empty body is no CSR."""
    assert heard(PROV, payload(request_id="m1", body=b"")) == ProvisionMessage(message_id="m1", dialect="esf")


def test_the_metric_names_are_settings() -> None:
    """wire-esf: the vendor's own names are not public, so an installation can state them."""
    settings = EsfSettings(metric_message_id="id", metric_activation_key="key", metrics_of_device=("colour",))
    data = payload(id="m1", key="K", colour="red", serial_number="S1")
    assert heard(PROV, data, Esf(settings)) == ProvisionMessage(
        message_id="m1", dialect="esf", activation_key=Secret("K"), device={"colour": "red"}
    )


@pytest.mark.parametrize(
    ("data", "detail", "message_id"),
    [
        (payload(), "request.id: ", None),
        (payload(request_id=""), "request.id: ", None),
        (payload(request_id=7), "request.id: ", None),
        (payload(request_id="x" * 65), "request.id: ", None),
        (payload(request_id="a/b"), "request.id: ", None),
        (payload(request_id="a+b"), "request.id: ", None),
        (payload(request_id="#"), "request.id: ", None),
        (payload(request_id="a\nb"), "request.id: ", None),
        (payload(request_id="m1", prov_version=2), "prov.version: ", "m1"),
        (payload(request_id="m1", prov_version="1"), "prov.version: ", "m1"),
        (payload(request_id="m1", activation_key=""), "activation.key: ", "m1"),
        (payload(request_id="m1", activation_key="x" * 257), "activation.key: ", "m1"),
        (payload(request_id="m1", activation_key=b"7K2M9Q"), "activation.key: ", "m1"),
        (payload(request_id="m1", body=b"\xff\xfe"), "body: ", "m1"),
        (payload(request_id="m1", body=b"x" * 16_385), "body: ", "m1"),
        (b"\xff", "payload: ", None),
        (b"\x1f\x8bgarbage", "payload: ", None),
    ],
)
def test_a_prov_message_that_cannot_be_used_names_the_part(data: bytes, detail: str, message_id: str | None) -> None:
    """EC-34, F-37: every bad PROV is malformed, with the metric and, when it can be read, the id."""
    bad = malformed(data)
    assert bad.detail.startswith(detail)
    assert (bad.message_id, bad.dialect) == (message_id, "esf")


@given(st.binary(max_size=80))
def test_any_bytes_on_prov_are_answered(data: bytes) -> None:
    """F-38: never silence, never an exception."""
    assert isinstance(heard(PROV, data), ProvisionMessage | Malformed)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_not_kept(value: float) -> None:
    """F-37: what JSON cannot say is no device data, for the registry is kept as JSON."""
    data = payload(metric("model_id", value), request_id="m1", serial_number="S1")
    incoming = heard(PROV, data)
    assert isinstance(incoming, ProvisionMessage)
    assert incoming.device == {"serial_number": "S1"}


def test_long_device_data_is_cut() -> None:
    """The registry keeps 1,024 characters of what a device says of itself."""
    incoming = heard(PROV, payload(request_id="m1", serial_number="S" * 5000))
    assert isinstance(incoming, ProvisionMessage)
    assert incoming.device == {"serial_number": "S" * 1024}


def test_the_activation_key_is_never_shown() -> None:
    """F-39: not in the message, not in the refusal of a bad one."""
    good = heard(PROV, payload(request_id="m1", activation_key="Canary-7f3a"))
    bad = heard(PROV, payload(request_id="m1", activation_key="Canary-7f3a" * 30))
    assert "Canary" not in repr(good) + repr(bad)


# The BIRTH trigger.


def test_a_birth_triggers_with_an_id_of_ours() -> None:
    """wire-esf: a stock Kura says no more than BIRTH; its id is made here, one per connection."""
    data = payload(serial_number="S1", display_name="Gate", kura_version="5.4", request_id="mine", activation_key="K")
    assert heard(BIRTH, data) == ProvisionMessage(
        message_id="fresh-id",
        dialect="esf",
        device={"serial_number": "S1", "display_name": "Gate", "kura_version": "5.4"},
        by_birth=True,
    )


def test_a_birth_can_be_told_not_to_trigger() -> None:
    """wire-esf: trigger_on_birth false."""
    assert heard(BIRTH, payload(), Esf(EsfSettings(trigger_on_birth=False))) == Ignored(what="BIRTH")


@pytest.mark.parametrize(
    ("topic", "data"),
    [
        (f"{BASE}MQTT/APPS", payload()),
        (f"{BASE}MQTT/DC", b"\xff"),
        (f"{BASE}MQTT/LWT", payload()),
        (BIRTH, b"\xff"),
    ],
)
def test_what_asks_for_nothing_is_ignored(topic: str, data: bytes) -> None:
    """A birth that cannot be read, a farewell, a list of apps: known, and not answered."""
    assert heard(topic, data) == Ignored(what=topic.rpartition("/")[2])


@pytest.mark.parametrize(
    "topic", ["prov/v1/gw1/request", "$EDC/provision/gw2/MQTT/PROV", "$EDC/acme/gw1/MQTT/PROV", f"{BASE}CONF-V1/PUT/x"]
)
def test_other_topics_are_not_of_this_dialect(topic: str) -> None:
    """Another client id, another account and other apps are left to others."""
    assert heard(topic, payload(request_id="m1")) is None
