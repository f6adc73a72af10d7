"""The demo: a whole installation in a folder, 25 devices of three kinds through the gate, five intruders refused.

``python -m device_sim.demo [FOLDER]`` uses the command line as an administrator would and the simulated fleet as
devices would; the service is restarted while they are on their way. Exit status 0 when all of it went as it should.
"""

import asyncio
import csv
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from device_sim.fleet import Fleet
from device_sim.report import Report
from device_sim.scenario import Scenario, parse

CLI = (sys.executable, "-m", "provisioner.doors.cli")
ACCOUNTS = {"acme": "north", "bolt": "south"}
START_S_MAX = 20.0
ARRIVAL_S = 5.0
RESTART_AT_S = 2.0
CONFIRMED_S_MAX = 10.0
DEVICES = 25
MARK = "made-by-the-demo"  # in a folder that the next run may delete
FACTORY_PASSWORD = "Factory-floor-7!"  # what a factory writes into every unit; no secret of anybody

console = Console(highlight=False)


class Site:
    """One installation: the commands that an administrator gives, and the service process."""

    # Where another broker stands in the place of the gate, a shared login would let one device speak as another.
    shares_logins = True
    # What somebody hears who comes with a login that is not his client id's.
    foreign_client_id = "login_refused"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "fleetgate.yaml"
        self._service: subprocess.Popen[bytes] | None = None
        self.gate_port, self.admin_port, *self.broker_ports = free_ports(2 + len(ACCOUNTS))

    def run(self, *arguments: str) -> Any:
        """One command; its JSON output, None when it prints none."""
        done = subprocess.run([*CLI, *arguments], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise SystemExit(f"fleetgate {' '.join(arguments[:2])} ended with {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else None

    def ask(self, *arguments: str) -> Any:
        """A command to the running service."""
        return self.run(*arguments, "-c", str(self.config), "-o", "json")

    def make(self) -> None:
        """``fleetgate init``, then ports that are free here and one account broker for each account."""
        self.run("init", str(self.folder))
        settings = yaml.safe_load(self.config.read_text("utf-8"))
        settings["admin"]["port"] = self.admin_port
        settings["metrics"]["port"] = "off"
        settings |= self.settings(settings)
        self.config.write_text(yaml.safe_dump(settings), "utf-8")

    def settings(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """What differs from the settings that ``init`` made: the gate and the account brokers."""
        listener = {"host": "127.0.0.1", "port": self.gate_port, "tls": True}
        brokers = [
            {"name": name, "kind": "embedded", "port": port, "tls": True}
            for name, port in zip(ACCOUNTS.values(), self.broker_ports, strict=True)
        ]
        return {"gate": {**made["gate"], "listeners": [listener]}, "account_brokers": brokers}

    def beside(self) -> AbstractContextManager[None]:
        """What has to run beside the service, for as long as the context lasts."""
        return nullcontext()

    def start(self) -> None:
        """Run the service until an administrator is answered."""
        with (self.folder / "serve.log").open("ab") as log:
            self._service = subprocess.Popen([*CLI, "serve", "-c", str(self.config)], stdout=log, stderr=log)
        until_s = time.monotonic() + START_S_MAX
        while time.monotonic() < until_s:
            if self._service.poll() is not None:
                raise SystemExit(f"the service ended; see {self.folder / 'serve.log'}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.admin_port)) == 0:
                    return
            time.sleep(0.05)
        raise SystemExit("the service does not answer")

    def stop(self) -> None:
        if self._service is not None:
            self._service.terminate()
            self._service.wait(START_S_MAX)

    @contextmanager
    def serving(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            self.stop()


def prepare(site: Site) -> None:
    """Two accounts, 25 provision requests, and four more that intruders will try, all by the command line."""
    for account, broker in ACCOUNTS.items():
        site.ask("account", "create", account, "--broker", broker)
    rows = [{"account": "acme", "client_id": f"json-{n:02}", "username": f"json-{n:02}"} for n in range(1, 11)]
    _import(site, "json", rows)
    # One username and password for a whole fleet: then each device needs a key of its own.
    keyed = {"account": "bolt", "password": FACTORY_PASSWORD, "activation_key": True}
    esf = [f"esf-{n:02}" for n in range(1, 11)]
    _import(site, "esf", [{**keyed, "client_id": name, "username": _esf_login(site, name)} for name in esf])
    rows = [{"account": "acme", "client_id": f"kura-{n}", "username": f"kura-{n}"} for n in range(1, 6)]
    _import(site, "kura", rows)
    tricks: dict[str, dict[str, Any]] = {
        "password": {"password": FACTORY_PASSWORD},
        "key": {"activation_key": True},
        "early": {"activates_on": "2999-01-01T00:00:00Z"},
        "late": {"activates_on": "2020-01-01T00:00:00Z", "expires_on": "2020-02-01T00:00:00Z"},
    }
    for name, more in tricks.items():
        _import(
            site, name, [{"account": "acme", "client_id": f"intruder-{name}", "username": f"intruder-{name}", **more}]
        )


def _esf_login(site: Site, client_id: str) -> str:
    return "esf-fleet" if site.shares_logins else client_id


def _import(site: Site, name: str, rows: list[dict[str, Any]]) -> None:
    """``request import``; generated secrets go to a file that only its owner can read, as for a factory."""
    source = site.folder / f"{name}.json"
    source.touch(0o600)
    source.write_text(json.dumps(rows, indent=1), "utf-8")
    site.ask("request", "import", str(source), "--results", str(site.folder / f"{name}.csv"))


def scenario(site: Site) -> Scenario:
    """25 devices that arrive over a few seconds, and five intruders with what each of them got wrong."""
    patient = {"backoff_base_s": 0.3, "backoff_cap_s": 2.0, "reply_s": 4.0, "apply_delay_s": 1.0}
    slow = {"timeouts": patient, "arrival": {"pattern": "uniform", "over_s": ARRIVAL_S}}
    fleets: list[dict[str, Any]] = [
        {"name": "json", "kind": "json", "devices_file": "json.csv", **slow},
        {"name": "esf", "kind": "esf", "devices_file": "esf.csv", "password": FACTORY_PASSWORD, **slow},
        {"name": "kura", "kind": "kura", "devices_file": "kura.csv", **slow},
        {"name": "wrong password", "client_id": "intruder-password", "username": "intruder-password",
         "password": "Guessed-wrong-7!", "expect": "login_refused"},
        {"name": "wrong key", "devices_file": "key.keyless.csv", "activation_key": "WRONG", "expect": "refused"},
        {"name": "too early", "devices_file": "early.csv", "expect": "not_yet_active"},
        {"name": "too late", "devices_file": "late.csv", "expect": "expired"},
        {"name": "foreign client id", "client_id": "stranger", "username": _esf_login(site, "esf-01"),
         "password": FACTORY_PASSWORD, "expect": site.foreign_client_id},
    ]  # fmt: skip
    for fleet in fleets[3:]:
        fleet["timeouts"] = patient
    _without_keys(site.folder / "key.csv", site.folder / "key.keyless.csv")
    return parse(
        {
            "gate": f"mqtts://localhost:{site.gate_port}",
            "tls": {"ca": "ca/ca.pem"},
            "seed": 7,
            "deadline_s": 45,
            "fleets": fleets,
        }
    )


def _without_keys(source: Path, target: Path) -> None:
    with source.open(newline="") as rows:
        table = list(csv.DictReader(rows))
    target.touch(0o600)
    with target.open("w", newline="") as kept:
        writer = csv.DictWriter(kept, ("client_id", "username", "password"), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)


async def walk(site: Site) -> Report:
    """Let them all come, and restart the service while they are on their way."""

    async def restart() -> None:
        await asyncio.sleep(RESTART_AT_S)
        console.print("the service is restarted while devices are on their way")
        await asyncio.to_thread(site.stop)
        await asyncio.to_thread(site.start)

    fleet = Fleet(scenario(site), site.folder)
    report, _ = await asyncio.gather(fleet.run(), restart())
    return report


def confirmed(site: Site) -> int:
    """How many requests the service has confirmed: their devices were seen on their account brokers."""
    until_s = time.monotonic() + CONFIRMED_S_MAX
    while True:
        count = len(site.ask("request", "list", "--state", "confirmed"))
        if count >= DEVICES or time.monotonic() > until_s:
            return count
        time.sleep(0.2)


def run(site: Site, name: str) -> tuple[int, bool]:
    """The whole of it on that site; prints what happened. How many devices were confirmed, and whether all else was
    right as well."""
    clear(site.folder)
    site.make()
    with site.beside(), site.serving():
        console.print(f"installation in {site.folder.name}/: devices come to {site.gate_port}")
        prepare(site)
        console.print("2 accounts and 25 provision requests made by the command line; the devices come")
        report = asyncio.run(walk(site))
        devices = confirmed(site)
        findings = site.ask("fsck")
    report.print(console)
    intruders = report.fleets[3:]
    refused = sum(fleet.is_met for fleet in intruders)
    if findings:
        console.print(f"fsck: {findings}")
    console.print(
        f"{name}: {devices}/{DEVICES} devices confirmed on their account brokers, "
        f"{refused}/{len(intruders)} intruders refused",
        soft_wrap=True,
    )
    return devices, devices == DEVICES and refused == len(intruders) and report.is_met and not findings


def clear(folder: Path) -> None:
    """Make the folder empty for the installation, but only of what a demo left there."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise SystemExit(f"{folder} was not made by the demo, and nothing in it is touched: name another folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    (folder / MARK).touch(0o600)


def main(arguments: list[str]) -> int:
    """On embedded defaults, in the named folder."""
    _, is_right = run(Site(Path(arguments[0] if arguments else "demo-run").resolve()), "demo")
    return 0 if is_right else 1


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
