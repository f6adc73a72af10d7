"""The Kura payload codec against hostile input (F-37, F-38): broken bytes, floods, gzip bombs, mutations."""

import gzip
import random
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.dialects.kura_payload import (
    EXTENSIONS_MAX,
    INFLATED_BYTES_MAX,
    METRICS_MAX,
    KuraPayload,
    MalformedPayload,
    decode,
    encode,
    metric,
)
from tests.rules.kura_oracle import random_payload

REFUSED = {
    "a number cut short": ("08 80", "cut short"),
    "a number of eleven bytes": ("08 ffffffffffffffffffff01", "longer than 10"),
    "a number above 64 bits": ("08 ffffffffffffffffff02", "64 bits"),
    "field number 0": ("00 00", "out of range"),
    "a field number above 29 bits": ("f8ffffff1f 00", "out of range"),
    "a group": ("1b 1c", "wire type 3"),
    "wire type 7": ("0f", "wire type 7"),
    "a metric longer than the payload": ("c2b802 7f 0a01 62", "past the end"),
    "a name longer than its metric": ("c2b802 07 0a7f 62 1004 3801", "past the end"),
    "a length of 2**63": ("c2b802 ffffffffffffffff7f", "past the end"),
    "a double cut short": ("c2b802 08 0a01 64 1000 19 00", "past the end"),
    "a metric without a name": ("c2b802 04 1004 3801", "lacks its name"),
    "a metric without a type": ("c2b802 05 0a01 62 3801", "lacks its name or type"),
    "a metric without a value": ("c2b802 05 0a01 62 1004", "exactly that value"),
    "a metric of unknown type": ("c2b802 07 0a01 62 1007 3801", "unknown type"),
    "a metric of negative type": ("c2b802 10 0a01 62 10 ffffffffffffffffff01 3801", "unknown type"),
    "a STRING that carries a bool": ("c2b802 07 0a01 62 1005 3801", "exactly that value"),
    "a BOOL that carries a bool and a string": ("c2b802 0a 0a01 62 1004 3801 4201 61", "exactly that value"),
    "a value of the wrong wire type": ("c2b802 08 0a01 62 1004 3a01 61", "varint was expected"),
    "a metric with two names": ("c2b802 0a 0a01 62 0a01 63 1004 3801", "twice in a metric"),
    "an unknown field in a metric": ("c2b802 09 0a01 62 1004 3801 5001", "not part of a metric"),
    "a name that is not UTF-8": ("c2b802 07 0a01 ff 1004 3801", "not UTF-8"),
    "a position without longitude": ("12 09 09 0000000000002440", "lacks its latitude or longitude"),
    "a position field of the wrong wire type": (
        "12 14 09 0000000000002440 11 00000000000034c0 1a00",
        "field 3 has wire type 2",
    ),
    "a metric that is a number": ("c0b802 01", "field 5000 has wire type 0"),
    "two timestamps": ("08 01 08 02", "twice in a payload"),
    "two bodies": ("cab802 00 cab802 00", "twice in a payload"),
    "field 5002": ("d0b802 01", "field 5002 is not part"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bytes_that_break_a_rule_are_refused(name: str) -> None:
    """Each broken message is refused as MalformedPayload with a short reason (F-38)."""
    data, reason = REFUSED[name]
    with pytest.raises(MalformedPayload, match=reason) as refused:
        decode(bytes.fromhex(data.replace(" ", "")))
    assert 0 < len(str(refused.value)) <= 100


def test_a_reason_never_quotes_the_payload() -> None:
    """Neither an exception nor a repr shows the values of a message."""
    key = "activation-key-of-32-characters!"
    broken = encode(KuraPayload(metrics=(metric("activation.key", key),))) + b"\x08\x80"
    with pytest.raises(MalformedPayload) as refused:
        decode(broken)
    payload = KuraPayload(metrics=(metric("activation.key", key),), body=key.encode())
    assert key not in f"{refused.value!r} {refused.value.__cause__!r} {payload!r} {payload.metrics[0]!r}"


def test_too_many_metrics_or_extensions_are_refused() -> None:
    """A flood of tiny fields is stopped by count, on the way in and on the way out."""
    one = encode(KuraPayload(metrics=(metric("b", True),)))
    assert len(decode(one * METRICS_MAX).metrics) == METRICS_MAX
    assert decode(b"\x18\x01" * EXTENSIONS_MAX).extensions == b"\x18\x01" * EXTENSIONS_MAX
    for flood in (one * (METRICS_MAX + 1), b"\x18\x01" * (EXTENSIONS_MAX + 1)):
        with pytest.raises(MalformedPayload):
            decode(flood)
    with pytest.raises(MalformedPayload):
        KuraPayload(metrics=(metric("b", True),) * (METRICS_MAX + 1))


def test_a_metric_cannot_be_smuggled_through_the_extensions() -> None:
    """Raw extensions hold fields 3..4999 only, so that what is sent is what was checked."""
    with pytest.raises(MalformedPayload):
        KuraPayload(extensions=encode(KuraPayload(metrics=(metric("b", True),))))


def test_the_shorter_form_is_sent() -> None:
    """compress sends gzip only when that is shorter, and decode tells the two by the first bytes."""
    short, long = KuraPayload(metrics=(metric("m", "x"),)), KuraPayload(body=b"x" * 500)
    assert encode(short, compress=True) == encode(short)
    packed = encode(long, compress=True)
    assert packed[:2] == b"\x1f\x8b" and len(packed) < 100
    assert decode(packed) == long and decode(encode(short, compress=True)) == short


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-1], id="cut in the trailer"),
        pytest.param(lambda data: data[:12], id="cut in the data"),
        pytest.param(lambda data: data[:2], id="magic alone"),
        pytest.param(lambda data: data + b"x", id="bytes behind"),
        pytest.param(lambda data: data[:-8] + bytes(8), id="wrong check sum"),
        pytest.param(lambda data: data[:2] + b"\x09" + data[3:], id="unknown method"),
    ],
)
def test_damaged_gzip_is_refused(damage: Any) -> None:
    """A gzip stream must be whole and alone."""
    with pytest.raises(MalformedPayload):
        decode(damage(encode(KuraPayload(body=b"x" * 500), compress=True)))


def test_the_limit_is_on_the_inflated_bytes() -> None:
    """Exactly the limit passes, one byte more does not, packed or plain (F-37)."""
    payload = KuraPayload(body=bytes(995))
    size = len(encode(payload))
    for data in (encode(payload), encode(payload, compress=True)):
        assert decode(data, inflated_bytes_max=size) == payload
        with pytest.raises(MalformedPayload):
            decode(data, inflated_bytes_max=size - 1)
    assert INFLATED_BYTES_MAX == 1024 * 1024


def test_a_gzip_bomb_of_200_mb_is_refused_quickly_and_in_little_memory() -> None:
    """194 kB that inflate to 200 MB cost no more than the limit (F-37)."""
    packer, block = zlib.compressobj(9, wbits=31), bytes(1 << 20)
    bomb = b"".join(packer.compress(block) for _ in range(200)) + packer.flush()
    assert len(bomb) < 250_000
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(MalformedPayload, match="exceeds"):
        decode(bomb)
    took_s, peak_bytes = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took_s < 0.5  # far below the second that inflating all of it takes, far above a busy machine's noise
    assert peak_bytes < 8 * INFLATED_BYTES_MAX


def test_a_flood_of_metrics_in_a_small_message_is_refused_quickly() -> None:
    """F-37: 12 kB of gzip that hold four thousand metrics, each to be read and kept, cost no more than a bomb."""
    one = encode(KuraPayload(metrics=(metric("m", "v" * 200),)))
    flood = gzip.compress(one * 4_096)
    assert len(flood) < 20_000
    began_s = time.process_time()
    with pytest.raises(MalformedPayload, match="metrics"):
        decode(flood)
    assert time.process_time() - began_s < 0.05


@given(st.binary(max_size=200))
@settings(max_examples=400, deadline=None)
def test_no_bytes_raise_anything_but_malformed_payload(data: bytes) -> None:
    """Whatever arrives is a payload or MalformedPayload, bare and behind a gzip header (F-38)."""
    for form in (data, b"\x1f\x8b" + data, gzip.compress(data)):
        try:
            assert isinstance(decode(form), KuraPayload)
        except MalformedPayload:
            continue


@given(st.integers(0, 10**6), st.data())
@settings(max_examples=300, deadline=None)
def test_mutations_of_a_real_message_are_read_or_refused(seed: int, data: st.DataObject) -> None:
    """A valid message with one byte changed or a piece cut out is read or refused, and what is read can be sent."""
    valid = bytearray(encode(random_payload(random.Random(seed))))
    if valid and data.draw(st.booleans()):
        valid[data.draw(st.integers(0, len(valid) - 1))] = data.draw(st.integers(0, 255))
    elif valid:
        start = data.draw(st.integers(0, len(valid) - 1))
        del valid[start : start + data.draw(st.integers(1, 9))]
    try:
        payload = decode(bytes(valid))
    except MalformedPayload:
        return
    assert encode(decode(encode(payload))) == encode(payload)
