"""The merged device configuration: additional over generated, and five parameters that are always the gate's."""

import copy
import json
import string
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provisioner.model import device_config
from provisioner.model.device_config import ALWAYS_GENERATED, CLOUD_SERVICE_PID, DATA_SERVICE_PID, TRANSPORT_PID

EVIL = "evil"
GENERATED = device_config.generated("mqtts://b.example:8883", "acme", "gw1", "dev-1-1", "Fg-SECRET")
THE_FIVE = {
    "broker-url": "mqtts://b.example:8883",
    "topic.context.account-name": "acme",
    "client-id": "gw1",
    "username": "dev-1-1",
    "password": "Fg-SECRET",
}


def merged(additional: Mapping[str, Any]) -> dict[str, Any]:
    return device_config.merge(additional, GENERATED)


# EC-28: the merge.

GOLDEN_ADDITIONAL = {
    TRANSPORT_PID: {"keep-alive": 30, "clean-session": False, "broker-url": "mqtt://evil"},
    DATA_SERVICE_PID: {"connect.auto-on-startup": False, "store.capacity": 10_000},
    "org.example.Modbus": {
        "poll": {"rate": {"ms": 500}, "slaves": [1, 2, 3]},
        "serial": None,
        "empty": {},
        "none": [],
    },
}
GOLDEN_MERGED = {
    TRANSPORT_PID: {**THE_FIVE, "keep-alive": 30, "clean-session": False},
    DATA_SERVICE_PID: {"connect.auto-on-startup": False, "store.capacity": 10_000},
    CLOUD_SERVICE_PID: {"topic.control-prefix": "$EDC", "enable.default.subscriptions": True},
    "org.example.Modbus": {
        "poll": {"rate": {"ms": 500}, "slaves": [1, 2, 3]},
        "serial": None,
        "empty": {},
        "none": [],
    },
}


def test_the_golden_merge() -> None:
    """EC-27, EC-28: every component arrives; what is added wins over defaults, the five parameters over both."""
    assert merged(GOLDEN_ADDITIONAL) == GOLDEN_MERGED


def test_without_additions_the_generated_part_is_delivered() -> None:
    """EC-18: a device with no additional configuration is given exactly what the gate generates."""
    assert merged({}) == GENERATED
    assert {name: GENERATED[TRANSPORT_PID][name] for name in ALWAYS_GENERATED} == THE_FIVE


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3, "z": 4}}, {"a": {"x": 1, "y": 3, "z": 4}}),
        ({"a": {"x": [1, 2, 3]}}, {"a": {"x": [9]}}, {"a": {"x": [9]}}),
        ({"a": {"x": 1}}, {"a": {"x": None}}, {"a": {"x": None}}),
        ({"a": {"x": {"y": 1}}}, {"a": {"x": 2}}, {"a": {"x": 2}}),
        ({"a": {"x": 1}}, {"a": {"x": {"y": 2}}}, {"a": {"x": {"y": 2}}}),
        ({"a": {"x": 1}}, {"b": {"x": 2}}, {"a": {"x": 1}, "b": {"x": 2}}),
    ],
    ids=["maps merge", "lists replace", "null is kept", "value over map", "map over value", "new component"],
)
def test_how_two_values_merge(base: dict[str, Any], over: dict[str, Any], result: dict[str, Any]) -> None:
    """EC-28: maps merge, everything else replaces, null is a value."""
    transport = {TRANSPORT_PID: GENERATED[TRANSPORT_PID]}
    assert device_config.merge(over, base | transport) == result | transport


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
CONFIGURATIONS = st.dictionaries(
    st.sampled_from([TRANSPORT_PID, DATA_SERVICE_PID, "org.example.A", "org.example.B"]),
    st.dictionaries(st.sampled_from(["x", "y", "username", "keep-alive"]), JSON_VALUES, max_size=4),
    max_size=4,
)


@given(CONFIGURATIONS)
def test_merging_changes_neither_argument_and_is_stable(additional: dict[str, Any]) -> None:
    """EC-29: preview and delivery merge the same record, so merging leaves it alone and repeats exactly."""
    before, generated_before = copy.deepcopy(additional), copy.deepcopy(GENERATED)
    first = merged(additional)
    assert merged(additional) == first
    assert (additional, GENERATED) == (before, generated_before)


@given(CONFIGURATIONS)
def test_the_five_are_generated_whatever_is_added(additional: dict[str, Any]) -> None:
    """EC-29, F-47: the five parameters of the transport are the gate's own."""
    transport = merged(additional)[TRANSPORT_PID]
    assert {name: transport[name] for name in ALWAYS_GENERATED} == THE_FIVE


@pytest.mark.parametrize("whole", [None, [], "evil", 7, {}])
def test_the_transport_cannot_be_replaced_as_a_whole(whole: object) -> None:
    """F-47: not even by what is no component, should that slip past the check."""
    assert merged({TRANSPORT_PID: whole})[TRANSPORT_PID] == THE_FIVE


# F-47: every spelling.

FULL_WIDTH = {ord(c): chr(ord(c) + 0xFEE0) for c in string.printable if "!" <= c <= "~"}
WORDS = [
    ["broker", "url"],
    ["topic", "context", "account", "name"],
    ["client", "id"],
    ["username"],
    ["password"],
]


@st.composite
def respelled(draw: st.DrawFn, text: str) -> str:
    """The text in another case, perhaps full-width, perhaps with an invisible letter in it."""
    for change in draw(st.sets(st.sampled_from(["upper", "title", "wide", "invisible"]))):
        if change == "wide":
            text = text.translate(FULL_WIDTH)
        elif change == "invisible":
            text = f"{text[:2]}\u200b{text[2:]}"
        else:
            text = getattr(text, change)()
    return text


@st.composite
def name_parts(draw: st.DrawFn) -> list[str]:
    """One of the five, cut into the levels of a nested spelling, its words joined in any way."""
    words = [draw(respelled(word)) for word in draw(st.sampled_from(WORDS))]
    parts = [words[0]]
    for word in words[1:]:
        if draw(st.booleans()):
            parts.append(word)
        else:
            parts[-1] += draw(st.sampled_from(["", ".", "-", "_", " ", "/", "::"])) + word
    return parts


@st.composite
def transport_parts(draw: st.DrawFn) -> list[str]:
    """The transport's pid, as a whole or in part, respelled, dotted or nested; or a further cloud connection's."""
    prefix = draw(st.sampled_from(["", "org.eclipse.kura.core.data.transport.mqtt.", "org.eclipse."]))
    suffix = draw(st.sampled_from(["", "-2", "-17", "-backup", "-2nd", "-Cloud7"]))
    pid = draw(respelled(f"{prefix}MqttDataTransport{suffix}"))
    return pid.split(".") if draw(st.booleans()) else [pid]


def nested(parts: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(parts):
        value = {part: value}
    return dict(value)


@given(transport_parts(), name_parts())
@example([TRANSPORT_PID], ["username"])
@example([f"{TRANSPORT_PID}-2"], ["broker-url"])
@example([f"{TRANSPORT_PID}-backup"], ["client-id"])
@example(["mqttdatatransport"], ["\uff23\uff4c\uff49\uff45\uff4e\uff54\uff29\uff44"])
def test_no_spelling_of_the_five_gets_through(pid: list[str], name: list[str]) -> None:
    """F-47: case, separators, nesting, dotted keys, full-width letters, further connections: all are overridden."""
    additional = nested([*pid, *name], EVIL)
    assert EVIL not in json.dumps(merged(additional))
    assert device_config.overridden(additional) == ["/".join([*pid, *name])]


@given(transport_parts(), name_parts())
def test_no_dotted_spelling_gets_through(pid: list[str], name: list[str]) -> None:
    """F-47: pid and parameter in one key, at the top or inside of another component."""
    key = ".".join([*pid, *name])
    for additional in ({key: {"value": EVIL}}, {"org.example.A": {key: EVIL}}, {"x": {"y": {key: {"value": EVIL}}}}):
        assert EVIL not in json.dumps(merged(additional))


@given(transport_parts(), name_parts(), st.sampled_from(["name", "Name", "id", "key", "property", "parameter"]))
def test_no_list_of_names_and_values_gets_through(pid: list[str], name: list[str], key: str) -> None:
    """F-47: properties spelled as list items are overridden too, whatever else the item says of itself."""
    item = {key: ".".join(name), "value": EVIL}
    for items in ([item], [{"name": "keep-alive", "value": 30}, item], [[item]], [{"id": "other", "name": "x"} | item]):
        assert EVIL not in json.dumps(merged(nested(pid, {"properties": []}) | nested(pid, items)))


@given(transport_parts(), name_parts(), st.sampled_from([["properties"], ["Parameters"], ["properties", "0"], ["7"]]))
def test_a_level_that_only_holds_properties_hides_nothing(pid: list[str], name: list[str], holder: list[str]) -> None:
    """F-47: one level more, as Kura's own JSON has it, as maps, as a list or in a dotted name, is one more spelling."""
    item = {"name": ".".join(name), "value": EVIL}
    spellings = (
        nested([*pid, *holder, *name], EVIL),
        nested([*pid, ".".join([*holder, *name])], EVIL),
        nested([*pid, *holder], [item]),
    )
    for additional in spellings:
        assert EVIL not in json.dumps(merged(additional))


@given(name_parts())
def test_outside_of_any_component_the_five_are_dropped_too(name: list[str]) -> None:
    """F-47: a bare parameter at the top of the configuration belongs to no component."""
    assert EVIL not in json.dumps(merged(nested(name, EVIL if len(name) > 1 else {"value": EVIL})))


@given(name_parts().map(lambda parts: ".".join(parts)))
def test_other_components_keep_names_that_look_alike(name: str) -> None:
    """EC-27: a username of another component is that component's own business."""
    additional = {"org.example.Modbus": {name: "kept"}, "7": {name: "kept"}, TRANSPORT_PID: {f"lwt.{name}": "kept"}}
    assert device_config.overridden(additional) == []
    assert merged(additional)["org.example.Modbus"] == merged(additional)["7"] == {name: "kept"}
    assert merged(additional)[TRANSPORT_PID][f"lwt.{name}"] == "kept"


@pytest.mark.parametrize("key", ["__proto__", "constructor", "__class__"])
def test_names_that_act_elsewhere_are_plain_names_here(key: str) -> None:
    """F-47: no key has a meaning of its own."""
    additional = {key: {"username": EVIL}, TRANSPORT_PID: {key: {"x": 1}}}
    assert merged(additional)[TRANSPORT_PID] == {**THE_FIVE, key: {"x": 1}}


@pytest.mark.parametrize("pid", ["x" * 20_000, "mqtt" * 5_000, f"{TRANSPORT_PID}.{'0' * 20_000}", "\uff4d" * 6_000])
def test_long_names_do_not_hold_up_the_gate(pid: str) -> None:
    """F-37: each grant merges, so a configuration of the largest size takes a moment, however its names are chosen."""
    additional = {pid: {f"p{number}": number for number in range(1_500)}}
    began_s = time.perf_counter()
    assert merged(additional)[pid] == additional[pid]
    assert time.perf_counter() - began_s < 1.0


@given(transport_parts(), st.lists(st.text("properties.0-xmqt/", max_size=30)), transport_parts(), name_parts())
def test_the_last_transport_in_a_path_is_the_one_that_counts(
    first: list[str], between: list[str], last: list[str], name: list[str]
) -> None:
    """F-47: whatever stands above a transport, however much of it, its parameters are the gate's."""
    assert EVIL not in json.dumps(merged(nested([*first, *between, *last, *name], EVIL)))


# What may be added at all.


def deep(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels - 2):
        value = [value]
    return {"pid": {"x": value}} if levels > 1 else {"pid": {}}


@pytest.mark.parametrize(
    ("additional", "rule"),
    [
        ({}, None),
        ({"pid": {}}, None),
        (deep(31), None),
        (deep(33), "32 levels"),
        ({"pid": {"x": [0] * 9_997}}, None),
        ({"pid": {"x": [0] * 9_998}}, "10,000 values"),
        ([], "object of components"),
        ("text", "object of components"),
        (None, "object of components"),
        ({"pid": 1}, "object of properties"),
        ({"pid": None}, "object of properties"),
        ({"": {}}, "object of properties"),
        ({7: {}}, "object of properties"),
        ({"pid": {"x": {7: 1}}}, "names that are text"),
        ({"pid": {"x": [2**63]}}, "64 bits"),
        ({"pid": {"x": 2**63 - 1, "y": -(2**63)}}, None),
        ({"pid": {"x": -(2**63) - 1}}, "64 bits"),
    ],
)
def test_what_an_additional_configuration_may_be(additional: object, rule: str | None) -> None:
    """EC-27, F-37: an object of objects with text names and bounded numbers, depth and size, each rule named."""
    broken = list(device_config.check(additional))
    assert (not broken) if rule is None else any(rule in each for each in broken), broken
