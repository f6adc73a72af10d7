"""Several gates on one PostgreSQL behind a real HAProxy, as docs/many-gates.md sets them up."""

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.support.device import Address
from tests.support.haproxy import Haproxy
from tests.support.installation import ROOT, Installation
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer

PAGE = ROOT / "docs/many-gates.md"


def on_postgres(folder: Path, postgres: PostgresServer, **settings: Any) -> Installation:
    """An installation on a database of its own; its account brokers are those of the settings alone."""
    options = postgres.options(postgres.fresh_database())
    assert options.password is not None
    store = {name: getattr(options, name) for name in ("host", "port", "database", "user", "sslmode")}
    store |= {"kind": "postgresql", "password_file": "store.secret", "pool_max": 3}
    made = Installation(folder, brokers=(), store=store, **settings)
    secret = made.folder / "store.secret"
    secret.touch(0o600)
    secret.write_text(options.password.reveal())
    return made


def haproxy_example() -> str:
    """The configuration that the page shows."""
    return _example("haproxy")


def nginx_example() -> str:
    """The other one."""
    return _example("nginx")


def _example(balancer: str) -> str:
    found = re.search(rf"```{balancer}\n(.*?)```", PAGE.read_text(), re.S)
    assert found is not None, f"the page has no configuration of {balancer}"
    return found[1]


class Gate(Installation):
    """One of them: an installation of its own in settings and ports, in keys and store the same as the others."""

    def __init__(self, first: Installation, number: int, changes: Mapping[str, Any]) -> None:
        """first: whose folder it shares."""
        self.number = number
        self.folder, self.log = first.folder, first.folder / f"gate-{number}.log"
        self.process = None
        gate, own, self.admin_port, self.callback_port = free_ports(4)
        self.plain, self.direct = Address(gate), Address(own)
        self.account_brokers = dict(first.account_brokers)
        values = yaml.safe_load(first.config.read_text())
        loopback = {"host": "127.0.0.1", "tls": False}
        values["gate"]["listeners"] = [
            {"name": "balanced", "port": gate, "proxy_protocol": True, "trusted_proxies": ["127.0.0.1"], **loopback},
            {"name": "direct", "port": own, **loopback},
        ]
        values["admin"]["port"] = self.admin_port
        for each in values["account_brokers"]:
            each["callback_port"] = self.callback_port
        values["gate"].update(changes)
        self.config.write_text(yaml.safe_dump(values))

    @property
    def config(self) -> Path:
        return self.folder / f"gate-{self.number}.yaml"


class ManyGates:
    """``front``: where devices come in; ``gates`` may be killed and started one by one."""

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer,
        brokers: Sequence[Mapping[str, Any]],
        *,
        count: int = 3,
        callback_port: int | None = None,
        **gate: Any,
    ) -> None:
        """brokers: settings of account brokers of kind http-callback, which ask at callback_port. gate: settings."""
        self.first = on_postgres(folder / "installation", postgres, account_brokers=list(brokers))
        (port,) = free_ports(1)
        self.front = Address(port)
        self._callback_port = callback_port or free_ports(1)[0]
        self.gates = [Gate(self.first, number, gate) for number in range(1, count + 1)]
        for each in self.gates:
            each.plain = self.front
        self._folder, self._stack = folder, ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for gate in self.gates:
                stack.callback(_end, gate)
            for gate in self.gates:
                gate.start()
            ports = [self.front.port, self._callback_port]
            stack.enter_context(Haproxy(self._folder, self._configuration(), ports))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()
        if error is not None:
            for gate in self.gates:
                if gate.log.exists():
                    shutil.copy(gate.log, self._folder / gate.log.name)

    def _configuration(self) -> str:
        """The one of the page, with the ports of this very place in it."""
        text = haproxy_example().replace("maxconn 50000", "maxconn 8000")  # as many as a test may have open files
        text = re.sub(r" ssl crt \S+|^ *default-server ssl .*$", "", text, flags=re.M)  # all of it is on the loopback
        text = text.replace("10.0.0.10:8883", f"127.0.0.1:{self.front.port}")
        text = text.replace("10.0.0.10:8886", f"127.0.0.1:{self._callback_port}")
        for gate in self.gates:
            balanced = yaml.safe_load(gate.config.read_text())["gate"]["listeners"][0]["port"]
            text = text.replace(f"10.0.0.1{gate.number}:8883", f"127.0.0.1:{balanced}")
            text = text.replace(f"10.0.0.1{gate.number}:8886", f"127.0.0.1:{gate.callback_port}")
        unused = [line for line in text.splitlines() if " 10.0.0." in line]
        return "\n".join(line for line in text.splitlines() if line not in unused) + "\n"


def _end(gate: Gate) -> None:
    if gate.process is not None and gate.process.poll() is None:
        gate.kill()
