"""Files that administrators bring: rows of requests as CSV, JSON or YAML, each with the line it begins on.

Bounded before it is parsed, and refused where two readers could understand it differently: duplicate keys, YAML
aliases, NaN (F-37). Raises InvalidInput only; a value is never in its text.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import IO, Any

import yaml

from provisioner.doors.cli_output import uncell
from provisioner.doors.once_yaml import OnceLoader, RepeatedKey
from provisioner.model.errors import InvalidInput, Problem

FILE_BYTES_MAX = 16 << 20
YAML_DEPTH_MAX = 64  # far above what a row may hold; the parser would take half a second to fail at its own limit
FORMATS = ("csv", "json", "jsonl", "yaml")
_SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".yaml": "yaml", ".yml": "yaml"}
_SECRET_COLUMNS = frozenset(("password",))  # taken as they stand: a guard could not be told from the password

Row = tuple[int, Mapping[str, Any]]


def format_of(name: str) -> str | None:
    """By the ending of the file's name; None when that says nothing."""
    return _SUFFIXES.get(PurePath(name).suffix.lower())


def read_text(path: str, bytes_max: int = FILE_BYTES_MAX) -> str:
    """UTF-8 text of a file, ``-`` for stdin; a byte order mark is taken off."""
    import click

    try:
        with click.open_file(path, "rb") as file:
            return text_of(file, path, bytes_max)
    except OSError as error:
        raise bad(path, f"must be a readable file: {error.strerror}") from None


def text_of(file: IO[bytes], path: str, bytes_max: int, beyond: str = "") -> str:
    """What is left of an open file. beyond: what helps who has more."""
    data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise bad(path, f"must be at most {bytes_max:,} bytes{beyond}", "more")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise bad(path, "must be UTF-8") from None


def read_object(path: Path) -> Mapping[str, Any]:
    """One object from a JSON or YAML file: a configuration, a template."""
    value = read_value(path)
    if not isinstance(value, dict):
        raise bad(str(path), "must hold an object")
    return value


def read_value(path: Path) -> Any:
    text = read_text(str(path))
    try:
        if format_of(path.name) == "json":
            value = _DECODER.decode(text)
        else:
            value = _built(_yaml_root(text)) if text.strip() else None
    except InvalidInput as error:
        raise InvalidInput(Problem(f"{path}: {p.field}", p.rule, p.shape) for p in error.problems) from None
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise bad(f"{path}{line}", "must be JSON") from None
    _check_characters(value, str(path))
    return value


def over(template: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the template's fields under it (EC-41); configurations are merged part by part."""
    merged = {**template, **row}
    below, above = template.get("configuration"), row.get("configuration")
    if isinstance(above, str) and isinstance(below, dict):
        above = _cell_object(above)
    if isinstance(below, dict) and isinstance(above, dict):
        merged["configuration"] = _deep(below, above)
    return merged


def csv_rows(lines: Iterable[str], known: Iterable[str]) -> Iterator[Row]:
    """lines: with their ends as they are in the file. known: the columns that it may have; rows of the other forms are
    judged by the service."""
    reader = csv.reader(lines, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        _check_header(names, frozenset(known))
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                yield line, _csv_row(line, names, cells)
            line = reader.line_num + 1
    except csv.Error:
        raise bad(f"line {reader.line_num}", "must be CSV as RFC 4180 has it") from None


def _check_header(names: list[str], known: frozenset[str]) -> None:
    problems = [
        Problem(f"column {name!r}", f"is not a field; known are {', '.join(sorted(known))}", "an unknown name")
        for name in names
        if name not in known
    ]
    problems += [Problem(f"column {n!r}", "must be there once", "twice") for n in set(names) if names.count(n) > 1]
    if not names:
        problems.append(Problem("line 1", "must name the columns", "an empty file"))
    if problems:
        raise InvalidInput(problems)


def _csv_row(line: int, names: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) > len(names):
        raise bad(f"line {line}", f"must have at most {len(names)} cells, one a column")
    pairs = zip(names, cells, strict=False)
    return {name: text if name in _SECRET_COLUMNS else uncell(text) for name, text in pairs if text != ""}


def json_rows(text: str) -> Iterator[Row]:
    """The items of one list, found one by one so that each has its line."""
    at = _skipped(text, 0)
    if text[at : at + 1] != "[":
        raise bad("line 1", "must be a list of objects")
    at = _skipped(text, at + 1)
    line, counted = 1, 0
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        value, at = _json_value(text, at, line)
        yield line, _object(value, line)
        at = _skipped(text, at)
        if text[at : at + 1] == ",":
            at = _skipped(text, at + 1)
        elif text[at : at + 1] != "]":
            raise bad(f"line {line}", "must be JSON")
    if _skipped(text, at + 1) != len(text):
        raise bad(f"line {line}", "must end with the list")


def json_lines(lines: Iterable[str]) -> Iterator[Row]:
    for line, part in enumerate(lines, 1):
        if part.strip():
            value, end = _json_value(part, _skipped(part, 0), line)
            if _skipped(part, end) != len(part):
                raise bad(f"line {line}", "must be one JSON object")
            yield line, _object(value, line)


def _json_value(text: str, at: int, line: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError):
            line += text.count("\n", at, error.pos)
        raise bad(f"line {line}", "must be JSON, without NaN and without a key twice") from None


def _skipped(text: str, at: int) -> int:
    """The next place that is not white space; a list that never ends stops at the end of the text."""
    while text[at : at + 1] in (" ", "\t", "\n", "\r"):
        at += 1
    return at


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key twice")
    return value


def _no_constant(_: str) -> Any:
    raise ValueError("NaN or an infinity")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


class _Loader(OnceLoader):
    """Safe, and without aliases, repeated keys and values that turn into dates by their looks."""

    _depth = 0

    def fetch_flow_collection_start(self, token_class: type[yaml.Token]) -> None:
        # The scanner runs ahead of the composer, and slows down with each bracket that is open.
        if self.flow_level >= YAML_DEPTH_MAX:
            raise bad("the file", "must not be nested so deep")
        super().fetch_flow_collection_start(token_class)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]  # the stubs lack it
            raise bad(f"line {line}", "must not use an alias (*name): write the values out")
        self._depth += 1
        if self._depth > YAML_DEPTH_MAX:
            raise bad("the file", "must not be nested so deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def yaml_rows(text: str) -> Iterator[Row]:
    root = _yaml_root(text)
    if not isinstance(root, yaml.SequenceNode):
        raise bad("line 1", "must be a list of objects")
    for node in root.value:
        line = node.start_mark.line + 1
        yield line, _object(_built(node), line)


def _yaml_root(text: str) -> yaml.Node:
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise bad(f"line {mark.line + 1}" if mark else "the file", "must be YAML") from None
    except RecursionError:
        raise bad("the file", "must not be nested so deep") from None
    if root is None:
        raise bad("the file", "must not be empty")
    return root


def _built(node: yaml.Node) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    except RepeatedKey as error:
        raise bad(f"line {error.line}", "must not repeat a key") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise bad(f"line {node.start_mark.line + 1}", "must hold plain values only") from None
    finally:
        loader.dispose()


def _object(value: Any, line: int) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise bad(f"line {line}", "must be an object of fields")
    _check_characters(value, f"line {line}")
    return value


def _check_characters(value: Any, at: str) -> None:
    """Escapes may spell half a character, which the service takes in no message: not even in one of many rows."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise bad(at, "must not hold half a character") from None
    except (TypeError, ValueError, RecursionError):
        raise bad(at, "must hold plain values only") from None


def _cell_object(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return text  # the service says what is wrong with it


def _deep(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _deep(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def bad(field: str, rule: str, shape: str = "something else") -> InvalidInput:
    return InvalidInput([Problem(field, rule, shape)])
