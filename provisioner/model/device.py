"""A device of the registry and its connection to the account broker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from provisioner.model.account import Coupling
from provisioner.model.errors import IllegalMove
from provisioner.model.presence import ConnectionStatus


class DeviceState(StrEnum):
    """PROVISIONED: handed over, not seen yet. CONNECTED: seen on its account broker at least once.

    DISABLED: shut out, its credentials kept. REVOKED: its credentials are gone; a new grant alone brings it back."""

    PROVISIONED = "provisioned"
    CONNECTED = "connected"
    DISABLED = "disabled"
    REVOKED = "revoked"


class DeviceMove(StrEnum):
    PROVISION = "provision"
    SEE = "see"
    DISABLE = "disable"
    ENABLE = "enable"
    REVOKE = "revoke"


MOVES: dict[tuple[DeviceState, DeviceMove], DeviceState] = {
    (DeviceState.PROVISIONED, DeviceMove.PROVISION): DeviceState.PROVISIONED,
    (DeviceState.CONNECTED, DeviceMove.PROVISION): DeviceState.PROVISIONED,
    (DeviceState.PROVISIONED, DeviceMove.SEE): DeviceState.CONNECTED,
    (DeviceState.CONNECTED, DeviceMove.SEE): DeviceState.CONNECTED,
    (DeviceState.PROVISIONED, DeviceMove.DISABLE): DeviceState.DISABLED,
    (DeviceState.CONNECTED, DeviceMove.DISABLE): DeviceState.DISABLED,
    (DeviceState.DISABLED, DeviceMove.ENABLE): DeviceState.PROVISIONED,
    (DeviceState.PROVISIONED, DeviceMove.REVOKE): DeviceState.REVOKED,
    (DeviceState.CONNECTED, DeviceMove.REVOKE): DeviceState.REVOKED,
    (DeviceState.DISABLED, DeviceMove.REVOKE): DeviceState.REVOKED,
    (DeviceState.REVOKED, DeviceMove.REVOKE): DeviceState.REVOKED,
    (DeviceState.REVOKED, DeviceMove.PROVISION): DeviceState.PROVISIONED,
}


def move(state: DeviceState, what: DeviceMove) -> DeviceState:
    """Next state, or IllegalMove."""
    try:
        return MOVES[state, what]
    except KeyError:
        raise IllegalMove(f"a {state} device cannot {what}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConnection:
    """The device's connection as the account sees it (EC-25, EC-26). ``user`` is the account username.

    status, status_at: whether it is there, and since when that is so. newest: which connection arrived last
    (``Sighting.which``)."""

    user: str
    coupling: Coupling = Coupling.INHERITED
    reserved_user: str | None = None
    last_seen_at: datetime | None = None
    address: str | None = None
    status: ConnectionStatus = ConnectionStatus.UNKNOWN
    status_at: datetime | None = None
    newest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A row of the registry (AZ-08). ``request`` is the id of the provision request that made it.

    metadata: what the device said of itself (serial_number, model_id, firmware_version, ...).
    certificate_serial, certificate_ends_at: of the newest one; None where it has none.
    """

    kind: ClassVar[str] = "device"

    id: str
    account: str
    client_id: str
    request: str
    connection: DeviceConnection
    created_at: datetime
    state: DeviceState = DeviceState.PROVISIONED
    metadata: Mapping[str, object] = field(default_factory=dict)
    certificate_serial: str | None = None
    certificate_ends_at: datetime | None = None
    version: int = 0

    def unique(self) -> dict[str, str]:
        return {"client_id": f"{self.account}/{self.client_id}", "request": self.request}

    def indexed(self) -> dict[str, str]:
        return {"account": self.account, "state": self.state, "any_client_id": self.client_id}
