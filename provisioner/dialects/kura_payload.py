"""The payload of every Kura message: protobuf (proto2, package `kuradatatypes`), by choice of the sender in gzip.

    KuraPayload  : timestamp int64=1 | position=2 | extensions 3..4999 | metric repeated=5000 | body bytes=5001
    KuraMetric   : name string=1 | type enum=2 | value in field 3 + type
    KuraPosition : latitude=1 longitude=2 altitude=3 precision=4 heading=5 speed=6 double,
                   timestamp int64=7, satellites int32=8, status int32=9

What this codec decides where the schema leaves room:

* `encode(decode(data))` is `data` for whatever a protobuf library writes: order of the metrics, an empty body and
  equal metric names are kept. Fields in another order are understood and come out in the order above.
* Extension fields 3..4999 (at most EXTENSIONS_MAX) are kept unread and come out between position and metrics.
  Any other unknown field is refused, also inside a metric or a position; so is a second copy of a single field.
* A metric needs its name, its type and exactly the value field of that type.
* gzip is told by its first two bytes alone, never by what a device says that it accepts.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from provisioner.dialects import kura_wire as wire
from provisioner.dialects.kura_wire import MalformedPayload, WireField

__all__ = [
    "EXTENSIONS_MAX", "INFLATED_BYTES_MAX", "METRICS_MAX", "KuraPayload", "KuraPosition", "MalformedPayload",
    "Metric", "MetricType", "MetricValue", "decode", "encode", "metric",
]  # fmt: skip

INFLATED_BYTES_MAX = 1 << 20
METRICS_MAX = 512  # a BIRTH has some thirty; each costs 40 us on the loop that serves everybody
EXTENSIONS_MAX = 64

_VALUE_FIELD_OFFSET = 3
_GZIP_MAGIC = b"\x1f\x8b"
# Deflate, no flags, no time, as a gateway's own gzip header has it: equal messages give equal bytes.
_GZIP_HEADER = _GZIP_MAGIC + b"\x08" + bytes(7)


class MetricType(IntEnum):
    """The wire numbers of KuraMetric.type."""

    DOUBLE = 0
    FLOAT = 1
    INT64 = 2
    INT32 = 3
    BOOL = 4
    STRING = 5
    BYTES = 6


MetricValue = float | int | bool | str | bytes


def _fits_int(value: object, bits: int) -> bool:
    return type(value) is int and -(1 << bits - 1) <= value < 1 << bits - 1


def _fits_text(value: object) -> bool:
    """Lone surrogates have no UTF-8."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _fits_single(value: object) -> bool:
    if type(value) is not float:
        return False
    try:
        struct.pack("<f", value)
    except OverflowError:
        return False
    return True


_FITS: dict[MetricType, Callable[[object], bool]] = {
    MetricType.DOUBLE: lambda value: type(value) is float,
    MetricType.FLOAT: _fits_single,
    MetricType.INT64: lambda value: _fits_int(value, 64),
    MetricType.INT32: lambda value: _fits_int(value, 32),
    MetricType.BOOL: lambda value: type(value) is bool,
    MetricType.STRING: _fits_text,
    MetricType.BYTES: lambda value: type(value) is bytes,
}


@dataclass(frozen=True, slots=True)
class Metric:
    """One named, typed value; a FLOAT is rounded to the 32 bits that travel. The value stays out of the repr."""

    name: str
    kind: MetricType
    value: MetricValue = field(repr=False)

    def __post_init__(self) -> None:
        if not _fits_text(self.name):
            raise MalformedPayload("a metric name is not text")
        if not _FITS[self.kind](self.value):
            raise MalformedPayload(f"a {type(self.value).__name__} does not fit a metric of type {self.kind.name}")
        if self.kind is MetricType.FLOAT:
            rounded = struct.unpack("<f", struct.pack("<f", self.value))[0]
            object.__setattr__(self, "value", rounded)


def metric(name: str, value: MetricValue, kind: MetricType | None = None) -> Metric:
    """A metric typed by its Python value (an int is INT32 when it fits, else INT64; a float is DOUBLE) or by `kind`."""
    if kind is None:
        kind = _inferred(value)
    if kind in (MetricType.DOUBLE, MetricType.FLOAT) and type(value) is int:
        value = _as_float(value)
    return Metric(name, kind, value)


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise MalformedPayload("an int exceeds every floating point type") from None


def _inferred(value: MetricValue) -> MetricType:
    if type(value) is int:
        return MetricType.INT32 if _fits_int(value, 32) else MetricType.INT64
    by_type: dict[type, MetricType] = {
        bool: MetricType.BOOL, float: MetricType.DOUBLE, str: MetricType.STRING, bytes: MetricType.BYTES,
    }  # fmt: skip
    if type(value) not in by_type:
        raise MalformedPayload(f"a {type(value).__name__} is no metric value")
    return by_type[type(value)]


@dataclass(frozen=True, slots=True)
class KuraPosition:
    """Degrees, metres, metres per second; `timestamp_ms` since 1970; status 1 no response, 2 error, 4 valid."""

    latitude: float
    longitude: float
    altitude: float | None = None
    precision: float | None = None
    heading: float | None = None
    speed: float | None = None
    timestamp_ms: int | None = None
    satellites: int | None = None
    status: int | None = None

    def __post_init__(self) -> None:
        for name, (_, kind) in _POSITION.items():
            value = getattr(self, name)
            optional = name not in ("latitude", "longitude")
            if not (optional and value is None) and not _FITS[kind](value):
                raise MalformedPayload(f"position {name} is no {kind.name}")


_POSITION: dict[str, tuple[int, MetricType]] = {
    "latitude": (1, MetricType.DOUBLE),
    "longitude": (2, MetricType.DOUBLE),
    "altitude": (3, MetricType.DOUBLE),
    "precision": (4, MetricType.DOUBLE),
    "heading": (5, MetricType.DOUBLE),
    "speed": (6, MetricType.DOUBLE),
    "timestamp_ms": (7, MetricType.INT64),
    "satellites": (8, MetricType.INT32),
    "status": (9, MetricType.INT32),
}


@dataclass(frozen=True, slots=True)
class KuraPayload:
    """One message. `body` None and b"" are two things on the wire; `extensions` are raw fields 3..4999."""

    timestamp_ms: int | None = None
    position: KuraPosition | None = None
    metrics: tuple[Metric, ...] = ()
    body: bytes | None = field(default=None, repr=False)
    extensions: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if self.timestamp_ms is not None and not _fits_int(self.timestamp_ms, 64):
            raise MalformedPayload("timestamp is no INT64")
        if len(self.metrics) > METRICS_MAX:
            raise MalformedPayload(f"more than {METRICS_MAX} metrics")
        if any(not 3 <= each.number <= 4999 for each in wire.fields(self.extensions)):
            raise MalformedPayload("an extension field is outside 3..4999")

    def metric(self, name: str) -> MetricValue | None:
        """The value of that name, None when it is absent. Of several with one name the last one counts."""
        return next((each.value for each in reversed(self.metrics) if each.name == name), None)

    def text(self, name: str) -> str | None:
        """The value when it is a STRING, else None."""
        value = self.metric(name)
        return value if isinstance(value, str) else None

    def integer(self, name: str) -> int | None:
        """The value when it is an INT32 or an INT64, else None."""
        value = self.metric(name)
        return value if type(value) is int else None


_READERS: dict[MetricType, Callable[[WireField], MetricValue]] = {
    MetricType.DOUBLE: wire.double,
    MetricType.FLOAT: wire.single,
    MetricType.INT64: wire.signed64,
    MetricType.INT32: wire.signed32,
    MetricType.BOOL: wire.flag,
    MetricType.STRING: wire.text,
    MetricType.BYTES: wire.octets,
}


def _write_value(number: int, value: MetricValue, *, is_single: bool = False) -> bytes:
    if isinstance(value, str):
        return wire.write_text(number, value)
    if isinstance(value, bytes):
        return wire.write_octets(number, value)
    if isinstance(value, float):
        return wire.write_single(number, value) if is_single else wire.write_double(number, value)
    return wire.write_varint(number, int(value))


def decode(data: bytes, *, inflated_bytes_max: int = INFLATED_BYTES_MAX) -> KuraPayload:
    """Raises MalformedPayload, and nothing else, on bytes that are no payload or exceed `inflated_bytes_max`."""
    return _payload(_inflate(data, inflated_bytes_max))


def encode(payload: KuraPayload, *, compress: bool = False) -> bytes:
    """The bytes to send; with `compress` in gzip when that is shorter."""
    parts = [] if payload.timestamp_ms is None else [wire.write_varint(1, payload.timestamp_ms)]
    if payload.position is not None:
        parts.append(wire.write_octets(2, _write_position(payload.position)))
    parts.append(payload.extensions)
    parts += (wire.write_octets(5000, _write_metric(each)) for each in payload.metrics)
    if payload.body is not None:
        parts.append(wire.write_octets(5001, payload.body))
    plain = b"".join(parts)
    return min(plain, _deflate(plain), key=len) if compress else plain


def _inflate(data: bytes, bytes_max: int) -> bytes:
    """Stops at the limit while inflating: a bomb costs `bytes_max` of memory, not its inflated size."""
    if data[:2] == _GZIP_MAGIC:
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            plain = stream.decompress(data, bytes_max + 1)
        except zlib.error:
            raise MalformedPayload("broken gzip") from None
        if len(plain) <= bytes_max and not stream.eof:
            raise MalformedPayload("gzip is cut short")
        if stream.unused_data:
            raise MalformedPayload("bytes behind the gzip stream")
        data = plain
    if len(data) > bytes_max:
        raise MalformedPayload(f"payload exceeds {bytes_max} bytes")
    return data


def _deflate(plain: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = deflater.compress(plain) + deflater.flush()
    return _GZIP_HEADER + packed + struct.pack("<II", zlib.crc32(plain), len(plain) & 0xFFFF_FFFF)


def _payload(data: bytes) -> KuraPayload:
    once: dict[int, WireField] = {}
    metrics: list[Metric] = []
    extensions: list[bytes] = []
    for each in wire.fields(data):
        if each.number == 5000:
            if len(metrics) == METRICS_MAX:
                raise MalformedPayload(f"more than {METRICS_MAX} metrics")
            metrics.append(_read_metric(wire.octets(each)))
        elif 3 <= each.number <= 4999:
            if len(extensions) == EXTENSIONS_MAX:
                raise MalformedPayload(f"more than {EXTENSIONS_MAX} extension fields")
            extensions.append(data[each.start : each.end])
        else:
            _put_once(once, each, (1, 2, 5001), "payload")
    return KuraPayload(
        timestamp_ms=wire.signed64(once[1]) if 1 in once else None,
        position=_read_position(wire.octets(once[2])) if 2 in once else None,
        metrics=tuple(metrics),
        body=wire.octets(once[5001]) if 5001 in once else None,
        extensions=b"".join(extensions),
    )


def _put_once(once: dict[int, WireField], each: WireField, known: tuple[int, ...] | range, where: str) -> None:
    if each.number not in known:
        raise MalformedPayload(f"field {each.number} is not part of a {where}")
    if each.number in once:
        raise MalformedPayload(f"field {each.number} occurs twice in a {where}")
    once[each.number] = each


def _read_metric(data: bytes) -> Metric:
    once: dict[int, WireField] = {}
    for each in wire.fields(data):
        _put_once(once, each, range(1, 10), "metric")
    if 1 not in once or 2 not in once:
        raise MalformedPayload("a metric lacks its name or type")
    name, number = wire.text(once.pop(1)), wire.signed32(once.pop(2))
    if number not in _READERS:
        raise MalformedPayload("a metric has an unknown type")
    kind = MetricType(number)
    if once.keys() != {kind + _VALUE_FIELD_OFFSET}:
        raise MalformedPayload(f"a metric of type {kind.name} does not carry exactly that value")
    return Metric(name, kind, _READERS[kind](once[kind + _VALUE_FIELD_OFFSET]))


def _write_metric(each: Metric) -> bytes:
    value = _write_value(each.kind + _VALUE_FIELD_OFFSET, each.value, is_single=each.kind is MetricType.FLOAT)
    return wire.write_text(1, each.name) + wire.write_varint(2, each.kind) + value


def _read_position(data: bytes) -> KuraPosition:
    once: dict[int, WireField] = {}
    for each in wire.fields(data):
        _put_once(once, each, range(1, 10), "position")
    if 1 not in once or 2 not in once:
        raise MalformedPayload("a position lacks its latitude or longitude")
    values = {name: _READERS[kind](once[at]) for name, (at, kind) in _POSITION.items() if at in once}
    return KuraPosition(**values)  # type: ignore[arg-type]  # _POSITION pairs every name with its type


def _write_position(position: KuraPosition) -> bytes:
    values = ((number, getattr(position, name)) for name, (number, _) in _POSITION.items())
    return b"".join(_write_value(number, value) for number, value in values if value is not None)
