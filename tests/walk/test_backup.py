"""Backups of whole installations: made while devices walk, restored, and no secret is good twice (F-40)."""

import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from provisioner.doors.cli_store import migrate, restore
from tests.support.device import Credentials
from tests.support.installation import CLI, ROOT, START_S_MAX, Installation, ServiceDied
from tests.support.stores import KINDS, empty_site

DEVICES, USED = 12, 10
TIMEOUT_S = 60

Make = Callable[..., Installation]


@pytest.fixture(params=KINDS)
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator["House"]:
    """An installation on each kind of store, not running."""
    made = House(request, tmp_path)
    yield made
    if made.site.process is not None and made.site.process.poll() is None:
        made.site.kill()


class House:
    """site: the installation. backup: where its backup goes. lose: what is stored is gone, an empty store is there."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self.kind = request.param
        self._request, self.folder, self._lost = request, folder, 0
        self.backup = folder / "plant.backup"
        self.site = Installation(folder / "installation", store=self._empty())

    def lose(self) -> None:
        self._lost += 1
        self.site.move_to(self._empty())

    def _empty(self) -> Mapping[str, Any]:
        return empty_site(self.kind, self.folder / f"store-{self._lost}", self._request).settings


def provision(site: Installation, credentials: Credentials) -> None:
    with site.device(credentials) as device:
        answer = device.ask()
        assert answer["status"] == "provisioned", answer
        device.acknowledge("m-1")
    with site.account_wire(answer):
        site.await_state(credentials.client_id, "confirmed")


def status_of(site: Installation, credentials: Credentials) -> str:
    with site.device(credentials) as device:
        return str(device.ask("m-2")["status"])


def restored(house: House) -> Mapping[str, Any]:
    """The store is lost, and filled from the backup again; what the command printed."""
    house.lose()
    printed: Mapping[str, Any] = json.loads(house.site.cli("restore", str(house.backup)).stdout)
    return printed


def test_f_40_secrets_that_were_used_after_the_backup_are_used_up(house: House) -> None:
    """F-40: backup, ten more are provisioned, the old backup is restored: none of their keys opens anything again, each
    device is told to wait, and the administrator is told what to do and lets through who was never provisioned."""
    site = house.site
    with site.running():
        site.account()
        before = site.request("done", activation_key=True)
        provision(site, before)
        devices = [site.request(f"dev{number:02d}", activation_key=True) for number in range(DEVICES)]
        site.cli("backup", str(house.backup))
        for each in devices[:USED]:
            provision(site, each)
        assert len(site.listed("user.page", account="acme")) == 1 + USED
    printed = restored(house)
    assert (printed["epoch"], printed["open_requests"]) == (2, DEVICES)
    with site.running():
        assert {status_of(site, each) for each in devices} == {"waiting"}
        assert status_of(site, before) == "already_provisioned"
        assert len(site.listed("user.page", account="acme")) == 1, "a second set of credentials was issued"
        assert {row["client_id"] for row in site.await_audit("provision.refused", DEVICES, reason="restored")} == {
            each.client_id for each in devices
        }
        names = site.cli("request", "list", "--state", "restored", "-q").stdout.split()
        assert len(names) == DEVICES
        fresh = devices[-1]
        explained = site.cli("request", "explain", fresh.client_id)
        assert "restored from a backup" in explained.stdout
        assert f"fleetgate request approve {site.ask('request.show', id=fresh.client_id)['id']}" in explained.stdout
        site.cli("request", "approve", fresh.client_id)
        provision(site, fresh)
        site.ask("request.rearm", id=devices[-2].client_id)
        provision(site, devices[-2])
        provision(site, site.request("made-since", activation_key=True))
        assert {status_of(site, each) for each in devices[:USED]} == {"waiting"}
        assert site.ask("fsck") == {"findings": []}
        assert site.audit("store.restored")[0]["details"]["open_requests"] == DEVICES


def test_a_backup_of_a_running_service_is_whole_and_holds_no_secret(house: House) -> None:
    """F-39, F-40: the file is private and complete, clear secrets are not in it, and what must be kept elsewhere is
    named; the audit log tells who made it."""
    site = house.site
    with site.running():
        site.account()
        devices = [site.request(f"dev{number}", activation_key=True) for number in range(3)]
        provision(site, devices[0])
        with site.device(devices[1]) as device:
            answer = device.ask()
        done = site.cli("backup", str(house.backup))
        (row,) = site.await_audit("store.backup")
        assert site.cli("backup", str(house.backup), status=6).stderr.count("overwrites nothing") == 1
    assert row["actor"] == "admin:admin"
    assert stat.S_IMODE(house.backup.stat().st_mode) == 0o600
    assert json.loads(done.stdout)["records"]["request"] == 3
    for kept in (site.folder / "keys/ring.json", site.ca.with_suffix(".key"), site.folder / "fleetgate.yaml"):
        assert str(kept) in done.stderr
    assert ("password_file" in (site.store or {})) == (str(house.folder / "store-0" / "password") in done.stderr)
    content = house.backup.read_text()
    secrets = [each.password for each in devices] + [each.activation_key for each in devices]
    for secret in (*secrets, answer["password"]):
        assert secret
        assert secret not in content
    assert restored(house)["open_requests"] == 2
    with site.running():
        assert site.state(devices[0].client_id) == "confirmed"


def test_a_store_nobody_serves_is_backed_up_directly(house: House) -> None:
    """Without a service the command opens the store itself; a restore needs an empty one, and nobody in it."""
    site = house.site
    with site.running():
        site.account()
        site.request()
    site.cli("backup", str(house.backup))
    refused = site.cli("restore", str(house.backup), status=5)
    assert "is not empty" in refused.stderr
    house.lose()
    tried = json.loads(site.cli("restore", str(house.backup), "--dry-run").stdout)
    assert tried["records"]["request"] == 1
    site.cli("restore", str(house.backup))
    with site.running():
        assert site.ask("request.show", id="dev1")["phase"] == "restored"
        assert site.audit("store.backup") == [], "told after the moment that the backup is of"


def test_f_40_half_a_restore_serves_nobody(house: House) -> None:
    """F-40, F-44: a restore that was killed keeps the service from starting until it is run again and ends."""
    site = house.site
    with site.running():
        site.account()
        credentials = site.request(activation_key=True)
        site.cli("backup", str(house.backup))
    house.lose()
    command = [*CLI, "restore", str(house.backup), "-c", str(site.config)]
    for point in ("after_part", "after_verified") if house.kind == "tinydb" else ("after_part",):
        killed = subprocess.run(command, cwd=ROOT, env=_crash_at(point), capture_output=True, timeout=TIMEOUT_S)
        assert killed.returncode == -signal.SIGKILL
        serving = subprocess.run(
            [*CLI, "serve", "-c", str(site.config)], cwd=ROOT, capture_output=True, text=True, timeout=START_S_MAX
        )
        assert serving.returncode == 5
        assert "was not finished: run the same command again" in serving.stderr
    site.cli("restore", str(house.backup))
    with site.running():
        assert status_of(site, credentials) == "waiting"


def _crash_at(point: str) -> dict[str, str]:
    return {**os.environ, "FLEETGATE_CRASH_AT": point}


def test_f_43_a_running_service_keeps_its_store(make_installation: Make, tmp_path: Path) -> None:
    """F-43: while a service runs nobody restores into its store or moves it away."""
    site = make_installation()
    with site.running():
        site.account()
        site.cli("backup", str(tmp_path / "a.backup"))
        assert "in use by process" in site.cli("restore", str(tmp_path / "a.backup"), status=8).stderr
        move = [*CLI, "store", "migrate", f"tinydb:{site.folder / 'data'}", f"sqlite:{tmp_path / 'b.db'}"]
        moved = subprocess.run(move, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert moved.returncode == 8
        assert "in use by process" in moved.stderr
        site.legitimate_device_provisions("dev1")


def test_f_43_a_gate_on_a_database_that_is_moved_ends(
    make_installation: Make, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """F-43, D12: nothing locks a database that gates share, so one that still runs when it is moved notices, says why,
    and ends; it does not start on it again, and on the new store everything is there."""
    old, new = (empty_site(kind, tmp_path / kind, request) for kind in ("postgresql", "sqlite"))
    site = make_installation(store=old.settings)
    site.start()
    site.account()
    provision(site, site.request("dev1"))
    move = [*CLI, "store", "migrate", old.url, new.url]
    moved = subprocess.run(move, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert site.process is not None
    assert site.process.wait(START_S_MAX) == 5
    if moved.returncode == 5:  # it still had something to write, which is noticed
        assert "was written to while it was copied" in moved.stderr
        moved = subprocess.run(move, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert moved.returncode == 0, moved.stderr
    assert f"was moved to {new.url}" in site.log.read_text()
    with pytest.raises(ServiceDied, match="was moved to"):
        site.start()
    site.move_to(new.settings)
    with site.running():
        assert site.state("dev1") == "confirmed"
        site.legitimate_device_provisions("dev2")
        assert site.ask("fsck") == {"findings": []}


def test_the_examples_of_restore_and_migrate_work(make_installation: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """EC-42: what these helps show can be typed as it stands, in the folder of an installation that is not running."""
    site = make_installation()
    with site.running():
        site.account()
        site.cli("backup", str(site.folder / "plant.backup"))
    whole = site.folder.with_name("whole")
    shutil.copytree(site.folder / "data", whole)
    for command in (restore, migrate):
        for example in command.examples:
            shutil.rmtree(site.folder / "data")
            if command is migrate:
                shutil.copytree(whole, site.folder / "data")
            done = subprocess.run(
                [*CLI, *shlex.split(example)[1:]],
                cwd=site.folder,
                env={**_crash_at(""), "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
            assert done.returncode == 0, (example, done.stderr)
            (site.folder / "data").mkdir(exist_ok=True)
