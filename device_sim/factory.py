"""Where devices are made: from a fleet's pattern or its files to identities, with their arrival times."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

from device_sim.dialogue import Dialogue, Identity
from device_sim.esf_device import EsfDialogue, KuraDialogue
from device_sim.json_device import JsonDialogue
from device_sim.keys import new_key_and_csr
from device_sim.scenario import Arrival, FleetSettings, Scenario
from device_sim.state import DeviceState
from provisioner.model.errors import InvalidInput, Problem
from provisioner.model.secret import Secret

_KNOWN = ("client_id", "username", "password", "activation_key")

Row = Mapping[str, str]


def make_identities(scenario: Scenario, fleet: FleetSettings, folder: Path) -> list[Identity]:
    """folder: what the paths in the scenario are relative to. Raises InvalidInput or OSError."""
    rows = list(_rows(fleet, folder))
    keys = _keys(fleet, folder)
    common = _common_password(fleet, folder)
    identities = [_identity(scenario, fleet, row, common, keys) for row in rows]
    if not identities:
        raise InvalidInput([Problem("devices_file", "must have at least one device", "none")])
    if len({each.client_id for each in identities}) != len(identities):
        raise InvalidInput([Problem("client_id", "must be there once in a fleet", "a duplicate")])
    return identities


def new_state(identity: Identity, *, csr: bool) -> DeviceState:
    """A device fresh from the factory, with a request id that no other device has."""
    key, request = new_key_and_csr(identity.client_id) if csr else (None, None)
    return DeviceState(client_id=identity.client_id, request_id=uuid4().hex, own_key=key, csr=request)


def make_dialogue(fleet: FleetSettings, identity: Identity) -> Dialogue:
    if fleet.kind == "json":
        return JsonDialogue(identity)
    gateway = EsfDialogue if fleet.kind == "esf" else KuraDialogue
    return gateway(identity, fleet.timeouts.apply_delay_s)


def arrival_times_s(arrival: Arrival, count: int, random: Random) -> list[float]:
    """Seconds after the start, one per device, ascending."""
    match arrival.pattern:
        case "at_once":
            return [0.0] * count
        case "uniform":
            return [arrival.over_s * n / count for n in range(count)]
        case "burst":
            return [arrival.over_s * (n * arrival.bursts // count) / arrival.bursts for n in range(count)]
        case "poisson":
            # Given their number, the events of a Poisson process are uniform and independent over its time.
            return sorted(random.uniform(0.0, arrival.over_s) for _ in range(count))


def _rows(fleet: FleetSettings, folder: Path) -> Iterator[Row]:
    if fleet.devices_file is not None:
        return iter(_table(folder / fleet.devices_file))
    return ({"client_id": fleet.client_id.format(n=fleet.first + n)} for n in range(fleet.count))


def _identity(
    scenario: Scenario, fleet: FleetSettings, row: Row, common: Secret | None, keys: Mapping[str, str]
) -> Identity:
    client_id, username = row.get("client_id"), row.get("username") or fleet.username
    password = Secret(row["password"]) if row.get("password") else common
    if not client_id or not username or password is None:
        raise InvalidInput([Problem("devices_file", "needs client_id, username and password", "a row without")])
    common_key = fleet.activation_key.get_secret_value() if fleet.activation_key else None
    key = row.get("activation_key") or keys.get(client_id) or common_key
    return Identity(
        gate_url=fleet.gate or scenario.gate,
        client_id=client_id,
        username=username,
        password=password,
        activation_key=Secret(key) if key else None,
        account=scenario.provision_account,
        control_prefix=scenario.control_prefix,
        provisioning=fleet.provisioning,
        metadata=fleet.metadata | {name: text for name, text in row.items() if name not in _KNOWN and text},
    )


def _common_password(fleet: FleetSettings, folder: Path) -> Secret | None:
    if fleet.password is not None:
        return Secret(fleet.password.get_secret_value())
    if fleet.password_file is not None:
        return Secret((folder / fleet.password_file).read_text(encoding="utf-8").rstrip("\r\n"))
    return None


def _keys(fleet: FleetSettings, folder: Path) -> dict[str, str]:
    if fleet.activation_keys_file is None:
        return {}
    rows = _table(folder / fleet.activation_keys_file)
    return {
        row["client_id"]: row["activation_key"] for row in rows if row.get("client_id") and row.get("activation_key")
    }


def _table(path: Path) -> list[Row]:
    """CSV with a head line, or JSON: a list of objects, or an object with such a list as `devices`."""
    try:
        if path.suffix.lower() != ".json":
            with path.open(encoding="utf-8-sig", newline="") as file:
                return [{name: text or "" for name, text in row.items() if name} for row in csv.DictReader(file)]
        content = json.loads(path.read_bytes())
        listed = content["devices"] if isinstance(content, dict) else content
        return [_texts(row) for row in listed]
    except (ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
        raise InvalidInput(
            [Problem(path.name, "must be a table of devices, CSV or JSON", type(error).__name__)]
        ) from None


def _texts(row: Mapping[str, Any]) -> Row:
    return {name: str(value) for name, value in row.items() if value is not None}
