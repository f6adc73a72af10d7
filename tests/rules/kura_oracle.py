"""Protobuf itself as the oracle of the Kura codec: the schema built at run time, and random payloads in both forms."""

import random
import struct
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from provisioner.dialects.kura_payload import KuraPayload, KuraPosition, Metric, MetricType

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
