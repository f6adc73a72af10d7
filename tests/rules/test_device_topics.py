"""What a device may use on its account broker (EC-31)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.model.topics import DeviceTopics

GW1 = DeviceTopics("acme", "gw1")
LEVEL = st.sampled_from(["acme", "gw1", "gw2", "$EDC", "$share", "+", "#", "", "x", "gw1#"])
START = st.sampled_from([[], ["acme"], ["acme", "gw1"], ["$EDC", "acme", "gw1"]])
LEVELS = st.builds(lambda start, more: [*start, *more], START, st.lists(LEVEL, min_size=1, max_size=4))


def matches(topic_filter: str, topic: str) -> bool:
    """[MQTT-4.7] for well-formed filters."""
    filters, levels = topic_filter.split("/"), topic.split("/")
    if levels[0].startswith("$") and filters[0] in ("+", "#"):
        return False
    for place, wanted in enumerate(filters):
        if wanted == "#":
            return True
        if place >= len(levels) or wanted not in ("+", levels[place]):
            return False
    return len(filters) == len(levels)


@pytest.mark.parametrize("prefix", ["", "$EDC/"])
@pytest.mark.parametrize("below", ["", "/", "/x", "/MQTT/BIRTH", "/a/b/c"])
def test_own_topics(prefix: str, below: str) -> None:
    """Everything at and below the own two prefixes."""
    assert GW1.may_publish(f"{prefix}acme/gw1{below}")
    assert GW1.may_subscribe(f"{prefix}acme/gw1{below}")


@pytest.mark.parametrize("below", ["/#", "/+", "/+/#", "/CONF-V1/+/x"])
def test_wildcards_below_the_own_prefix(below: str) -> None:
    """A wildcard is for subscribing, and only below the own prefix."""
    assert GW1.may_subscribe(f"acme/gw1{below}")
    assert not GW1.may_publish(f"acme/gw1{below}")


@pytest.mark.parametrize(
    "topic",
    ["", "#", "+/#", "acme", "acme/#", "acme/gw", "acme/gw12", "acme/gw1#", "acme/gw1/a#", "acme/gw1/#/a", "acme/gw2/x",
     "/acme/gw1", "$EDC", "$EDC/#", "$EDC/acme/+/x", "$SYS/acme/gw1/x", "$share/g/acme/gw1/#", "EDC/acme/gw1",
     "acme/gw1/\x00"],
)  # fmt: skip
def test_anything_else_is_refused(topic: str) -> None:
    """Foreign, wider, shared and malformed ones, for both verbs."""
    assert not GW1.may_subscribe(topic)
    assert not GW1.may_publish(topic)


@given(filters=LEVELS, topics=LEVELS)
def test_a_granted_filter_matches_own_topics_only(filters: list[str], topics: list[str]) -> None:
    """No filter that is granted matches a topic that the device may not publish to itself."""
    topic_filter, topic = "/".join(filters), "/".join(topics)
    if GW1.may_subscribe(topic_filter) and "+" not in topic and "#" not in topic and matches(topic_filter, topic):
        assert GW1.may_publish(topic)


@pytest.mark.parametrize(
    ("account", "client_id"), [("", "gw1"), ("acme", ""), ("acme/x", "gw1"), ("acme", "+"), ("#", "gw1")]
)
def test_names_that_act_in_a_topic_make_no_rights(account: str, client_id: str) -> None:
    """F-09: the value cannot be built from a name that is not one topic level."""
    with pytest.raises(ValueError, match="topic level"):
        DeviceTopics(account, client_id)


def test_home_and_control_prefix() -> None:
    """The control prefix is a setting; the home is the same with any."""
    named = DeviceTopics("acme", "gw1", "$CTRL")
    assert named.may_publish("$CTRL/acme/gw1/MQTT/BIRTH")
    assert not named.may_publish("$EDC/acme/gw1/MQTT/BIRTH")
    assert named.home == GW1.home == "acme/gw1"
