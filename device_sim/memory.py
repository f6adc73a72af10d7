"""What devices remember on disk, one file each: written whole or not at all, readable by the owner only."""

import hashlib
import os
from pathlib import Path
from urllib.parse import quote

from device_sim.state import DeviceState, from_json, to_json
from provisioner.model.errors import InvalidInput, Problem

_FILE_NAME_CHARACTERS_MAX = 200


class Memory:
    """One folder per fleet. A process may die at any point; a power cut of the host is not provided for (no fsync)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self, client_id: str) -> DeviceState | None:
        """None for a new device. Raises InvalidInput when the file is no state, or that of another device."""
        path = self._path(client_id)
        try:
            state = from_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            raise InvalidInput([Problem(path.name, "must be the state of a device", "something else")]) from None
        if state.client_id != client_id:
            raise InvalidInput([Problem(path.name, "must be the state of this device", "that of another one")])
        return state

    def save(self, state: DeviceState) -> None:
        path = self._path(state.client_id)
        fresh = path.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(to_json(state))
        fresh.replace(path)

    def _path(self, client_id: str) -> Path:
        name = quote(client_id, safe="")
        if len(name) > _FILE_NAME_CHARACTERS_MAX or name.startswith("."):
            name = "sha256-" + hashlib.sha256(client_id.encode()).hexdigest()
        return self._folder / f"{name}.json"
