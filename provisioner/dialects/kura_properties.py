"""The properties of a gateway's components: plain Python values and the Kura types that follow from them.

    str String | bool Boolean | int Integer, outside 32 bits Long | float Double | Secret Password
    list or tuple of one of these: array | None: not sent, the gateway keeps what it runs with

`Typed` states the type where Python cannot (Byte, Short, Char, Float, a small Long). Numbers are finite.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NoReturn

from provisioner.model.secret import Secret

# XML 1.0, production [2] Char: everything else cannot be written, not even as a reference.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class MalformedConfiguration(ValueError):
    """No configuration XML, or values that it cannot carry. Names component, property and rule, never a value."""


class PropertyType(StrEnum):
    """The ten types a property can have, as they are written in XML."""

    STRING = "String"
    LONG = "Long"
    DOUBLE = "Double"
    FLOAT = "Float"
    INTEGER = "Integer"
    BYTE = "Byte"
    CHAR = "Char"
    BOOLEAN = "Boolean"
    SHORT = "Short"
    PASSWORD = "Password"


Scalar = str | bool | int | float | Secret
Plain = Scalar | Sequence[str] | Sequence[bool] | Sequence[int] | Sequence[float] | Sequence[Secret]

INTEGER_BITS = {PropertyType.BYTE: 8, PropertyType.SHORT: 16, PropertyType.INTEGER: 32, PropertyType.LONG: 64}
_KIND_OF: dict[type, PropertyType] = {
    str: PropertyType.STRING, bool: PropertyType.BOOLEAN, float: PropertyType.DOUBLE, Secret: PropertyType.PASSWORD,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Typed:
    """A value whose Kura type is stated. Lists become tuples, a Float is rounded to 32 bits, a password is wrapped."""

    kind: PropertyType
    value: Plain = field(repr=False)

    def __post_init__(self) -> None:
        kept = tuple(checked(self.kind, item) for item in items(self.value))
        # An array stays an array, also with no item or one.
        object.__setattr__(self, "value", kept if is_array(self.value) else kept[0])


Value = Plain | Typed | None


@dataclass(frozen=True, slots=True)
class Component:
    """The properties of one pid. Values that cannot be sent are refused here, with the property named."""

    pid: str
    properties: Mapping[str, Value] = field(repr=False)

    def __post_init__(self) -> None:
        _check_text(self.pid, "a component pid")
        if not self.pid:
            raise MalformedConfiguration("a component has no pid")
        kept = {name: self._kept(name, value) for name, value in self.properties.items()}
        object.__setattr__(self, "properties", MappingProxyType(kept))

    def _kept(self, name: str, value: Value) -> Value:
        _check_text(name, f"a property name of {self.pid!r}")
        if not name:
            raise MalformedConfiguration(f"{self.pid!r}: a property has no name")
        try:
            stated = None if value is None else typed(value)
        except MalformedConfiguration as refused:
            raise MalformedConfiguration(f"{self.pid!r}: {name!r}: {refused}") from None
        # Plain wherever the type follows from the value, so that reading gives back what was written.
        return stated.value if stated and _inferred(stated.value) is stated.kind else stated

    def plain(self) -> dict[str, object]:
        """Every property without its type: scalars, lists, Secret, None."""
        return {name: plain(value) for name, value in self.properties.items()}


def typed(value: Plain | Typed) -> Typed:
    """The value with the Kura type that it will be sent as."""
    return value if isinstance(value, Typed) else Typed(_inferred(value), value)


def plain(value: Value) -> object:
    """The bare value; an array as a list."""
    bare = value.value if isinstance(value, Typed) else value
    return list(items(bare)) if bare is not None and is_array(bare) else bare


def is_array(value: Plain) -> bool:
    return isinstance(value, list | tuple)


def items(value: Plain) -> Sequence[Scalar]:
    """The elements of an array, or the one scalar."""
    return value if isinstance(value, list | tuple) else (value,)


def _inferred(value: Plain) -> PropertyType:
    types = {type(item) for item in items(value)}
    if not types:
        return PropertyType.STRING
    if types == {int}:
        fits = all(_in_bits(item, 32) for item in items(value))
        return PropertyType.INTEGER if fits else PropertyType.LONG
    if len(types) > 1:
        raise MalformedConfiguration("a list must hold values of one type")
    (only,) = types
    if only not in _KIND_OF:
        raise MalformedConfiguration(f"a {only.__name__} is no property value")
    return _KIND_OF[only]


def _in_bits(value: object, bits: int) -> bool:
    return type(value) is int and -(1 << bits - 1) <= value < 1 << bits - 1


def _check_text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise MalformedConfiguration(f"{what} is a {type(value).__name__}, text was expected")
    if _NOT_XML.search(value):
        raise MalformedConfiguration(f"{what} holds a character that XML cannot carry")
    return value


def checked(kind: PropertyType, value: object) -> Scalar:
    """The value as it will come back from a gateway, or MalformedConfiguration."""
    if kind is PropertyType.STRING:
        return _check_text(value, "a String")
    if kind is PropertyType.PASSWORD:
        secret = value if isinstance(value, Secret) else Secret(_check_text(value, "a Password"))
        _check_text(secret.reveal(), "a Password")
        return secret
    if kind is PropertyType.CHAR:
        letter = _check_text(value, "a Char")
        # A gateway's Char is one UTF-16 unit.
        return letter if len(letter) == 1 and letter <= "\uffff" else _misfit(kind, value)
    if kind is PropertyType.BOOLEAN:
        return value if isinstance(value, bool) else _misfit(kind, value)
    if kind in INTEGER_BITS:
        return value if type(value) is int and _in_bits(value, INTEGER_BITS[kind]) else _misfit(kind, value)
    return _checked_float(kind, value)


def _checked_float(kind: PropertyType, value: object) -> float:
    if type(value) not in (int, float):
        _misfit(kind, value)
    try:
        number = float(value)  # type: ignore[arg-type]  # int or float, see above
        rounded: float = struct.unpack("<f", struct.pack("<f", number))[0] if kind is PropertyType.FLOAT else number
    except OverflowError:
        _misfit(kind, value)
    return rounded if math.isfinite(rounded) else _misfit(kind, value)


def _misfit(kind: PropertyType, value: object) -> NoReturn:
    raise MalformedConfiguration(f"a {type(value).__name__} does not fit type {kind.value}")
