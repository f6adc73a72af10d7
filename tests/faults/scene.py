"""Who takes part in an attack on a running installation: every door, the spy, and devices that have moved home."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from broker.packets import V5, V311, ConnAck, Version
from tests.support.device import Address, Credentials, JsonDevice, Wire
from tests.support.installation import Installation

FreshId = Callable[[], str]

# Every listener of the gate in both versions.
WAYS: Final[list[tuple[str, Version]]] = [
    (door, version) for door in ("plain", "secure", "websocket") for version in (V311, V5)
]
NOT_AUTHORIZED: Final[Mapping[int, int]] = {V311: 5, V5: 0x87}

_numbers = itertools.count(1)


def new_source() -> str:
    """A loopback address that no other test comes from: the audit sums up by address when much is refused at once."""
    number = next(_numbers)
    return f"127.1.{number >> 8}.{number & 255}"


def door(installation: Installation, name: str, source: str = "127.0.0.1") -> Address:
    """A listener of the gate by its name, reached from that loopback address."""
    addresses = {"plain": installation.plain, "secure": installation.secure, "websocket": installation.websocket}
    return replace(addresses[name], source=source)


def raw_connect(version: Version, client_id: bytes, username: bytes | None, password: bytes | None) -> bytes:
    """A CONNECT that our own encoder would refuse to write. None leaves the field out."""
    flags = 0x02 | (username is not None) << 7 | (password is not None) << 6
    fields = [client_id, *(field for field in (username, password) if field is not None)]
    body = b"\x00\x04MQTT" + bytes((version, flags, 0, 60)) + (b"\x00" if version == V5 else b"")
    body += b"".join(len(field).to_bytes(2, "big") + field for field in fields)
    assert len(body) < 128
    return bytes((0x10, len(body))) + body


def verdict(wire: Wire) -> int | None:
    """The code of the CONNACK, or None when the peer closed without one; it has to close in either case."""
    packet = wire.next(ConnAck)
    assert wire.is_cut(), f"still open after {packet}"
    return packet.code if isinstance(packet, ConnAck) else None


def spy_on(
    installation: Installation, client_id: str, version: Version = V311, credentials: Credentials | None = None
) -> JsonDevice:
    """A device of its own right that listens on everything it may; nothing of others may reach it.

    credentials: None makes a request for it."""
    spy = installation.device(credentials or installation.request(client_id), version=version)
    assert spy.wire.subscribe(f"$EDC/provision/{client_id}/#") == (1,)
    return spy


@dataclass(frozen=True, slots=True)
class Resident:
    """A provisioned device of account acme, which lives on broker north."""

    credentials: Credentials
    answer: Mapping[str, Any]
    home: Address

    @property
    def topic(self) -> str:
        """Of its own, on its account broker."""
        return f"{self.answer['account']}/{self.answer['client_id']}"

    def connect(self) -> Wire:
        """At home, subscribed to everything of its own."""
        wire = Wire(self.home)
        assert wire.connect(self.answer["client_id"], self.answer["username"], self.answer["password"]) == 0
        assert wire.subscribe(f"{self.topic}/#", f"$EDC/{self.topic}/#") == (1, 1)
        return wire

    def heard(self, wire: Wire) -> list[tuple[str, bytes]]:
        """What ``wire`` had heard before a message that it sends to itself now: nothing overtakes on that broker."""
        return wire.heard_until_own(f"{self.topic}/end")


def resident(installation: Installation, client_id: str) -> Resident:
    credentials = installation.request(client_id)
    return Resident(
        credentials, installation.provision(credentials, broker="north"), installation.account_brokers["north"]
    )
