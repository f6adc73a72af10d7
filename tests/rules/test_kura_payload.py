"""The Kura payload codec: captured messages, hand-built bytes, protobuf as the oracle, hostile input (F-37, F-38)."""

import gzip
import os
import random
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.dialects.kura_payload import (
    EXTENSIONS_MAX,
    INFLATED_BYTES_MAX,
    METRICS_MAX,
    KuraPayload,
    KuraPosition,
    MalformedPayload,
    Metric,
    MetricType,
    decode,
    encode,
    metric,
)

CAPTURES = Path(
    os.environ.get("FLEETGATE_VECTORS", Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "kura")
)
CAPTURED = 14


def captures() -> list[Path]:
    """The captured messages of real gateways; they are not part of this repository."""
    found = sorted(CAPTURES.glob("*.mqtt"))
    if not found and "FLEETGATE_VECTORS" in os.environ:
        pytest.fail(f"FLEETGATE_VECTORS names {CAPTURES}, which holds no *.mqtt file")
    if not found:
        pytest.skip("NOT PROVED HERE: the 14 captured Kura messages are absent; set FLEETGATE_VECTORS to their folder")
    return found


def inflated(data: bytes) -> bytes:
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def test_every_capture_of_a_real_gateway_comes_out_byte_for_byte() -> None:
    """All 14 captured messages decode, and encode to the bytes that they were made of."""
    found = captures()
    assert len(found) == CAPTURED
    for path in found:
        data = path.read_bytes()
        payload = decode(data)
        assert encode(payload) == inflated(data), path.name
        assert payload.metrics, path.name


def test_captures_sent_in_gzip_are_sent_in_gzip_again() -> None:
    """A captured gzip message is again sent as gzip with the header of a gateway, and says the same."""
    packed = [data for data in (path.read_bytes() for path in captures()) if data[:2] == b"\x1f\x8b"]
    assert len(packed) == 5
    for data in packed:
        again = encode(decode(data), compress=True)
        assert again[:10] == data[:10]
        assert gzip.decompress(again) == gzip.decompress(data)


# One message of each shape seen on the wire, written out by hand: (hex, what it says).
BY_HAND = {
    "farewell: two strings, nothing else": (
        "c2b802 13 0a0c 646973706c61795f6e616d65 1005 4201 67"
        "c2b802 0f 0a06 757074696d65 1005 4203 343032",
        KuraPayload(metrics=(metric("display_name", "g"), metric("uptime", "402"))),
    ),
    "reply: timestamp and an int32": (
        "08 959aef3a c2b802 14 0a0d 726573706f6e73652e636f6465 1003 30c801",
        KuraPayload(timestamp_ms=123456789, metrics=(metric("response.code", 200),)),
    ),
    "birth: position before metrics, an empty string": (
        "12 1b 09 0000000000002440 11 00000000000034c0 19 0000000000000840"
        "c2b802 08 0a02 6f73 1005 4200",
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


# gzip


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


# The oracle: protobuf itself, with the schema built at run time.

_TYPE = descriptor_pb2.FieldDescriptorProto
METRIC_VALUES = [
    ("double_value", 3, _TYPE.TYPE_DOUBLE),
    ("float_value", 4, _TYPE.TYPE_FLOAT),
    ("long_value", 5, _TYPE.TYPE_INT64),
    ("int_value", 6, _TYPE.TYPE_INT32),
    ("bool_value", 7, _TYPE.TYPE_BOOL),
    ("string_value", 8, _TYPE.TYPE_STRING),
    ("bytes_value", 9, _TYPE.TYPE_BYTES),
]
POSITION = ["latitude", "longitude", "altitude", "precision", "heading", "speed", "timestamp", "satellites", "status"]


def oracle_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="oracle.proto", package="oracle", syntax="proto2")

    def message(name: str, fields: list[tuple[str, int, int]]) -> Any:
        built = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            built.field.add(name=field_name, number=number, type=kind, label=_TYPE.LABEL_OPTIONAL)
        return built

    message("Metric", [("name", 1, _TYPE.TYPE_STRING), ("type", 2, _TYPE.TYPE_INT32), *METRIC_VALUES])
    kinds = [_TYPE.TYPE_DOUBLE] * 6 + [_TYPE.TYPE_INT64, _TYPE.TYPE_INT32, _TYPE.TYPE_INT32]
    message("Position", list(zip(POSITION, range(1, 10), kinds, strict=True)))
    payload = message("Payload", [("timestamp", 1, _TYPE.TYPE_INT64), ("body", 5001, _TYPE.TYPE_BYTES)])
    for name, number, label in (("Position", 2, _TYPE.LABEL_OPTIONAL), ("Metric", 5000, _TYPE.LABEL_REPEATED)):
        kind = {"type": _TYPE.TYPE_MESSAGE, "type_name": f".oracle.{name}"}
        payload.field.add(name=name.lower(), number=number, label=label, **kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("oracle.Payload"))


ORACLE = oracle_class()


def by_oracle(payload: KuraPayload) -> Any:
    """The same message, built and therefore serialised by protobuf."""
    message = ORACLE()
    if payload.timestamp_ms is not None:
        message.timestamp = payload.timestamp_ms
    if payload.position is not None:
        ours = [getattr(payload.position, name if name != "timestamp" else "timestamp_ms") for name in POSITION]
        for name, value in zip(POSITION, ours, strict=True):
            if value is not None:
                setattr(message.position, name, value)
    for each in payload.metrics:
        added = message.metric.add(name=each.name, type=int(each.kind))
        setattr(added, METRIC_VALUES[each.kind][0], each.value)
    if payload.body is not None:
        message.body = payload.body
    return message


def random_value(chance: random.Random, kind: MetricType) -> Any:
    double = chance.choice([0.0, -0.0, 1.5, float("inf"), chance.uniform(-1e300, 1e300)])
    single = struct.unpack("<f", struct.pack("<f", chance.uniform(-1e30, 1e30)))[0]
    letters = "".join(chance.choices("aZ ._-/äß中😀\0\n", k=chance.randrange(12)))
    return {
        MetricType.DOUBLE: double,
        MetricType.FLOAT: chance.choice([0.0, single]),
        MetricType.INT64: chance.choice([0, 1, -1, 2**63 - 1, -(2**63), chance.getrandbits(40)]),
        MetricType.INT32: chance.choice([0, 1, -1, 127, 128, 2**31 - 1, -(2**31), chance.getrandbits(20)]),
        MetricType.BOOL: chance.random() < 0.5,
        MetricType.STRING: letters,
        MetricType.BYTES: chance.randbytes(chance.randrange(300)),
    }[kind]


def random_payload(chance: random.Random) -> KuraPayload:
    def maybe(value: Any) -> Any:
        return value if chance.random() < 0.5 else None

    position = KuraPosition(
        *(random_value(chance, MetricType.DOUBLE) for _ in range(2)),
        *(maybe(random_value(chance, MetricType.DOUBLE)) for _ in range(4)),
        maybe(random_value(chance, MetricType.INT64)),
        *(maybe(random_value(chance, MetricType.INT32)) for _ in range(2)),
    )
    kinds = chance.choices(list(MetricType), k=chance.randrange(8))
    return KuraPayload(
        timestamp_ms=maybe(random_value(chance, MetricType.INT64)),
        position=maybe(position),
        metrics=tuple(
            Metric(random_value(chance, MetricType.STRING), kind, random_value(chance, kind)) for kind in kinds
        ),
        body=maybe(random_value(chance, MetricType.BYTES)),
    )


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
