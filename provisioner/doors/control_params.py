"""What the verbs of the administrators' door take: each parameter's kind, checked before any service is called."""

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any

from provisioner.model.draft import Fields

PAGE_ITEMS_MAX = 1_000
PAGE_ITEMS = 100
WAIT_S_MAX = 20
SEQ_MAX = 2**53  # JSON numbers are exact up to here in every language


class Takes(Enum):
    """The kinds of parameters. ID is required text, FIELDS a required object, SEQ a row number of the audit log."""

    ID = "id"
    TEXT = "text"
    FLAG = "flag"
    FIELDS = "fields"
    ROWS = "rows"
    LIMIT = "limit"
    SEQ = "seq"
    WAIT_S = "wait_s"


class Verb:
    """``run(services, actor, **parameters)``; every parameter in ``takes`` is given, None where it was left out."""

    def __init__(self, run: Callable[..., Awaitable[Any]], **takes: Takes) -> None:
        self.run, self._takes = run, takes

    def read(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters by name. Raises InvalidInput with every problem, unknown names among them."""
        fields = Fields(params, frozenset(self._takes))
        values = {name: _READERS[kind](fields, name, params.get(name)) for name, kind in self._takes.items()}
        fields.finish()
        return values


def _object(fields: Fields, name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        fields.problem(name, "must be an object", value)
        return {}
    return value


def _rows(fields: Fields, name: str, value: Any) -> list[tuple[int, Mapping[str, Any]]]:
    """``[[line, {...}], ...]``"""
    if not isinstance(value, list) or not value or len(value) > PAGE_ITEMS_MAX:
        fields.problem(name, f"must be a list of 1 to {PAGE_ITEMS_MAX:,} rows", value)
        return []
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for index, row in enumerate(value):
        if isinstance(row, list) and len(row) == 2 and type(row[0]) is int and isinstance(row[1], dict):
            rows.append((row[0], row[1]))
        else:
            fields.problem(f"{name}[{index}]", "must be a line number and an object", row)
    return rows


_READERS: dict[Takes, Callable[[Fields, str, Any], Any]] = {
    Takes.ID: lambda fields, name, _: fields.text(name, required=True),
    Takes.TEXT: lambda fields, name, _: fields.text(name),
    Takes.FLAG: lambda fields, name, _: fields.flag(name),
    Takes.FIELDS: _object,
    Takes.ROWS: _rows,
    Takes.LIMIT: lambda fields, name, _: fields.number(name, 1, PAGE_ITEMS_MAX) or PAGE_ITEMS,
    Takes.SEQ: lambda fields, name, _: fields.number(name, 0, SEQ_MAX),
    Takes.WAIT_S: lambda fields, name, _: fields.number(name, 0, WAIT_S_MAX) or 0,
}
