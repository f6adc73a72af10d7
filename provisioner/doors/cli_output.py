"""Data on stdout in five forms. What came from devices and files cannot drive a terminal or a spreadsheet."""

import csv
import io
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any

import click

View = Mapping[str, Any]

# Cells that a spreadsheet would run (F-48), and the sign that takes that from them and is itself escaped.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "'")
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x0A}
_JSON_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


class Printer:
    """output: one of ``cli_frame.OUTPUTS``, None for what fits the place. quiet: ids only."""

    def __init__(self, output: str | None, quiet: bool = False) -> None:
        self._output = output or ("table" if sys.stdout.isatty() else "json")
        self._quiet = quiet

    @property
    def is_table(self) -> bool:
        return self._output == "table" and not self._quiet

    def one(self, view: View, id: str = "id") -> None:
        """One record; as a table it has a line for each field."""
        if self._quiet:
            click.echo(for_terminal(str(view[id])))
        elif self._output == "table":
            _table([{"field": name, "value": value} for name, value in flat(view)], ("field", "value"), head=False)
        elif self._output == "json":
            click.echo(to_json(view, indent=2))
        else:
            self.many([view], tuple(view), id)

    def many(self, views: Iterable[View], columns: Sequence[str], id: str = "id") -> int:
        """Several records, as they come where the form allows it; how many. columns: of the table alone."""
        count = 0

        def counted() -> Iterable[View]:
            nonlocal count
            for count, view in enumerate(views, 1):  # noqa: B007  the count is what is wanted
                yield view

        if self._quiet:
            for view in counted():
                if view[id] is not None:  # a row of an import that failed has none
                    click.echo(for_terminal(str(view[id])))
        elif self._output == "table":
            _table(list(counted()), columns)
        elif self._output == "jsonl":
            for view in counted():
                click.echo(to_json(view))
        elif self._output == "csv":
            write_csv(sys.stdout, counted())
        elif self._output == "yaml":
            self._whole(list(counted()))
        else:
            _list(counted())
        return count

    def live(self, views: Iterable[View], line: Callable[[View], str]) -> None:
        """Records as they happen: a line each, for people at a terminal, else JSON or what was asked for."""
        if self.is_table:
            for view in views:
                click.echo(for_terminal(line(view)))
        elif self._quiet or self._output == "csv":
            self.many(views, (), "seq")
        else:
            for view in views:
                click.echo(to_yaml([view]) if self._output == "yaml" else to_json(view), nl=self._output != "yaml")

    def _whole(self, value: Any) -> None:
        click.echo(to_yaml(value) if self._output == "yaml" else to_json(value, indent=2), nl=self._output == "json")


def to_json(value: Any, indent: int | None = None) -> str:
    # The characters stand inside of strings only, so that their escapes mean the same.
    return json.dumps(value, indent=indent, ensure_ascii=False).translate(_JSON_CONTROLS)


def _list(views: Iterable[View]) -> None:
    """What ``to_json`` with an indent of two makes of a list of them, as they come."""
    before = "["
    for view in views:
        click.echo(before + "\n" + textwrap.indent(to_json(view, indent=2), "  "), nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")


def to_yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def write_csv(file: IO[str], views: Iterable[View]) -> None:
    """Columns are those of the first record; nested values are JSON."""
    columns: list[str] = []
    for view in views:
        if not columns:
            columns = list(view)
            file.write(csv_line(columns))
        file.write(csv_line(cell(view.get(name)) for name in columns))
        file.flush()


def csv_line(cells: Iterable[str]) -> str:
    """One record, ended by a bare newline as the other forms are; cells with either part of a CRLF are quoted."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def csv_text(views: Iterable[View]) -> str:
    text = io.StringIO()
    write_csv(text, views)
    return text.getvalue()


def cell(value: Any) -> str:
    """A CSV cell that no spreadsheet runs; ``uncell`` takes the guard off again."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    guarded = isinstance(value, str) and text.startswith(FORMULA_SIGNS)
    return f"'{text}" if guarded else text


def uncell(text: str) -> str:
    """The value behind a guarded cell."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(FORMULA_SIGNS) else text


def for_terminal(text: str) -> str:
    """Control characters shown, not obeyed."""
    return text.translate(_CONTROLS)


def flat(view: View) -> Iterable[tuple[str, Any]]:
    """Fields with those of plain objects in them drawn up: ``grant.username``."""
    for name, value in view.items():
        if isinstance(value, dict) and value and not any(isinstance(v, dict | list) for v in value.values()):
            yield from ((f"{name}.{inner}", below) for inner, below in value.items())
        else:
            yield name, value


def _table(views: Sequence[View], columns: Sequence[str], head: bool = True) -> None:
    """At a terminal as wide as it is, elsewhere as wide as the data."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 100_000, highlight=False)
    table = Table(box=SIMPLE_HEAD if head else None, show_header=head, header_style="none", pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for view in views:
        table.add_row(*(Text(_shown(view.get(column))) for column in columns))
    console.print(table)


def _shown(value: Any) -> str:
    if value is None or value == {} or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return for_terminal(value if isinstance(value, str) else to_json(value)).replace("\n", "\\n")
