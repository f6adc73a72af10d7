"""Files of requests: the line of each row, what is refused before it is understood, and the guard on cells."""

import csv
import io
import json
import os
import tempfile
import threading
import time
import tracemalloc
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from provisioner.doors import row_files, rows
from provisioner.doors.cli_output import FORMULA_SIGNS, cell, csv_text, uncell
from provisioner.doors.row_files import RowFile
from provisioner.model.draft import REQUEST_FIELDS
from provisioner.model.errors import InvalidInput

Read = list[tuple[int, Any]]


def read(text: str, format: str) -> Read:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "fleet")
        file.write_bytes(text.encode())
        with RowFile(str(file), format, REQUEST_FIELDS) as found:
            return [(line, dict(row)) for line, row in found]


def refused(text: str, format: str) -> tuple[str, str]:
    """Field and rule of the one problem."""
    with pytest.raises(InvalidInput) as caught:
        read(text, format)
    (problem,) = caught.value.problems
    return problem.field, problem.rule


def test_id11_csv_rows_have_the_line_that_they_begin_on() -> None:
    """ID-11: cells of several lines and blank lines are counted as an editor counts them."""
    text = 'client_id,configuration\r\ngw1,"{\r\n}"\r\n\r\ngw2,\r\n'
    assert read(text, "csv") == [(2, {"client_id": "gw1", "configuration": "{\r\n}"}), (5, {"client_id": "gw2"})]


def test_empty_cells_are_not_given() -> None:
    """A cell without text leaves its field to the template, or to the default."""
    assert read("client_id,endpoint\ngw1,\ngw2\n", "csv") == [(2, {"client_id": "gw1"}), (3, {"client_id": "gw2"})]


BAD_CSV = (
    ("", "line 1", "must name the columns"),
    ("client_id,colour\n", "column 'colour'", "is not a field"),
    ("client_id,client_id\n", "column 'client_id'", "must be there once"),
    ("client_id\ngw1,extra\n", "line 2", "at most 1 cells"),
    ('client_id\ngw1\n"gw"2\n', "line 3", "RFC 4180"),
)


@pytest.mark.parametrize(("text", "field", "rule"), BAD_CSV)
def test_csv_that_is_none_is_refused_by_line(text: str, field: str, rule: str) -> None:
    """A header that names no field, and a row that has no place for a cell, are told before anything is made."""
    told = refused(text, "csv")
    assert told[0] == field
    assert rule in told[1]


def test_json_rows_have_their_lines() -> None:
    """Each object of a list is told by the line that it begins on, however it is laid out."""
    text = '[\n {"client_id": "gw1"},\n\n {"client_id":\n  "gw2"}, {"client_id": "gw3"}\n]\n'
    assert [(line, row["client_id"]) for line, row in read(text, "json")] == [(2, "gw1"), (4, "gw2"), (5, "gw3")]
    assert read("[]", "json") == []


def test_json_lines_have_their_lines() -> None:
    """One object a line; blank lines are passed over."""
    assert read('{"a": 1}\n\n{"a": 2}', "jsonl") == [(1, {"a": 1}), (3, {"a": 2})]


BAD_JSON = (
    ("", "line 1"),
    ("{}", "line 1"),
    ('[\n{"a": 1}\n', "line 2"),
    ('[\n{"a": 1},\n{"a": }]', "line 3"),
    ('[\n{"a": 1} {"a": 2}]', "line 2"),
    ('[\n{"a": 1, "a": 2}]', "line 2"),
    ('[\n{"a": NaN}]', "line 2"),
    ('[\n{"a": ' + "9" * 5000 + "}]", "line 2"),
    ("[\n" + "[" * 100_000, "line 2"),
    ("[\n7]", "line 2"),
    ("[{}] x", "line 1"),
)


@pytest.mark.parametrize(("text", "field"), BAD_JSON, ids=[text[:20] for text, _ in BAD_JSON])
def test_f37_json_that_two_readers_could_understand_differently(text: str, field: str) -> None:
    """F-37: duplicate keys, NaN, depth and plain nonsense are refused by line, never with another exception."""
    assert refused(text, "json")[0] == field


def test_yaml_rows_have_their_lines_and_plain_values() -> None:
    """A list of mappings; a time stays the text that was written, offset and all (F-33)."""
    text = "# fleet\n- client_id: gw1\n  expires_on: 2030-01-31T08:00:00+01:00\n\n- {client_id: gw2, max_attempts: 3}\n"
    assert read(text, "yaml") == [
        (2, {"client_id": "gw1", "expires_on": "2030-01-31T08:00:00+01:00"}),
        (5, {"client_id": "gw2", "max_attempts": 3}),
    ]


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
BAD_YAML = (
    (BOMB, "line 2", "alias"),
    ("- &r {client_id: gw1}\n- *r\n", "line 2", "alias"),
    ("- {a: 1, a: 2}", "line 1", "repeat a key"),
    ("- a: 1\n- b: {c: 1, c: 2}", "line 2", "repeat a key"),
    ("", "the file", "empty"),
    ("a: 1", "line 1", "list of objects"),
    ("- a\n", "line 1", "object of fields"),
    ("- {1: a}\n", "line 1", "object of fields"),
    ("- a: 1\n-b: 2\n", "line 2", "must be YAML"),
    ("- !!python/object/apply:os.getcwd []\n", "line 1", "plain values"),
    ("- {[a]: 1}\n", "line 1", "plain values"),
    ("- a: !!int x\n", "line 1", "plain values"),
)


@pytest.mark.parametrize(("text", "field", "rule"), BAD_YAML, ids=[text[:20] for text, _, _ in BAD_YAML])
def test_f37_yaml_is_safe_and_plain(text: str, field: str, rule: str) -> None:
    """F-37: aliases (and with them their bombs), tags, repeated keys and anything but objects are refused by line."""
    told = refused(text, "yaml")
    assert (told[0], rule in told[1]) == (field, True), told


@pytest.mark.parametrize("again", ["client_id: b", '"client_id": b', "'client_id': b"])
def test_f37_a_key_that_stands_again_in_yaml_is_told_by_its_line(again: str) -> None:
    """F-37: however it is written the second time; no reader may take one of the two."""
    assert refused(f"- client_id: a\n  username: u\n  {again}\n", "yaml") == ("line 3", "must not repeat a key")
    assert refused("- 1: a\n  0x1: b\n", "yaml") == ("line 2", "must not repeat a key")


@pytest.mark.parametrize("format", ["yaml", "json"])
def test_f37_deep_nesting_is_refused_at_once(format: str) -> None:
    """F-37: a file of brackets costs neither the stack nor the time."""
    started_s = time.monotonic()
    with pytest.raises(InvalidInput):
        read("[" * 20_000 + "]" * 20_000, format)
    assert time.monotonic() - started_s < 5


def test_file_is_bounded_before_it_is_parsed(tmp_path: Path) -> None:
    """More than the limit is refused by its size; what is no UTF-8 by its encoding; a byte order mark is taken off."""
    file = tmp_path / "fleet.csv"
    file.write_bytes(b"x" * 11)
    assert rows.read_text(str(file), 11) == "x" * 11
    for data, rule in ((b"x" * 12, "at most 11 bytes"), (b"\xff", "UTF-8")):
        file.write_bytes(data)
        with pytest.raises(InvalidInput, match=rule):
            rows.read_text(str(file), 11)
    file.write_bytes(b"\xef\xbb\xbfa")
    assert rows.read_text(str(file)) == "a"
    with pytest.raises(InvalidInput, match="No such file"):
        rows.read_text(str(tmp_path / "absent"))


LONG = {
    "csv": ("client_id,username\r\n", "gw{0},user{0}\r\n"),
    "jsonl": ("", '{{"client_id": "gw{0}", "username": "user{0}"}}\n'),
}


@pytest.mark.parametrize("form", LONG)
def test_ec41_a_long_file_is_read_row_by_row_as_often_as_one_wants(tmp_path: Path, form: str) -> None:
    """EC-41: a hundred thousand rows take no more memory than a few."""
    header, row = LONG[form]
    file = tmp_path / f"fleet.{form}"
    with file.open("w", encoding="utf-8-sig", newline="") as made:
        made.write(header)
        made.writelines(row.format(n) for n in range(100_000))
    assert file.stat().st_size > 1_500_000
    with RowFile(str(file), form, REQUEST_FIELDS) as found:
        tracemalloc.start()
        (last,) = deque(found, maxlen=1)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sum(1 for _ in found) == 100_000
    assert last == (100_000 + bool(header), {"client_id": "gw99999", "username": "user99999"})
    assert peak < 300_000


def test_a_whole_file_of_json_is_bounded_and_told_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be in memory as one piece has a limit, and its refusal names the forms that have none."""
    file = tmp_path / "fleet.json"
    file.write_text(json.dumps([{"client_id": "gw1"}]))
    monkeypatch.setattr(row_files, "FILE_BYTES_MAX", 10)
    with RowFile(str(file), "json", REQUEST_FIELDS) as found, pytest.raises(InvalidInput, match="CSV and JSON lines"):
        list(found)


@pytest.mark.parametrize(
    ("form", "data", "field", "rule"),
    [
        ("csv", b"client_id\n\xff\n", "", "UTF-8"),
        ("jsonl", b'{}\n"' + b"x" * (1 << 20) + b'"\n', "line 2", "at most 1,048,576 characters"),
        ("csv", b"client_id\n" + b"," * (1 << 20) + b"\n", "line 2", "at most 1,048,576 characters"),
    ],
    ids=["no UTF-8", "endless JSON line", "endless CSV line"],
)
def test_rows_that_nobody_may_read_are_refused_by_line(
    tmp_path: Path, form: str, data: bytes, field: str, rule: str
) -> None:
    """F-37: a line that does not end is refused at the limit, whatever stands in it."""
    file = tmp_path / "bad"
    file.write_bytes(data)
    with RowFile(str(file), form, REQUEST_FIELDS) as found, pytest.raises(InvalidInput) as caught:
        list(found)
    (problem,) = caught.value.problems
    assert problem.field == (field or str(file))
    assert rule in problem.rule


def test_what_cannot_be_read_twice_is_kept_meanwhile(tmp_path: Path) -> None:
    """A pipe is read to its end before its first row is there, and again from its beginning."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("client_id\ngw1\n",))
    writer.start()
    with RowFile(str(pipe), "csv", REQUEST_FIELDS) as found:
        assert list(found) == list(found) == [(2, {"client_id": "gw1"})]
    writer.join(5)


def test_object_file_is_json_or_yaml(tmp_path: Path) -> None:
    """A template or a configuration is one object; what is wrong in it is told with the file's name."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.yaml"
    good.write_text('{"pid": {"a": 1}}')
    assert rows.read_object(good) == {"pid": {"a": 1}}
    for path, text in ((bad, "a: *b"), (bad, "- 1"), (bad, ""), (good, "{"), (good, "[]")):
        path.write_text(text)
        with pytest.raises(InvalidInput) as caught:
            rows.read_object(path)
        assert str(path) in str(caught.value)


def test_ec41_template_lies_under_each_row() -> None:
    """EC-41: a row wins field by field; configurations are merged part by part, also from a cell of JSON."""
    template = {"account": "acme", "username": "shared", "configuration": {"pid": {"a": 1, "b": 2}, "other": {"c": 3}}}
    merged = {"pid": {"a": 1, "b": 9}, "other": {"c": 3}}
    for configuration in ({"pid": {"b": 9}}, '{"pid": {"b": 9}}'):
        row = rows.over(template, {"client_id": "gw1", "username": "own", "configuration": configuration})
        assert row == {"account": "acme", "client_id": "gw1", "username": "own", "configuration": merged}
    assert rows.over(template, {"configuration": "{not JSON"})["configuration"] == "{not JSON"
    assert rows.over({}, {"configuration": '{"p": {}}'})["configuration"] == '{"p": {}}'
    assert template["configuration"] == {"pid": {"a": 1, "b": 2}, "other": {"c": 3}}


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)


@given(st.one_of(texts, st.builds(str.__add__, st.sampled_from(FORMULA_SIGNS), texts)))
def test_f48_no_cell_is_a_formula_and_every_cell_comes_back(text: str) -> None:
    """F-48: what is exported begins with no sign that a spreadsheet runs, and imports as what it was."""
    assert not cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert uncell(cell(text)) == text


@given(st.lists(st.fixed_dictionaries({"client_id": texts, "endpoint": texts}), min_size=1, max_size=5))
def test_csv_that_is_written_is_read_as_the_same_rows(records: list[dict[str, str]]) -> None:
    """Export and import are each other's inverse, whatever stands in the cells."""
    found = read(csv_text(records), "csv")
    given_only = [{name: text for name, text in record.items() if text} for record in records]
    assert [row for _, row in found if row] == [row for row in given_only if row]


def test_password_column_is_taken_as_it_stands() -> None:
    """No guard is taken off a password: it could be one of its characters."""
    assert read("client_id,password\n'=gw,'=Secret\n", "csv") == [(2, {"client_id": "=gw", "password": "'=Secret"})]


def test_nested_values_are_json_in_a_cell() -> None:
    """Objects and lists, flags and nothing have one form each in CSV."""
    (row,) = csv.DictReader(io.StringIO(csv_text([{"a": {"b": [1]}, "c": True, "d": None, "e": -5}])))
    assert row == {"a": '{"b": [1]}', "c": "true", "d": "", "e": "-5"}
    assert json.loads(row["a"]) == {"b": [1]}
    assert yaml.safe_load(row["c"]) is True
