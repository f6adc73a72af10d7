"""The Kura payload codec: captured messages, hand-built bytes, and protobuf as the oracle."""

import gzip
import random
from typing import Any

import pytest

from provisioner.dialects.kura_payload import (
    KuraPayload,
    KuraPosition,
    MalformedPayload,
    MetricType,
    decode,
    encode,
    metric,
)
from tests.rules.kura_captures import COUNT, captured
from tests.rules.kura_oracle import ORACLE, by_oracle, random_payload


def inflated(data: bytes) -> bytes:
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def test_every_capture_of_a_real_gateway_comes_out_byte_for_byte() -> None:
    """All 14 captured messages decode, and encode to the bytes that they were made of."""
    found = captured()
    assert len(found) == COUNT
    for name, data in found.items():
        payload = decode(data)
        assert encode(payload) == inflated(data), name
        assert payload.metrics, name


def test_captures_sent_in_gzip_are_sent_in_gzip_again() -> None:
    """A captured gzip message is again sent as gzip with the header of a gateway, and says the same."""
    packed = [data for data in captured().values() if data[:2] == b"\x1f\x8b"]
    assert len(packed) == 5
    for data in packed:
        again = encode(decode(data), compress=True)
        assert again[:10] == data[:10]
        assert gzip.decompress(again) == gzip.decompress(data)


# One message of each shape seen on the wire, written out by hand: (hex, what it says).
BY_HAND = {
    "farewell: two strings, nothing else": (
        "c2b802 13 0a0c 646973706c61795f6e616d65 1005 4201 67c2b802 0f 0a06 757074696d65 1005 4203 343032",
        KuraPayload(metrics=(metric("display_name", "g"), metric("uptime", "402"))),
    ),
    "reply: timestamp and an int32": (
        "08 959aef3a c2b802 14 0a0d 726573706f6e73652e636f6465 1003 30c801",
        KuraPayload(timestamp_ms=123456789, metrics=(metric("response.code", 200),)),
    ),
    "birth: position before metrics, an empty string": (
        "12 1b 09 0000000000002440 11 00000000000034c0 19 0000000000000840c2b802 08 0a02 6f73 1005 4200",
        KuraPayload(position=KuraPosition(10.0, -20.0, 3.0), metrics=(metric("os", ""),)),
    ),
    "request: bool false and an empty body, which is not an absent one": (
        "c2b802 07 0a01 62 1004 3800 cab802 00",
        KuraPayload(metrics=(metric("b", False),), body=b""),
    ),
    "a negative int32 takes ten bytes": (
        "c2b802 10 0a01 6e 1003 30 ffffffffffffffffff01",
        KuraPayload(metrics=(metric("n", -1),)),
    ),
    "int64, double, float and bytes": (
        "c2b802 07 0a01 6c 1002 2807"
        "c2b802 0e 0a01 64 1000 19 000000000000f83f"
        "c2b802 0a 0a01 66 1001 25 0000c03f"
        "c2b802 09 0a01 78 1006 4a02 00ff",
        KuraPayload(
            metrics=(
                metric("l", 7, MetricType.INT64),
                metric("d", 1.5),
                metric("f", 1.5, MetricType.FLOAT),
                metric("x", b"\x00\xff"),
            )
        ),
    ),
    "position with all its fields": (
        "12 3c 09 000000000000f03f 11 0000000000000040 19 0000000000000840 21 0000000000001040 29 0000000000001440"
        "31 0000000000001840 38 07 40 08 48 04",
        KuraPayload(position=KuraPosition(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7, 8, 4)),
    ),
    "extension fields 3 and 4999 stay in their place": (
        "08 01 18 05 bab802 01 61 c2b802 07 0a01 62 1004 3801",
        KuraPayload(timestamp_ms=1, metrics=(metric("b", True),), extensions=bytes.fromhex("1805bab8020161")),
    ),
    "nothing at all": ("", KuraPayload()),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_bytes_written_by_hand_decode_and_encode_exactly(name: str) -> None:
    """Each shape of the captures, built by hand, means what it should and comes out unchanged."""
    data, meant = bytes.fromhex(BY_HAND[name][0].replace(" ", "")), BY_HAND[name][1]
    assert decode(data) == meant
    assert [each.kind for each in decode(data).metrics] == [each.kind for each in meant.metrics]
    assert encode(meant) == data


def test_fields_in_another_order_are_understood() -> None:
    """Protobuf fixes no order of fields; a body before the metrics is read all the same."""
    data = bytes.fromhex("cab8020162" + "c2b802070a016210043801" + "0801")
    assert decode(data) == KuraPayload(timestamp_ms=1, metrics=(metric("b", True),), body=b"b")


def test_a_negative_int32_in_five_bytes_is_understood() -> None:
    """Some encoders cut the sign extension of an int32; the low 32 bits count, as in every protobuf parser."""
    assert decode(bytes.fromhex("c2b8020b0a016e100330ffffffff0f")).metric("n") == -1


def test_of_two_metrics_with_one_name_both_travel_and_the_last_counts() -> None:
    """Metrics are a repeated field: none is dropped on the way through, and look-up gives the last."""
    payload = KuraPayload(metrics=(metric("k", "first"), metric("k", "last")))
    assert decode(encode(payload)) == payload
    assert payload.text("k") == "last"


def test_accessors_tell_types_apart() -> None:
    """text() and integer() give None for a value of another type, a bool included."""
    payload = KuraPayload(metrics=(metric("t", "x"), metric("i", 7), metric("b", True), metric("d", 1.0)))
    assert [payload.text(name) for name in "tibdz"] == ["x", None, None, None, None]
    assert [payload.integer(name) for name in "tibdz"] == [None, 7, None, None, None]
    assert payload.metric("d") == 1.0 and payload.metric("z") is None


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (2**31 - 1, MetricType.INT32),
        (2**31, MetricType.INT64),
        (-(2**31) - 1, MetricType.INT64),
        (True, MetricType.BOOL),
        (0.5, MetricType.DOUBLE),
        ("s", MetricType.STRING),
        (b"b", MetricType.BYTES),
    ],
)
def test_the_type_follows_from_the_python_value(value: Any, kind: MetricType) -> None:
    """An int is INT32 while it fits; bool is never taken for a number."""
    built = metric("m", value)
    assert built.kind is kind
    assert decode(encode(KuraPayload(metrics=(built,)))).metrics == (built,)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (MetricType.INT32, 2**31),
        (MetricType.INT64, 2**63),
        (MetricType.INT32, True),
        (MetricType.BOOL, 1),
        (MetricType.FLOAT, 1e39),
        (MetricType.DOUBLE, 10**400),
        (MetricType.STRING, b"x"),
        (MetricType.STRING, "\ud800"),
        (MetricType.BYTES, "x"),
    ],
)
def test_a_value_that_does_not_fit_its_type_cannot_be_built(kind: MetricType, value: Any) -> None:
    """A metric that exists can be sent."""
    with pytest.raises(MalformedPayload):
        metric("m", value, kind)


def test_3000_random_payloads_agree_with_protobuf() -> None:
    """Both encoders give the same bytes, and each decodes what the other wrote."""
    chance = random.Random(5000)
    for _ in range(3000):
        payload = random_payload(chance)
        theirs = by_oracle(payload)
        data = theirs.SerializeToString(deterministic=True)
        assert encode(payload) == data
        assert decode(data) == payload
        assert ORACLE.FromString(encode(payload, compress=False)) == theirs
