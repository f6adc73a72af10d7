"""Nouns to JSON-able rows and back, driven by the dataclasses themselves, so that no field is listed twice."""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
Row = dict[str, Any]
_HINTS: dict[type, dict[str, Any]] = {}  # one entry a noun class, so bounded by the code itself


def dump(noun: object) -> Row:
    """A row of plain JSON values; datetimes become RFC 3339 text, enums their value."""
    return {name: _plain(getattr(noun, name)) for name in _hints(type(noun))}


def load(noun: type[T], row: Mapping[str, Any]) -> T:
    """The noun that ``dump`` made the row from. Unknown keys raise TypeError; absent ones take the default."""
    hints = _hints(noun)
    unknown = row.keys() - hints.keys()
    if unknown:
        raise TypeError(f"{noun.__name__} has no field {sorted(unknown)[0]!r}")
    return noun(**{name: _typed(hints[name], value) for name, value in row.items()})


def _hints(noun: type) -> dict[str, Any]:
    """Field name -> resolved type, in order."""
    known = _HINTS.get(noun)
    if known is None:
        if not is_dataclass(noun):
            raise TypeError("only dataclasses are records")
        hints = get_type_hints(noun)
        known = _HINTS[noun] = {f.name: hints[f.name] for f in fields(noun)}
    return known


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return dump(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _typed(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _typed(next(a for a in get_args(hint) if a is not type(None)), value)
    if origin is tuple:
        return tuple(_typed(get_args(hint)[0], item) for item in value)
    if isinstance(hint, type):
        if issubclass(hint, StrEnum):
            return hint(value)
        if hint is datetime:
            return datetime.fromisoformat(value)
        if is_dataclass(hint):
            return load(hint, value)
    return value
