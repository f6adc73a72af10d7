"""Configuration XML that breaks a rule (F-37, F-38, F-47): bombs, duplicates, values that do not fit, mutations."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.dialects.kura_xml import (
    COMPONENTS_MAX,
    DEPTH_MAX,
    ELEMENTS_MAX,
    XML_BYTES_MAX,
    Component,
    MalformedConfiguration,
    PropertyType,
    Typed,
    read,
    write,
)
from provisioner.model.secret import Secret
from tests.rules.kura_documents import document, one

PROPERTY = '<esf:property name="n" type="String"><esf:value>x</esf:value></esf:property>'
REFUSED = {
    "nothing": b"",
    "no XML": b"\x00\x01\x02",
    "cut short": document("<esf:configuration")[:-30],
    "a DTD": b'<!DOCTYPE a SYSTEM "http://x/y.dtd"><a/>',
    "an entity": b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
    "an external entity": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "an unknown entity": document("&nope;"),
    "an unknown encoding": b'<?xml version="1.0" encoding="klingon"?><a/>',
    "text that is not UTF-8": document("").replace(b"</esf", b"\xff</esf"),
    "a component twice": document('<esf:configuration pid="p"/>' * 2),
    "a component without a pid": document("<esf:configuration/>"),
    "a component in a component": document(
        '<esf:configuration pid="p"><esf:configuration pid="q"/></esf:configuration>'
    ),
    "a property twice": document(
        f'<esf:configuration pid="p"><esf:properties>{PROPERTY * 2}</esf:properties></esf:configuration>'
    ),
    "a property without a name": document(
        '<esf:configuration pid="p"><esf:properties><esf:property type="String"><esf:value>x</esf:value>'
        "</esf:property></esf:properties></esf:configuration>"
    ),
    "no value": one('type="String"', ""),
    "a number in words": one('type="Integer"', "<esf:value>five</esf:value>"),
    "blanks around an integer": one('type="Integer"', "<esf:value> 5</esf:value>"),
    "digits with an underscore": one('type="Integer"', "<esf:value>1_0</esf:value>"),
    "digits of another script": one('type="Integer"', "<esf:value>٣</esf:value>"),
    "an Integer of 33 bits": one('type="Integer"', "<esf:value>2147483648</esf:value>"),
    "a Byte of 9 bits": one('type="Byte"', "<esf:value>128</esf:value>"),
    "a Long of 5,000 digits": one('type="Long"', f"<esf:value>{'9' * 5000}</esf:value>"),
    "1e400": one('type="Double"', "<esf:value>1e400</esf:value>"),
    "NaN": one('type="Double"', "<esf:value>NaN</esf:value>"),
    "a Float beyond 32 bits": one('type="Float"', "<esf:value>1e39</esf:value>"),
    "an empty Char": one('type="Char"', "<esf:value/>"),
    "a password that is not base64": one('type="Password" encrypted="true"', "<esf:value>!</esf:value>"),
    "a password that is not UTF-8": one('type="Password" encrypted="true"', "<esf:value>/w==</esf:value>"),
    "one broken array item": one('type="Short" array="true"', "<esf:value>1</esf:value><esf:value>x</esf:value>"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_document_that_breaks_a_rule_is_refused(name: str) -> None:
    """One exception for everything, and its text shows no value (F-37)."""
    with pytest.raises(MalformedConfiguration) as refused:
        read(REFUSED[name])
    assert "five" not in str(refused.value) and "passwd" not in str(refused.value)


def test_depth_size_and_counts_are_capped() -> None:
    """At the cap a document is read, one above it is refused (F-37)."""

    def nested(levels: int) -> bytes:
        return b"<a>" * levels + b"</a>" * levels

    def components(count: int) -> bytes:
        return document("".join(f'<esf:configuration pid="p{number}"/>' for number in range(count)))

    assert read(nested(DEPTH_MAX)) == []
    assert len(read(components(COMPONENTS_MAX))) == COMPONENTS_MAX
    assert read(b"<r>" + b"<a/>" * (ELEMENTS_MAX - 1) + b"</r>") == []
    padded = b"<r>" + b" " * (XML_BYTES_MAX - 7) + b"</r>"
    assert read(padded) == []
    for excessive in (
        nested(DEPTH_MAX + 1),
        components(COMPONENTS_MAX + 1),
        b"<r>" + b"<a/>" * ELEMENTS_MAX + b"</r>",
        padded + b" ",
    ):
        with pytest.raises(MalformedConfiguration):
            read(excessive)


def test_an_entity_bomb_costs_nothing() -> None:
    """The billion-laughs document is refused at its DTD (F-37)."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    began = time.perf_counter()
    with pytest.raises(MalformedConfiguration):
        read(f'<!DOCTYPE r [<!ENTITY e0 "ha">{entities}]><r>&e9;</r>'.encode())
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {"a": 1},
        ["a", 1],
        [True, 1],
        [["a"]],
        2**63,
        float("nan"),
        float("inf"),
        "\x00",
        "\ud800",
        "\ufffe",
        Secret("\x1b"),
        b"bytes",
    ],
)
def test_a_value_that_cannot_be_sent_is_refused_by_name(value: Any) -> None:
    """The administrator learns which property of which component is wrong."""
    with pytest.raises(MalformedConfiguration, match=r"org\.A.*colour"):
        Component("org.A", {"colour": value})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (PropertyType.BYTE, 128),
        (PropertyType.SHORT, -32769),
        (PropertyType.INTEGER, True),
        (PropertyType.INTEGER, 2**31),
        (PropertyType.LONG, "5"),
        (PropertyType.FLOAT, 1e39),
        (PropertyType.DOUBLE, 10**400),
        (PropertyType.DOUBLE, True),
        (PropertyType.CHAR, "xy"),
        (PropertyType.CHAR, "😀"),
        (PropertyType.BOOLEAN, 1),
        (PropertyType.STRING, 5),
        (PropertyType.PASSWORD, 5),
    ],
)
def test_a_stated_type_must_fit(kind: PropertyType, value: Any) -> None:
    """An explicit type is a promise about the value."""
    with pytest.raises(MalformedConfiguration):
        Typed(kind, value)


@pytest.mark.parametrize("pid", ["", "\x00"])
def test_a_component_and_its_properties_need_names(pid: str) -> None:
    """Neither may be empty or outside XML."""
    with pytest.raises(MalformedConfiguration):
        Component(pid, {})
    with pytest.raises(MalformedConfiguration):
        Component("p", {pid: "x"})


def test_one_component_is_not_written_twice() -> None:
    """Two components of one pid would leave it open which value wins (F-47)."""
    with pytest.raises(MalformedConfiguration):
        write([Component("p", {"a": 1}), Component("p", {"a": 2})])


def test_a_component_keeps_its_values_when_the_source_changes() -> None:
    """What was checked is what is written."""
    source: dict[str, Any] = {"a": ["x"]}
    component = Component("p", source)
    source["a"].append("\x00")
    source["b"] = "y"
    assert component.plain() == {"a": ["x"]}


def test_no_repr_shows_a_password() -> None:
    """Also a password given as a bare text of stated type is hidden."""
    value = Typed(PropertyType.PASSWORD, "geheim")
    assert "geheim" not in f"{value!r} {Component('p', {'password': value})!r} {Component('p', {'a': value}).plain()!r}"


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise_anything_but_malformed_configuration(data: bytes) -> None:
    """Whatever is uploaded is read or refused (F-38)."""
    for form in (data, document("") + data, b"<esf:configuration pid='p'>" + data):
        try:
            assert isinstance(read(form), list)
        except MalformedConfiguration:
            continue


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_mutations_of_a_document_are_read_or_refused(data: st.DataObject) -> None:
    """A valid document with one byte changed is read or refused, and what is read can be written."""
    valid = bytearray(write([Component("p", {"a": 1, "b": Secret("geheim"), "c": ["x", "y"], "d": 1.5})]))
    valid[data.draw(st.integers(0, len(valid) - 1))] = data.draw(st.integers(0, 255))
    try:
        components = read(bytes(valid))
    except MalformedConfiguration:
        return
    assert read(write(components)) == components
