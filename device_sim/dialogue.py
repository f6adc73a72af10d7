"""What a kind of device adds to the common walk: its words. One dialogue belongs to one device."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from device_sim.actions import Action, Will
from device_sim.state import AccountSettings, DeviceState
from provisioner.model.messages import Status
from provisioner.model.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the factory gave the device (EC-38). metadata: what it says of itself (serial_number, model_id, ...).

    account: the provision account in an ESF topic; a json device has no use for it. provisioning: the switch that an
    installer finds on the device; while it is off, the device never goes to the gate."""

    gate_url: str
    client_id: str
    username: str
    password: Secret
    activation_key: Secret | None = None
    account: str = "provision"
    control_prefix: str = "$EDC"
    provisioning: bool = True
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """Any answer but `provisioned`."""

    status: Status
    retry_after_s: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The new configuration is here. replies go out at once; it is applied `apply_after_s` later."""

    settings: AccountSettings
    replies: tuple[Action, ...] = ()
    apply_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Part of the delivery, or a sign that it is under way; the device goes on waiting for the rest."""

    replies: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Unusable:
    """An answer that the device cannot take; detail names the field."""

    detail: str
    replies: tuple[Action, ...] = ()


Heard = Refused | Delivered | Progress | Unusable


class Dialogue(Protocol):
    """Pure. clock_ms is the time that the device believes in, milliseconds since 1970 (which it may think it is)."""

    @property
    def kind(self) -> str: ...

    def will(self, settings: AccountSettings | None) -> Will | None:
        """The Will that it carries: to the gate (None), or to the account broker of these settings."""

    def open(self, state: DeviceState, attempt: int, clock_ms: int) -> Sequence[Action]:
        """What it does on the CONNACK of the gate; contains exactly one Subscribe."""

    def ask(self, state: DeviceState, attempt: int, clock_ms: int) -> Sequence[Action]:
        """What it does on SUBACK, and again on every retry within a connection. attempt counts from 1."""

    def receive(self, state: DeviceState, topic: str, payload: bytes, clock_ms: int) -> Heard | None:
        """None: not meant for it, or an echo."""

    def leave(self, state: DeviceState, clock_ms: int) -> Sequence[Action]:
        """Its last words to the gate, once the new configuration is applied and stored."""

    def arrive(self, settings: AccountSettings, clock_ms: int) -> Sequence[Action]:
        """What it does on the CONNACK of its account broker; the first Publish is the one that counts."""
