"""Nouns to JSON-able rows and back, driven by the dataclasses themselves, so that no field is listed twice.

What the annotations say is read once a class; a row after that costs one call a field.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
Row = dict[str, Any]
Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Shape:
    """What is known of a noun class. loads: field name -> row value to field value, None: they are the same."""

    values: Callable[[Any], tuple[Any, ...]]
    writers: tuple[Callable[[Any, Any], None], ...]
    loads: dict[str, Convert | None]


_SHAPES: dict[type, _Shape] = {}  # one entry a noun class, so bounded by the code itself


def dump(noun: object) -> Row:
    """A row of plain JSON values; datetimes become RFC 3339 text, enums their value."""
    shape = _shape(type(noun))
    return {name: _plain(value) for name, value in zip(shape.loads, shape.values(noun), strict=True)}


def load(noun: type[T], row: Mapping[str, Any]) -> T:
    """The noun that ``dump`` made the row from. Unknown keys raise TypeError; absent ones take the default."""
    loads = _shape(noun).loads
    values: Row = {}
    for name, value in row.items():
        try:
            convert = loads[name]
        except KeyError:
            raise TypeError(f"{noun.__name__} has no field {name!r}") from None
        values[name] = value if convert is None or value is None else convert(value)
    return noun(**values)


def stamped(noun: T, field: str, value: object) -> T:
    """A copy with another value in a field that no rule is about (``version``, ``seq``).

    The constructor's checks, which hold for every other field already, are not run again."""
    shape = _shape(type(noun))
    copy = object.__new__(type(noun))
    for write, kept in zip(shape.writers, shape.values(noun), strict=True):
        write(copy, kept)
    object.__setattr__(copy, field, value)
    return copy


def _shape(noun: type) -> _Shape:
    known = _SHAPES.get(noun)
    if known is None:
        if not is_dataclass(noun):
            raise TypeError("only dataclasses are records")
        hints = get_type_hints(noun)
        names = [f.name for f in fields(noun)]
        known = _SHAPES[noun] = _Shape(
            values=_all_of(names),
            writers=tuple(getattr(noun, name).__set__ for name in names),
            loads={name: _loader(hints[name]) for name in names},
        )
    return known


def _all_of(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda noun: (get(noun),)


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


def _loader(hint: Any) -> Convert | None:
    """How a row's value becomes a field of this type. None: it is one already."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _loader(next(a for a in get_args(hint) if a is not type(None)))
    if origin is tuple:
        return _tuple_loader(_loader(get_args(hint)[0]))
    if not isinstance(hint, type):
        return None
    if issubclass(hint, StrEnum):
        return hint
    if issubclass(hint, datetime):
        return hint.fromisoformat
    return (lambda row: load(hint, row)) if is_dataclass(hint) else None


def _tuple_loader(item: Convert | None) -> Convert:
    return tuple if item is None else lambda values: tuple(map(item, values))
