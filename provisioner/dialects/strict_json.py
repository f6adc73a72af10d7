"""JSON from strangers: bounded depth, no duplicate keys, no NaN or infinity, numbers that fit (F-37)."""

import json
import math
import re
from typing import Any

from provisioner.dialects.limits import JSON_DEPTH_MAX, PAYLOAD_BYTES_MAX

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class NotStrictJson(ValueError):
    """The text breaks a rule; the message names the rule and shows nothing of the text."""


def loads(data: bytes, *, bytes_max: int = PAYLOAD_BYTES_MAX, depth_max: int = JSON_DEPTH_MAX) -> Any:
    """The value of UTF-8 JSON ``data``. Raises NotStrictJson, and nothing else, whatever the bytes."""
    if len(data) > bytes_max:
        raise NotStrictJson(f"must be at most {bytes_max} bytes")
    # The parser recurses, so the depth is bounded before it runs.
    if _bracket_depth(data) > depth_max:
        raise NotStrictJson(f"must be at most {depth_max} levels deep")
    try:
        text = data.decode("utf-8")
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)
    except NotStrictJson:
        raise
    except UnicodeDecodeError:
        raise NotStrictJson("must be UTF-8") from None
    except ValueError:
        # Also a number of more digits than the interpreter converts.
        raise NotStrictJson("must be JSON") from None


def _bracket_depth(data: bytes) -> int:
    """How deep the brackets outside of strings nest; exact for valid JSON."""
    if data.count(b"[") + data.count(b"{") <= 1:
        return 1
    bare = _STRING.sub(b"", data)
    depth = deepest = 0
    for bracket in _BRACKET.findall(bare):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise NotStrictJson("must not repeat a key")
    return value


def _no_constant(_: str) -> Any:
    raise NotStrictJson("must not hold NaN or an infinity")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotStrictJson("must not hold a number too large for a double")
    return number
