"""Topics on a broker in the place of the gate: whose they are, who may use them, and who cannot be served there."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.dialects.esf import Esf, EsfSettings
from provisioner.dialects.json_v1 import JsonV1
from provisioner.link.topics import LinkTopics
from provisioner.model import names
from provisioner.model.errors import InvalidInput
from provisioner.model.topics import TopicRights

BOTH = LinkTopics((JsonV1(), Esf(EsfSettings())))
CLIENT_IDS = st.text(min_size=1, max_size=40).filter(lambda text: not any(names.check_client_id(text)))


@given(CLIENT_IDS)
def test_every_topic_of_a_device_names_it(client_id: str) -> None:
    """What a device may publish leads back to its client id, whatever that is made of."""
    rights = BOTH.rights(client_id)
    assert {BOTH.client_id(topic) for topic in rights.publish | rights.wills} == {client_id}
    assert {topic for topic in rights.publish | rights.wills if BOTH.is_farewell(topic)} == rights.wills


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "prov/v1/gw1",
        "prov/v1/gw1/response",
        "prov/v1/gw1/request/more",
        "prov/v2/gw1/request",
        "$EDC/provision/gw1/CONF-V1/PUT/configurations",
        "$EDC/provision/fleetgate/CONF-V1/REPLY/0123",
        "$EDC/acme/gw1/MQTT/BIRTH",
    ],
)
def test_other_topics_name_nobody(topic: str) -> None:
    """A topic that no device publishes of itself belongs to no client id."""
    assert BOTH.client_id(topic) is None


def test_access_of_a_device_is_exact() -> None:
    """EC-04: in mosquitto's file a device has its own topics and no wildcard but those of its dialect."""
    assert BOTH.access("gw 1") == [
        "topic write $EDC/provision/fleetgate/+/NOTIFY/gw 1/+",
        "topic write $EDC/provision/fleetgate/+/REPLY/+",
        "topic write $EDC/provision/gw 1/MQTT/APPS",
        "topic write $EDC/provision/gw 1/MQTT/BIRTH",
        "topic write $EDC/provision/gw 1/MQTT/DC",
        "topic write $EDC/provision/gw 1/MQTT/LWT",
        "topic write $EDC/provision/gw 1/MQTT/PROV",
        "topic write prov/v1/gw 1/ack",
        "topic write prov/v1/gw 1/request",
        "topic read prov/v1/gw 1/response",
        "topic read $EDC/provision/gw 1/#",
    ]


def test_provisioner_hears_what_devices_say_and_says_what_they_hear() -> None:
    """The provisioner subscribes to no more than devices may publish, and has no other rights than it needs."""
    only_json = LinkTopics((JsonV1(),))
    assert only_json.filters == ["prov/v1/+/ack", "prov/v1/+/request"]
    assert only_json.own_access() == [
        "topic read prov/v1/+/ack",
        "topic read prov/v1/+/request",
        "topic write prov/v1/+/response",
    ]
    assert "topic write $EDC/provision/+/#" in BOTH.own_access()
    assert not any(each.startswith("#") or each.startswith("+") for each in BOTH.filters)


class SharedAnswers(JsonV1):
    """Answers everybody on one topic, as cloud dialects do."""

    name = "shared"

    def rights(self, client_id: str) -> TopicRights:
        return TopicRights(
            publish=frozenset((f"$dps/registrations/{client_id}/PUT",)),
            subscribe=frozenset(("$dps/registrations/res",)),
        )


class SharedQuestions(JsonV1):
    """Hears everybody on one topic."""

    name = "crowd"

    def rights(self, client_id: str) -> TopicRights:
        return TopicRights(publish=frozenset(("ask",)), subscribe=frozenset((f"answer/{client_id}",)))


@pytest.mark.parametrize("dialect", [SharedAnswers(), SharedQuestions()], ids=lambda dialect: dialect.name)
def test_dialect_that_shares_topics_is_refused(dialect: JsonV1) -> None:
    """A dialect whose devices share a topic cannot be told apart there; the error names it and its topic."""
    dialects: Sequence[JsonV1] = (JsonV1(), dialect)
    with pytest.raises(InvalidInput, match="share a topic") as refused:
        LinkTopics(dialects)
    (problem,) = refused.value.problems
    assert problem.field == f"dialect {dialect.name}"
