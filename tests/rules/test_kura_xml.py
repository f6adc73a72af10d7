"""Configuration XML of gateways (EC-27): literal names, types, passwords, a real reply."""

from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.dialects.kura_payload import decode
from provisioner.dialects.kura_properties import plain, typed
from provisioner.dialects.kura_xml import Component, PropertyType, Typed, read, write
from provisioner.model.secret import Secret
from tests.rules.kura_captures import captured
from tests.rules.kura_documents import document, one

REPLY = "KapuaPool-client-id_CONF-V1_REPLY_req-id_inital_configurations.mqtt"


def as_rows(data: bytes) -> list[tuple[Any, ...]]:
    """Every property of a document as an independent parser sees it."""
    esf = "{http://eurotech.com/esf/2.0}"
    return sorted(
        (component.get("pid"), each.get("name"), each.get("type"), each.get("array"), each.get("encrypted"),
         tuple(value.text or "" for value in each.iter(f"{esf}value")))
        for component in ElementTree.fromstring(data).iter(f"{esf}configuration")
        for each in component.iter(f"{esf}property")
    )  # fmt: skip


def test_the_real_configuration_of_a_gateway_is_read_and_written_whole() -> None:
    """The captured CONF-V1 reply: 17 components and 150 properties (among 117 metatype definitions) all survive."""
    body = decode(captured()[REPLY]).body
    assert body is not None
    components = read(body)
    assert len(components) == 17
    assert sum(len(component.properties) for component in components) == 150
    written = write(components)
    assert as_rows(written) == as_rows(body)
    assert read(written) == components
    transport = components[0].plain()
    assert transport["password"] == Secret("kapua-password")
    assert transport["keep-alive"] == 30 and transport["clean-session"] is True


def test_what_a_gateway_is_sent_looks_like_this() -> None:
    """The written document, whole: literal prefixes, one type per Python type, passwords in base64."""
    component = Component(
        "org.example.A",
        {
            "url": "mqtt://h:1883/?a=1&b=<2>",
            "on": True,
            "count": 3,
            "big": 2**31,
            "ratio": 0.5,
            "small": Typed(PropertyType.SHORT, 7),
            "password": Secret("geheim"),
            "names": ["a", ""],
            "unset": None,
        },
    )
    assert write([component]).decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<esf:configurations xmlns:esf="http://eurotech.com/esf/2.0"'
        ' xmlns:ocd="http://www.osgi.org/xmlns/metatype/v1.2.0">\n'
        '<esf:configuration pid="org.example.A">\n<esf:properties>\n'
        '<esf:property array="false" encrypted="false" name="url" type="String">'
        "<esf:value>mqtt://h:1883/?a=1&amp;b=&lt;2&gt;</esf:value></esf:property>\n"
        '<esf:property array="false" encrypted="false" name="on" type="Boolean">'
        "<esf:value>true</esf:value></esf:property>\n"
        '<esf:property array="false" encrypted="false" name="count" type="Integer">'
        "<esf:value>3</esf:value></esf:property>\n"
        '<esf:property array="false" encrypted="false" name="big" type="Long">'
        "<esf:value>2147483648</esf:value></esf:property>\n"
        '<esf:property array="false" encrypted="false" name="ratio" type="Double">'
        "<esf:value>0.5</esf:value></esf:property>\n"
        '<esf:property array="false" encrypted="false" name="small" type="Short">'
        "<esf:value>7</esf:value></esf:property>\n"
        '<esf:property array="false" encrypted="true" name="password" type="Password">'
        "<esf:value>Z2VoZWlt</esf:value></esf:property>\n"
        '<esf:property array="true" encrypted="false" name="names" type="String">'
        "<esf:value>a</esf:value><esf:value></esf:value></esf:property>\n"
        "</esf:properties>\n</esf:configuration>\n</esf:configurations>\n"
    )


NUMBERS = {PropertyType.BYTE: 8, PropertyType.SHORT: 16, PropertyType.INTEGER: 32, PropertyType.LONG: 64}
XML_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cn"), include_characters="\t\n\r"))
SCALARS: dict[PropertyType, st.SearchStrategy[Any]] = {
    PropertyType.STRING: XML_TEXT,
    PropertyType.PASSWORD: XML_TEXT.map(Secret),
    PropertyType.BOOLEAN: st.booleans(),
    PropertyType.DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    PropertyType.FLOAT: st.floats(width=32, allow_nan=False, allow_infinity=False),
    PropertyType.CHAR: st.characters(max_codepoint=0xD7FF, exclude_categories=("Cs", "Cc", "Cn")),
    **{kind: st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for kind, bits in NUMBERS.items()},
}
TYPED = st.sampled_from(PropertyType).flatmap(
    lambda kind: st.one_of(SCALARS[kind], st.lists(SCALARS[kind], max_size=4)).map(lambda value: Typed(kind, value))
)


@given(st.dictionaries(XML_TEXT.filter(bool), TYPED, max_size=6))
@settings(max_examples=300, deadline=None)
def test_every_value_of_every_type_comes_back(properties: dict[str, Typed]) -> None:
    """Ten types, scalars and arrays, any text that XML can carry: write then read gives the same typed values."""
    (again,) = read(write([Component("p", properties)]))
    assert {name: typed(value) for name, value in again.properties.items() if value is not None} == properties


def test_a_value_is_plain_when_its_type_follows_from_it() -> None:
    """Only what Python cannot tell apart stays Typed."""
    (component,) = read(
        write(
            [
                Component(
                    "p",
                    {
                        "integer": Typed(PropertyType.INTEGER, 5),
                        "long": Typed(PropertyType.LONG, 5),
                        "wide": Typed(PropertyType.LONG, 2**40),
                        "words": ("a", "b"),
                    },
                )
            ]
        )
    )
    assert component.properties["integer"] == 5
    assert component.properties["long"] == Typed(PropertyType.LONG, 5)
    assert component.properties["wide"] == 2**40
    assert component.plain() == {"integer": 5, "long": 5, "wide": 2**40, "words": ["a", "b"]}


# The rules of a gateway's reader.


@pytest.mark.parametrize(
    ("attributes", "values", "meant"),
    [
        ('type="String"', "<esf:value> a b\n</esf:value>", " a b\n"),
        ('type="String"', "<esf:value/>", ""),
        ('type="String"', "<esf:value>a<b>c</b></esf:value>", "ac"),
        ('type="String"', "<esf:value>first</esf:value><esf:value>second</esf:value>", "first"),
        ('type="String" array="true"', "", []),
        ('type="String" array="TRUE"', "<esf:value>a</esf:value>", ["a"]),
        ('type="Boolean"', "<esf:value>True</esf:value>", True),
        ('type="Boolean"', "<esf:value>yes</esf:value>", False),
        ('type="Integer"', "<esf:value>+5</esf:value>", 5),
        ('type="Double"', "<esf:value> 1e3 </esf:value>", 1000.0),
        ('type="Char"', "<esf:value>xyz</esf:value>", "x"),
        ('type="Password" encrypted="true"', "<esf:value>Z2VoZWlt</esf:value>", Secret("geheim")),
        ('type="Password" encrypted="false"', "<esf:value>geheim</esf:value>", Secret("geheim")),
        ('type="Password"', "<esf:value>geheim</esf:value>", Secret("geheim")),
    ],
)
def test_values_are_read_as_a_gateway_reads_them(attributes: str, values: str, meant: object) -> None:
    """Blanks, empty values, surplus values, both spellings of a password."""
    (component,) = read(one(attributes, values))
    assert plain(component.properties["n"]) == meant


@pytest.mark.parametrize("attributes", ['type="Colour"', "", 'type="string"'])
def test_a_property_of_unknown_type_is_skipped(attributes: str) -> None:
    """As on a gateway it is left out and the rest is taken."""
    assert read(one(attributes, "<esf:value>x</esf:value>")) == [Component("p", {})]


@pytest.mark.parametrize(
    "inside",
    [
        '<ns0:configuration xmlns:ns0="http://eurotech.com/esf/2.0" pid="p"/>',
        '<configuration xmlns="http://eurotech.com/esf/2.0" pid="p"/>',
    ],
)
def test_another_prefix_is_not_found_although_the_namespace_is_right(inside: str) -> None:
    """A gateway looks for the literal name; so do we, or tests would pass that fail in the field."""
    assert read(document(inside)) == []


def test_the_prefix_counts_whatever_namespace_it_has() -> None:
    """The other half of the literal rule."""
    data = b'<esf:configurations xmlns:esf="urn:x"><esf:configuration pid="p"/></esf:configurations>'
    assert read(data) == [Component("p", {})]


def test_names_outside_their_place_are_not_taken() -> None:
    """A property that does not stand directly in the properties of a component is no property (F-47)."""
    value = '<esf:property name="n" type="String"><esf:value>evil</esf:value></esf:property>'
    inside = (
        f"{value}<esf:properties>{value}</esf:properties>"
        f'<esf:configuration pid="p">{value}<ocd:OCD><esf:properties>{value}</esf:properties></ocd:OCD>'
        f"<esf:properties><x>{value}</x></esf:properties></esf:configuration>"
    )
    assert read(document(inside)) == [Component("p", {})]
