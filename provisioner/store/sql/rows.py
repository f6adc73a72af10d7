"""Nouns and audit rows to parameters and back: the one place that knows how a record lies in its table."""

from typing import TypeVar

import orjson

from provisioner.model import records
from provisioner.model.audit import AuditEvent
from provisioner.model.errors import InvalidInput, Problem, Unavailable
from provisioner.model.ports import Noun
from provisioner.store.schema import to_json
from provisioner.store.sql.names import INDEXES

T = TypeVar("T")
Value = str | int | None

COLUMNS = {kind: ("id", "version", "record", *indexes.names) for kind, indexes in INDEXES.items()}


def as_put(noun: Noun) -> tuple[Value, ...]:
    """The values of ``COLUMNS[noun.kind]`` that a Put of this noun leaves: one version on.

    Raises InvalidInput for what JSON cannot carry."""
    return as_kept(records.stamped(noun, "version", noun.version + 1))


def as_kept(noun: Noun) -> tuple[Value, ...]:
    """The same for a noun that is taken over as it is, its version included."""
    values = noun.unique() | noun.indexed()
    names = INDEXES[noun.kind].names
    if unknown := values.keys() - set(names):
        raise KeyError(f"{noun.kind} has an index without a column: {sorted(unknown)[0]}")
    # str() makes the plain text of an enum's member.
    indexed = (None if (value := values.get(name)) is None else str(value) for name in names)
    return (noun.id, noun.version, _text(noun), *indexed)


def as_audit(event: AuditEvent) -> str:
    """The JSON of an audit row that has its seq."""
    return _text(event)


def loaded(noun: type[T], record: bytes | str) -> T:
    """The value that ``record`` was made from. Raises Unavailable when it is none."""
    try:
        return records.load(noun, orjson.loads(record))
    except (TypeError, ValueError, AttributeError) as error:
        raise Unavailable(f"the store holds a damaged {noun.__name__} ({type(error).__name__})") from None


def _text(value: object) -> str:
    try:
        return to_json(value).decode()
    except TypeError as error:
        raise InvalidInput([Problem("unit", "must hold plain JSON values only", str(error))]) from None
