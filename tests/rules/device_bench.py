"""A device on a bench: no socket, a clock that is moved by hand."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from device_sim.actions import (
    Action,
    Connected,
    Event,
    Log,
    Message,
    Subscribed,
)
from device_sim.dialogue import Dialogue, Identity
from device_sim.gateway import Gateway
from device_sim.json_device import JsonDialogue
from device_sim.state import DeviceState
from device_sim.timing import Timeouts
from provisioner.model.secret import Secret

TIMEOUTS = Timeouts(reply_s=30, backoff_base_s=2, backoff_cap_s=60, linger_s=10, ack_s=5)
IDENTITY = Identity(
    gate_url="mqtts://gate:8883",
    client_id="meter-1",
    username="meters",
    password=Secret("Factory-pass-1"),
    activation_key=Secret("key-1"),
    metadata={"serial_number": "S-1"},
)
NEW = {
    "account": "acme",
    "broker_url": "mqtts://acme.example:8883",
    "client_id": "meter-1",
    "username": "acme-meter-1",
    "password": "New-password-1",
}
REQUEST, RESPONSE, ACK = (f"prov/v1/meter-1/{name}" for name in ("request", "response", "ack"))


@dataclass
class Bench:
    """A device on a bench: feeds events, moves the clock, collects what the device does."""

    state: DeviceState = field(default_factory=lambda: DeviceState(client_id="meter-1", request_id="ask-1"))
    timeouts: Timeouts = TIMEOUTS
    draw: Callable[[], float] = lambda: 0.5
    clock_offset_s: float = 0.0
    dialogue: Callable[[Identity], Dialogue] = JsonDialogue
    provisioning: bool = True
    now_s: float = 1000.0
    actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        identity = replace(IDENTITY, provisioning=self.provisioning)
        dialogue = self.dialogue(identity)
        self.device = Gateway(identity, self.state, dialogue, self.timeouts, self.draw, self.clock_offset_s)

    def start(self) -> list[Action]:
        return self._keep(self.device.start(self.now_s))

    def feed(self, *events: Event) -> list[Action]:
        return self._keep([action for event in events for action in self.device.receive(event, self.now_s)])

    def answer(self, status: str, **more: Any) -> list[Action]:
        body = {"request_id": "ask-1", "status": status, "server_time": "2026-01-01T00:00:00Z"} | more
        return self.feed(Message(RESPONSE, json.dumps(body).encode()))

    def sleep(self) -> list[Action]:
        """To the time that the device waits for."""
        assert self.device.due_s is not None, "the device waits for nothing"
        self.now_s = self.device.due_s
        return self._keep(self.device.tick(self.now_s))

    def to_question(self) -> None:
        self.start()
        self.feed(Connected(), Subscribed((1,)))

    def wait_s(self) -> float:
        assert self.device.due_s is not None, "the device waits for nothing"
        return self.device.due_s - self.now_s

    def _keep(self, actions: list[Action]) -> list[Action]:
        self.actions += actions
        return actions


def kinds(actions: list[Action]) -> list[str]:
    return [type(action).__name__ for action in actions if not isinstance(action, Log)]


def events(actions: list[Action]) -> list[str]:
    return [action.event for action in actions if isinstance(action, Log)]


def only(actions: list[Action], kind: type[Any]) -> Any:
    (found,) = (action for action in actions if isinstance(action, kind))
    return found
