"""Simulated fleets against a running installation."""

import asyncio
from pathlib import Path
from typing import Any

from device_sim.fleet import Fleet, Observer
from device_sim.report import Report
from device_sim.runner import DeviceRunner
from device_sim.scenario import parse
from tests.support.device import Credentials
from tests.support.installation import Installation

QUICK = {"reply_s": 10.0, "backoff_base_s": 0.05, "backoff_cap_s": 0.5, "apply_delay_s": 0.05}


def gate_url(installation: Installation, scheme: str = "mqtt") -> str:
    """The gate as a device is told it; the server's certificate is for localhost."""
    ports = {"mqtt": installation.plain.port, "mqtts": installation.secure.port, "ws": installation.websocket_port}
    return f"{scheme}://localhost:{ports[scheme]}"


def fleet_of(credentials: Credentials, **settings: Any) -> dict[str, Any]:
    """The settings of a fleet of this one device, named after it."""
    own = {"client_id": credentials.client_id, "username": credentials.username, "password": credentials.password}
    if credentials.activation_key is not None:
        own["activation_key"] = credentials.activation_key
    return {"name": credentials.client_id, "timeouts": QUICK, **own, **settings}


def run_fleet(
    installation: Installation,
    *fleets: dict[str, Any],
    scheme: str = "mqtt",
    folder: Path = Path(),
    observe: Observer = lambda who, log: None,
    **settings: Any,
) -> tuple[Report, Fleet]:
    """What came of these fleets, and the devices to look at. folder: what paths in the settings are relative to.
    observe: hears every event of every device."""
    plan = {"gate": gate_url(installation, scheme), "tls": {"ca": str(installation.ca)}, "deadline_s": 60, "seed": 1}
    fleet = Fleet(parse({**plan, **settings, "fleets": fleets}), folder, observe)
    return asyncio.run(fleet.run()), fleet


def devices(fleet: Fleet) -> list[DeviceRunner]:
    return [runner for runners in fleet.runners for runner in runners]


def all_came_home(fleet: Fleet) -> bool:
    """Each device at some time: whoever was at home when its broker restarted, or called it back, may be on the way
    there again when the last one arrives."""
    return all(each.record.walk_s is not None for each in devices(fleet))
