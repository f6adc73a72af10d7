"""JSON from strangers (F-37): what passes is what ``json`` reads, and what does not is refused by a named rule."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.dialects.strict_json import NotStrictJson, loads

CALM_S = 0.5  # F-37 asks for 50 ms; a machine that others use as well is given ten times as long

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
LETTERS = st.characters(codec="utf-8")
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(LETTERS),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(LETTERS), inner),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_plain_json_is_read_as_json_reads_it(value: Any, ascii_only: bool, indent: int | None) -> None:
    """Every value of ordinary JSON comes back equal, however it was written."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert loads(text.encode()) == value


@given(st.binary(max_size=60) | st.text('[]{}",:\\ud8nul0e-. ', max_size=60).map(str.encode))
def test_whatever_the_bytes_nothing_else_is_raised(data: bytes) -> None:
    """F-38: any bytes are a value that ``json`` agrees with, or NotStrictJson."""
    try:
        value = loads(data)
    except NotStrictJson:
        return
    assert json.dumps(value) == json.dumps(json.loads(data))


@given(st.recursive(st.just([]), lambda inner: st.lists(inner, min_size=1, max_size=2) | inner.map(lambda v: {"]": v})))
def test_the_depth_is_counted_as_a_parser_counts_it(value: Any) -> None:
    """The bound that spares the parser is exact: at a value's own depth it passes, one less and it does not."""
    depth = depth_of(value)
    data = json.dumps(value).encode()
    assert loads(data, depth_max=depth) == value
    if depth > 1:
        with pytest.raises(NotStrictJson, match="levels deep"):
            loads(data, depth_max=depth - 1)


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (1 if isinstance(value, dict | list) else 0) + max(map(depth_of, inner), default=0)


def nest(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (nest(33), "32 levels"),
        (nest(10_000), "32 levels"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "32 levels"),
        (b"[" * 60_000, "32 levels"),
        (b'[["' + b'\\"' * 32_000, "JSON"),
        (b"[[" + b'"' * 60_001, "JSON"),
        (b'[["' + b"\\" * 60_001, "JSON"),
        (b'["' + b"[" * 60_000, "JSON"),
        (b"1e400", "too large for a double"),
        (b'{"a": -1e400}', "too large for a double"),
        (b'{"a": 1, "a": 1}', "repeat a key"),
        (b'{"x": {"a": 1, "\\u0061": 2}}', "repeat a key"),
        (b"NaN", "NaN or an infinity"),
        (b"[Infinity]", "NaN or an infinity"),
        (b"[-Infinity]", "NaN or an infinity"),
        (b"9223372036854775808", "64 bits"),
        (b"[-9223372036854775809]", "64 bits"),
        (b"1" * 60_000, "64 bits"),
        (b'"\\ud800"', "half a character"),
        (b'{"\\udfff": 1}', "half a character"),
        (b'"\\udc00\\ud800"', "half a character"),
        (b'"\xff"', "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'\xef\xbb\xbf"a"', "JSON"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (b"", "JSON"),
        (b" ", "JSON"),
        (b"{} {}", "JSON"),
        (b"{'a': 1}", "JSON"),
        (b'{"a": 1,}', "JSON"),
        (b"[1, 2", "JSON"),
        (b"01", "JSON"),
        (b'"a\nb"', "JSON"),
        (b"// no\n1", "JSON"),
        (b" " * 65_537, "65536 bytes"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else value,
)
def test_what_is_not_strict_is_refused_by_a_named_rule(data: bytes, rule: str) -> None:
    """F-37: depth, numbers, repeated keys, encoding and syntax, each told apart, and none of them slow."""
    began = time.perf_counter()
    with pytest.raises(NotStrictJson, match=rule):
        loads(data)
    assert time.perf_counter() - began < CALM_S


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (nest(32), json.loads(nest(32))),
        (b'"' + b"[" * 1000 + b'"', "[" * 1000),
        (b'["\\"[[[[", "\\\\"]', ['"[[[[', "\\"]),
        (b"1e308", 1e308),
        (b"-9223372036854775808", -(2**63)),
        (b"9223372036854775807", 2**63 - 1),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\\\ud800"', "\\ud800"),
        (b'{"a": {"a": 1}, "b": {"a": 1}}', {"a": {"a": 1}, "b": {"a": 1}}),
        (b'{"__proto__": 1}', {"__proto__": 1}),
        (b" " * 65_535 + b"1", 1),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_only_looks_dangerous_is_read(data: bytes, value: Any) -> None:
    """The bounds are exact, brackets in texts are text, and a name may recur in another object."""
    assert loads(data) == value


@pytest.mark.parametrize(
    "data", [b'{"password": "Canary-7f3a", "password": 1}', b'["Canary-7f3a', b'{"Canary-7f3a": NaN}']
)
def test_no_message_shows_what_was_sent(data: bytes) -> None:
    """F-39: a refusal may end in a log, with everything that is chained to it."""
    with pytest.raises(NotStrictJson) as refused:
        loads(data)
    assert "Canary" not in repr(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None or refused.value.__suppress_context__


def test_the_bounds_are_the_callers_to_change() -> None:
    """Doors with other limits use the same reader."""
    assert loads(nest(40), depth_max=40) == json.loads(nest(40))
    with pytest.raises(NotStrictJson, match="at most 3 bytes"):
        loads(b"1234", bytes_max=3)
