"""A gateway as a test drives it: one blocking connection and Kura payloads, without a simulator's good manners."""

import gzip
from types import TracebackType
from typing import Self

from broker.packets import V311, Publish, Version
from provisioner.dialects.kura_payload import KuraPayload, MetricValue, decode, encode, metric
from tests.support.device import Address, Credentials, Wire


class EsfGateway:
    """Connected and subscribed to everything below its own topic."""

    def __init__(self, gate: Address, credentials: Credentials, version: Version = V311) -> None:
        self.credentials = credentials
        self.base = f"$EDC/provision/{credentials.client_id}"
        self.wire = Wire(gate, version)
        code = self.wire.connect(credentials.client_id, credentials.username, credentials.password)
        if code != 0:
            self.wire.close()
            raise ConnectionRefusedError(f"CONNACK {code}")
        assert self.wire.subscribe(f"{self.base}/#") == (1,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.wire.close()

    def question(self, message_id: str = "m-1") -> bytes:
        """A PROV message, with the activation key if there is one."""
        metrics: list[tuple[str, MetricValue]] = [
            ("request.id", message_id), ("requester.client.id", self.credentials.client_id), ("prov.version", 1),
        ]  # fmt: skip
        if self.credentials.activation_key is not None:
            metrics.append(("activation.key", self.credentials.activation_key))
        return encode(KuraPayload(metrics=tuple(metric(*each) for each in metrics)))

    def ask(self, payload: bytes) -> KuraPayload:
        """Publish this as a PROV message and return the reply to it; fails when none comes."""
        self.wire.publish(f"{self.base}/MQTT/PROV", payload)
        return decode(self.message("PROV-V1").payload)

    def configuration(self) -> bytes:
        """The XML of the configuration that comes after a grant."""
        body = decode(self.message("CONF-V1").payload).body
        assert body is not None
        return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body

    def message(self, app: str) -> Publish:
        """The next message to that app; others are passed over."""
        while (message := self.wire.message()) is not None:
            if message.topic.startswith(f"{self.base}/{app}/"):
                return message
        raise AssertionError(f"nothing came for {app}")
