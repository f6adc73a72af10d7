"""A service that cannot be built from its settings: the reason is a value, and nothing stays open behind it."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provisioner import app, config
from provisioner.model.errors import InvalidInput
from provisioner.store.tinydb_store import TinyDbStore
from provisioner.vault.passwords import Passwords
from tests.support.installation import run_cli


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    run_cli("init", str(tmp_path / "plant"))
    return tmp_path / "plant"


@pytest.fixture
def left_open(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What was opened in this test and is not closed."""
    left: set[str] = set()
    opening, closing, making, ending = TinyDbStore.open, TinyDbStore.close, Passwords.__init__, Passwords.close

    async def opened(*args: Any, **kwargs: Any) -> TinyDbStore:
        left.add("store")
        return await opening(*args, **kwargs)

    async def closed(self: TinyDbStore) -> None:
        left.discard("store")
        await closing(self)

    def made(self: Passwords, *args: Any) -> None:
        left.add("passwords")
        making(self, *args)

    def ended(self: Passwords) -> None:
        left.discard("passwords")
        ending(self)

    replaced: dict[tuple[type, str], Callable[..., Any]] = {
        (TinyDbStore, "open"): opened,
        (TinyDbStore, "close"): closed,
        (Passwords, "__init__"): made,
        (Passwords, "close"): ended,
    }
    for (kind, name), value in replaced.items():
        monkeypatch.setattr(kind, name, value)
    return left


def _build(plant: Path) -> app.Service:
    return asyncio.run(app.build(config.read(plant / "fleetgate.yaml"), plant))


@pytest.mark.parametrize("text", ["{", "[]", '{"admin": 7}', "", "\udcff"])
def test_a_garbled_file_of_administrators_is_told_and_nothing_stays_open(
    plant: Path, left_open: set[str], text: str
) -> None:
    """Whoever builds a service by itself, without the judgement of all files, is told the file and the rule."""
    path, threads = plant / "admins.json", threading.active_count()
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InvalidInput, match=rf"{path}: must be a JSON object"):
        _build(plant)
    assert left_open == set()
    assert threading.active_count() <= threads


def test_whatever_fails_while_building_leaves_nothing_open(
    plant: Path, left_open: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what fails last: the store can be had by the next who tries."""

    def broken(*args: Any) -> None:
        raise RuntimeError("no door today")

    with monkeypatch.context() as today:
        today.setattr(app, "watch_door", broken)
        with pytest.raises(RuntimeError, match="no door today"):
            _build(plant)
    assert left_open == set()

    async def tomorrow() -> None:
        service = await app.build(config.read(plant / "fleetgate.yaml"), plant)
        assert left_open == {"store", "passwords"}
        await service.platform.store.close()
        service.platform.passwords.close()

    asyncio.run(tomorrow())
