"""JSON from strangers: bounded depth, no duplicate keys, no NaN or infinity, numbers and texts that fit (F-37)."""

import json
import math
import re
from typing import Any

from provisioner.dialects.limits import JSON_DEPTH_MAX, PAYLOAD_BYTES_MAX

# The closing quote is optional, or a text without one would be scanned again from each quote that is in it.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKETS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(set(range(256)) - _BRACKETS.keys())
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_DIGITS_MAX = len(str(-(2**63)))


class NotStrictJson(ValueError):
    """The text breaks a rule; the message names the rule and shows nothing of the text."""


def loads(data: bytes, *, bytes_max: int = PAYLOAD_BYTES_MAX, depth_max: int = JSON_DEPTH_MAX) -> Any:
    """The value of UTF-8 JSON ``data``. Raises NotStrictJson, and nothing else, whatever the bytes."""
    if len(data) > bytes_max:
        raise NotStrictJson(f"must be at most {bytes_max} bytes")
    # The parser recurses, so the depth is bounded before it runs.
    if data.count(b"[") + data.count(b"{") > depth_max and _is_deeper(data, depth_max):
        raise NotStrictJson(f"must be at most {depth_max} levels deep")
    try:
        value = _READER.decode(data.decode("utf-8"))
        if _SURROGATE.search(data):
            # Escapes may spell what no UTF-8 carries; nothing behind this door could store or send it.
            json.dumps(value, ensure_ascii=False).encode()
    except NotStrictJson:
        raise
    except UnicodeDecodeError:
        raise NotStrictJson("must be UTF-8") from None
    except UnicodeEncodeError:
        raise NotStrictJson("must not hold half a character") from None
    except ValueError:
        raise NotStrictJson("must be JSON") from None
    return value


def _is_deeper(data: bytes, depth_max: int) -> bool:
    """Whether the brackets outside of strings nest deeper; exact for valid JSON."""
    depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NO_BRACKETS):
        depth += _BRACKETS[bracket]
        if depth > depth_max:
            return True
    return False


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


def _whole(text: str) -> int:
    number = int(text) if len(text) <= _DIGITS_MAX else 2**63
    if not -(2**63) <= number < 2**63:
        raise NotStrictJson("must not hold a whole number of more than 64 bits")
    return number


_READER = json.JSONDecoder(
    object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
)
