"""A real installation in a folder of its own: made by ``fleetgate init``, run by ``fleetgate serve``, asked over the
administrators' listener. Tests of the walk and of the faults stand on it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from provisioner.doors.control_client import ControlClient, Unreachable
from provisioner.model.secret import Secret
from tests.support.device import Address, Credentials, JsonDevice, Wire, connect_to_account
from tests.support.ports import free_ports

START_S_MAX = 60.0  # on a machine with a dozen others at work
ROOT = Path(__file__).resolve().parents[2]
CLI = (sys.executable, "-m", "provisioner.doors.cli")


class ServiceDied(AssertionError):
    """It ended before it answered an administrator."""


class Installation:
    """Ports are chosen once, so that a restarted service is found where it was."""

    def __init__(
        self,
        folder: Path,
        *,
        brokers: Sequence[str] = ("embedded",),
        store: str | Mapping[str, Any] = "tinydb",
        **settings: Any,
    ) -> None:
        """store: a kind that ``init`` knows, or what stands below ``store:``. settings: laid over the file that it
        writes, mapping by mapping."""
        self.folder = folder
        run_cli("init", str(folder), "--store", store if isinstance(store, str) else "tinydb")
        self.store = store if isinstance(store, Mapping) else None
        plain, secure, websocket, admin, *accounts = free_ports(4 + len(brokers))
        self.plain = Address(plain)
        self.secure = Address(secure, self.ca)
        self.websocket = Address(websocket, websocket=True)
        self.websocket_port, self.admin_port = websocket, admin
        self.account_brokers = {name: Address(port, self.ca) for name, port in zip(brokers, accounts, strict=True)}
        self._write(brokers, settings)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "serve.log"

    def move_to(self, store: Mapping[str, Any]) -> None:
        """Another store from the next start on."""
        values = yaml.safe_load(self.config.read_text())
        self.config.write_text(yaml.safe_dump({**values, "store": dict(store)}))

    @property
    def config(self) -> Path:
        return self.folder / "fleetgate.yaml"

    @property
    def ca(self) -> Path:
        """The authority that signs every listener's certificate."""
        return self.folder / "ca/ca.pem"

    def start(self, **environment: str) -> None:
        """Run the service and wait until an administrator is answered. Raises ServiceDied."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*CLI, "serve", "-c", str(self.config)],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )
        try:
            self._await_answer()
        except BaseException:
            self.kill()
            raise

    def _await_answer(self) -> None:
        assert self.process is not None
        until_s = time.monotonic() + START_S_MAX
        while True:
            try:
                self.ask("status")
                return
            except Unreachable:
                if self.process.poll() is not None:
                    raise ServiceDied(f"serve ended: {self.log.read_text()[-2000:]}") from None
                assert time.monotonic() < until_s, "serve does not answer"
                time.sleep(0.02)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(START_S_MAX)

    def kill(self) -> None:
        """As by a power cut."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(START_S_MAX)

    def wait_for_death(self) -> None:
        """Until the service killed itself at a crash point."""
        assert self.process is not None
        assert self.process.wait(START_S_MAX) == -signal.SIGKILL

    @contextmanager
    def running(self, **environment: str) -> Iterator["Installation"]:
        self.start(**environment)
        try:
            yield self
        finally:
            if self.process is not None and self.process.poll() is None:
                self.stop()

    def client(self) -> ControlClient:
        credential = json.loads((self.folder / "admin-credential.json").read_text())
        return ControlClient("127.0.0.1", self.admin_port, credential["name"], Secret(credential["credential"]))

    def ask(self, verb: str, **params: Any) -> Any:
        """One verb of the administrators' door; raises what the command line would report."""
        with self.client() as client:
            return client.ask(verb, **params)

    def cli(self, *arguments: str, status: int = 0, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """One command about this installation, which must end with that status."""
        return _cli(*arguments, "-c", str(self.config), status=status, stdin=stdin)

    def listed(self, verb: str, **params: Any) -> list[Mapping[str, Any]]:
        """Every item of a listing."""
        with self.client() as client:
            return list(client.pages(verb, **params))

    def users_of(self, client_id: str, account: str = "acme") -> list[str]:
        """Names of the account users that were made for this client id."""
        return [u["username"] for u in self.listed("user.page", account=account) if u["client_id"] == client_id]

    def account(self, name: str = "acme", broker: str = "embedded", **fields: Any) -> None:
        self.ask("account.create", fields={"name": name, "broker": broker, **fields})

    def request(self, client_id: str = "dev1", account: str = "acme", **fields: Any) -> Credentials:
        """A provision request; password and activation key are generated unless given."""
        wanted = {"account": account, "client_id": client_id, "username": f"user-{client_id}", **fields}
        secrets = self.ask("request.create", fields=wanted)["secrets"]
        return Credentials(
            client_id=client_id,
            username=wanted["username"],
            password=secrets.get("password") or wanted["password"],
            activation_key=secrets.get("activation_key"),
        )

    def state(self, client_id: str = "dev1") -> str:
        return str(self.ask("request.show", id=client_id)["state"])

    def audit(self, action: str | None = None, **fields: Any) -> list[Mapping[str, Any]]:
        """Rows of the audit log, oldest first, that carry these values."""
        with self.client() as client:
            rows, after = [], 0
            while page := client.ask("audit.page", after=after, limit=500)["items"]:
                rows += page
                after = page[-1]["seq"]
        return [
            row
            for row in rows
            if action in (None, row["action"]) and all(row.get(name) == value for name, value in fields.items())
        ]

    def await_audit(
        self, action: str, count: int = 1, timeout_s: float = 8.0, **fields: Any
    ) -> Sequence[Mapping[str, Any]]:
        """The rows, once there are that many."""
        until_s = time.monotonic() + timeout_s
        while len(rows := self.audit(action, **fields)) < count:
            assert time.monotonic() < until_s, f"no {action} {fields} within {timeout_s} s: {self.audit()[-5:]}"
            time.sleep(0.05)
        return rows

    def await_state(self, client_id: str, state: str, timeout_s: float = 8.0) -> None:
        until_s = time.monotonic() + timeout_s
        while (now := self.state(client_id)) != state:
            assert time.monotonic() < until_s, f"{client_id} is {now}, not {state}"
            time.sleep(0.02)

    def device(self, credentials: Credentials, **options: Any) -> JsonDevice:
        """Connected and subscribed at the plain listener."""
        return JsonDevice(self.plain, credentials, **options)

    def account_wire(self, answer: Mapping[str, Any], broker: str = "embedded", **options: Any) -> Wire:
        return connect_to_account(answer, self.account_brokers[broker], **options)

    def provision(
        self, credentials: Credentials, message_id: str = "m-1", broker: str = "embedded"
    ) -> Mapping[str, Any]:
        """The whole walk of one device; returns its answer once the request is confirmed."""
        with self.device(credentials) as device:
            answer = device.ask(message_id)
            assert answer["status"] == "provisioned", answer
            device.acknowledge(message_id)
        with self.account_wire(answer, broker):
            self.await_state(credentials.client_id, "confirmed")
        return answer

    def legitimate_device_provisions(self, client_id: str, within_s: float = 5.0) -> None:
        """The gate still does its work, whatever was done to it before."""
        credentials = self.request(client_id)
        started_s = time.monotonic()
        with self.device(credentials) as device:
            assert device.ask()["status"] == "provisioned"
        assert time.monotonic() - started_s < within_s

    def descriptors(self) -> int:
        return int(self._ps().num_fds())

    def resident_bytes(self) -> int:
        return int(self._ps().memory_info().rss)

    def cpu_s(self) -> float:
        times = self._ps().cpu_times()
        return float(times.user + times.system)

    def _ps(self) -> psutil.Process:
        assert self.process is not None
        return psutil.Process(self.process.pid)

    def _write(self, brokers: Sequence[str], settings: Mapping[str, Any]) -> None:
        values = yaml.safe_load(self.config.read_text())
        loopback = {"host": "127.0.0.1"}
        values["gate"]["listeners"] = [
            {"name": "plain", "port": self.plain.port, "tls": False, **loopback},
            {"name": "secure", "port": self.secure.port, "tls": True, **loopback},
            {"name": "ws", "kind": "websocket", "port": self.websocket_port, "tls": False, **loopback},
        ]
        values["admin"]["port"] = self.admin_port
        values["account_brokers"] = [
            {"name": name, "kind": "embedded", "port": self.account_brokers[name].port} for name in brokers
        ]
        values["metrics"]["port"] = "off"
        values["log_level"] = "DEBUG"
        values["selftest_at_start"] = "off"
        _lay_over(values, settings)
        if self.store is not None:
            values["store"] = dict(self.store)
        self.config.write_text(yaml.safe_dump(values))


def run_cli(*arguments: str, status: int = 0, stdin: str = "") -> str:
    """The standard output of one command, which must end with that status."""
    return _cli(*arguments, status=status, stdin=stdin).stdout


def _cli(*arguments: str, status: int, stdin: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run([*CLI, *arguments], cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, f"exit {done.returncode}: {done.stderr}"
    return done


def _lay_over(values: dict[str, Any], settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        if isinstance(value, Mapping) and isinstance(values.get(name), dict):
            _lay_over(values[name], value)
        else:
            values[name] = value
