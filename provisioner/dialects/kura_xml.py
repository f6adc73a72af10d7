"""Configuration XML of Kura and ESF gateways: what CONF-V1 carries and what a snapshot file holds.

A gateway finds elements by their literal names (`esf:configuration`), whatever namespace the prefix stands for; this
reader does the same and the writer uses the same prefixes.

Stricter than a gateway, because administrators upload such files: no DTD, no entity, at most 32 levels, capped size
and counts, no component or property twice, only finite numbers. As on a gateway, a property of unknown type is
skipped, surplus values of a property that is no array are ignored, and the last `esf:properties` wins.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from enum import Enum, auto
from xml.sax import SAXException
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl

import defusedxml.sax

from provisioner.dialects.kura_properties import (
    INTEGER_BITS,
    Component,
    MalformedConfiguration,
    PropertyType,
    Scalar,
    Typed,
    Value,
    checked,
    is_array,
    items,
    typed,
)
from provisioner.model.secret import Secret

__all__ = ["COMPONENTS_MAX", "DEPTH_MAX", "ELEMENTS_MAX", "XML_BYTES_MAX", "Component", "MalformedConfiguration",
           "PropertyType", "Typed", "read", "write"]  # fmt: skip

XML_BYTES_MAX = 1 << 20
DEPTH_MAX = 32
COMPONENTS_MAX = 1_000
ELEMENTS_MAX = 50_000

_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<esf:configurations xmlns:esf="http://eurotech.com/esf/2.0"'
    ' xmlns:ocd="http://www.osgi.org/xmlns/metatype/v1.2.0">\n'
)
_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_ATTRIBUTE = _TEXT | str.maketrans({'"': "&quot;", "\n": "&#10;", "\t": "&#9;"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)


def write(components: Sequence[Component]) -> bytes:
    """The XML that a gateway takes; a pid may occur once. Passwords travel in base64, which hides nothing: use TLS."""
    pids = [component.pid for component in components]
    if len(set(pids)) != len(pids):
        raise MalformedConfiguration("a component occurs twice")
    return (_HEAD + "".join(map(_write_component, components)) + "</esf:configurations>\n").encode()


def _write_component(component: Component) -> str:
    sent = {name: typed(value) for name, value in component.properties.items() if value is not None}
    rows = "".join(_write_property(name, value) for name, value in sent.items())
    pid = component.pid.translate(_ATTRIBUTE)
    return f'<esf:configuration pid="{pid}">\n<esf:properties>\n{rows}</esf:properties>\n</esf:configuration>\n'


def _write_property(name: str, value: Typed) -> str:
    array = "true" if is_array(value.value) else "false"
    encrypted = "true" if value.kind is PropertyType.PASSWORD else "false"
    texts = (_text_of(item).translate(_TEXT) for item in items(value.value))
    values = "".join(f"<esf:value>{text}</esf:value>" for text in texts)
    return (
        f'<esf:property array="{array}" encrypted="{encrypted}" name="{name.translate(_ATTRIBUTE)}"'
        f' type="{value.kind.value}">{values}</esf:property>\n'
    )


def _text_of(item: Scalar) -> str:
    if isinstance(item, Secret):
        return base64.b64encode(item.reveal().encode()).decode()
    if isinstance(item, bool):
        return "true" if item else "false"
    return item if isinstance(item, str) else repr(item)


def read(data: bytes) -> list[Component]:
    """The components in the order of the document. Raises MalformedConfiguration and nothing else."""
    if len(data) > XML_BYTES_MAX:
        raise MalformedConfiguration(f"the XML exceeds {XML_BYTES_MAX} bytes")
    handler = _Reader()
    try:
        defusedxml.sax.parseString(data, handler, forbid_dtd=True)
    except MalformedConfiguration:
        raise
    except (SAXException, ValueError, LookupError) as error:
        # ValueError: what defusedxml forbids and undecodable text; LookupError: an encoding nobody knows.
        raise MalformedConfiguration(f"not acceptable as XML ({type(error).__name__})") from None
    return handler.components


class _Role(Enum):
    OTHER = auto()
    COMPONENT = auto()
    PROPERTIES = auto()
    PROPERTY = auto()
    VALUE = auto()


_ROLES = {
    (_Role.COMPONENT, "esf:properties"): _Role.PROPERTIES,
    (_Role.PROPERTIES, "esf:property"): _Role.PROPERTY,
    (_Role.PROPERTY, "esf:value"): _Role.VALUE,
}


class _Reader(ContentHandler):
    """Builds components while the parser walks; nothing of a foreign element is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.components: list[Component] = []
        self._path: list[_Role] = []
        self._elements = 0
        self._pids: set[str] = set()
        self._pid = ""
        self._properties: dict[str, Value] = {}
        self._attributes: dict[str, str] = {}
        self._values: list[str] = []
        self._text: list[str] = []

    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: N802 - the name that SAX calls
        parent = self._path[-1] if self._path else _Role.OTHER
        role = _Role.COMPONENT if name == "esf:configuration" else _ROLES.get((parent, name), _Role.OTHER)
        self._elements += 1
        if len(self._path) == DEPTH_MAX or self._elements > ELEMENTS_MAX:
            raise MalformedConfiguration(f"more than {DEPTH_MAX} levels or {ELEMENTS_MAX} elements")
        if role is _Role.COMPONENT:
            self._open_component(attrs.get("pid", ""))
        elif role is _Role.PROPERTIES:
            self._properties = {}
        elif role is _Role.PROPERTY:
            self._attributes, self._values = dict(attrs.items()), []
        elif role is _Role.VALUE:
            self._text = []
        self._path.append(role)

    def characters(self, content: str) -> None:
        if _Role.VALUE in self._path:
            self._text.append(content)

    def endElement(self, name: str) -> None:  # noqa: N802 - the name that SAX calls
        role = self._path.pop()
        if role is _Role.VALUE:
            self._values.append("".join(self._text))
        elif role is _Role.PROPERTY:
            self._close_property()
        elif role is _Role.COMPONENT:
            self.components.append(Component(self._pid, self._properties))

    def _open_component(self, pid: str) -> None:
        if _Role.COMPONENT in self._path:
            raise MalformedConfiguration("a component stands inside a component")
        if pid in self._pids:
            raise MalformedConfiguration("a component occurs twice")
        if len(self._pids) == COMPONENTS_MAX:
            raise MalformedConfiguration(f"more than {COMPONENTS_MAX} components")
        self._pids.add(pid)
        self._pid, self._properties = pid, {}

    def _close_property(self) -> None:
        try:
            kind = PropertyType(self._attributes.get("type", ""))
        except ValueError:
            return
        name = self._attributes.get("name", "")
        if name in self._properties:
            raise MalformedConfiguration(f"{self._pid!r}: a property occurs twice")
        is_encrypted = _is_true(self._attributes.get("encrypted", ""))
        try:
            values = [_parsed(kind, text, is_encrypted) for text in self._values]
        except MalformedConfiguration as refused:
            raise MalformedConfiguration(f"{self._pid!r}: {name!r}: {refused}") from None
        if _is_true(self._attributes.get("array", "")):
            self._properties[name] = Typed(kind, values)  # type: ignore[arg-type]  # one type by construction
        elif values:
            self._properties[name] = Typed(kind, values[0])
        else:
            raise MalformedConfiguration(f"{self._pid!r}: {name!r}: a property without a value")


def _is_true(text: str) -> bool:
    return text.lower() == "true"


def _parsed(kind: PropertyType, text: str, is_encrypted: bool) -> Scalar:
    if kind is PropertyType.BOOLEAN:
        return _is_true(text)
    if kind is PropertyType.PASSWORD:
        return Secret(_from_base64(text) if is_encrypted else text)
    if kind is PropertyType.CHAR:
        return checked(kind, text[:1])
    if kind is PropertyType.STRING:
        return text
    # Java ignores blanks around a floating point number, but not around an integer.
    pattern, number = (_INTEGER, text) if kind in INTEGER_BITS else (_DECIMAL, text.strip())
    if not pattern.fullmatch(number):
        raise MalformedConfiguration(f"text of {len(text)} characters is no {kind.value}")
    return checked(kind, int(number) if kind in INTEGER_BITS else float(number))


def _from_base64(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:  # binascii.Error and UnicodeDecodeError are both
        raise MalformedConfiguration("an encrypted password is not base64 of UTF-8 text") from None
