"""The demo on real mosquitto brokers, twice: as account brokers behind our own gate, and in the place of the gate too.

``python -m device_sim.demo_mosquitto [FOLDER]`` needs Debian's mosquitto. Exit status 0 when all of it went well.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from device_sim.demo import ACCOUNTS, DEVICES, START_S_MAX, Site, clear, console, free_ports, run

KINDS = dict(zip(ACCOUNTS.values(), ("mosquitto-files", "mosquitto-dynsec"), strict=True))
# Debian installs the server where an ordinary user's PATH does not lead.
PROGRAM = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
CONFIGURATION = Path(__file__).resolve().parents[1] / "mosquitto.conf"


class MosquittoSite(Site):
    """Our gate, and one mosquitto for each account: one told by files, one by its dynamic security plugin."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.control_ports = free_ports(len(KINDS))

    def settings(self, made: Mapping[str, Any]) -> dict[str, Any]:
        # Started by root, mosquitto becomes a user who may not look into this folder.
        user = {"system_user": "root"} if os.geteuid() == 0 else {}
        brokers = [
            {"name": name, "kind": kind, "host": "127.0.0.1", "port": port, "control_port": control}
            | {"pid_file": f"mosquitto/{name}.pid"}
            | user
            for (name, kind), port, control in zip(KINDS.items(), self.broker_ports, self.control_ports, strict=True)
        ]
        return super().settings(made) | {"account_brokers": brokers}

    @contextmanager
    def beside(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, port in zip(KINDS, self.broker_ports, strict=True):
                words = ("broker", "render", "mosquitto", "--broker", name, "--write", "-c", str(self.config))
                self.run(*words)
                stack.enter_context(mosquitto(self.folder / f"mosquitto/{name}/mosquitto.conf", port))
            yield


class MosquittoGateSite(MosquittoSite):
    """A third mosquitto in the place of the gate, with the configuration at the root of the repository."""

    shares_logins = False
    foreign_client_id = "no_answer"  # that broker lets him in as who he is, and nothing he says is his to say

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.unused_ports = free_ports(2)
        self.link_folder = folder / "mosquitto-gate"

    def settings(self, made: Mapping[str, Any]) -> dict[str, Any]:
        link = {
            "kind": "mosquitto",
            "url": f"mqtts://localhost:{self.gate_port}",
            "ca": "ca/ca.pem",
            "password_file": "mosquitto-gate/secret",
            "password_file_path": "mosquitto-gate/provision/passwords",
            "acl_file_path": "mosquitto-gate/provision/acl",
            "reload": {"pid_file": "mosquitto-gate/pid"},
        }
        return super().settings(made) | {"provision_link": link}

    @contextmanager
    def beside(self) -> Iterator[None]:
        for name in ("provision/passwords", "provision/acl", *(f"account/{each}" for each in _ACCOUNT_FILES)):
            (self.link_folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.link_folder / name).touch(0o600)
        secret = self.link_folder / "secret"
        secret.touch(0o600)
        secret.write_text(os.urandom(16).hex())
        path = self.link_folder / "mosquitto.conf"
        path.write_text(self._configuration())
        with super().beside(), mosquitto(path, self.gate_port):
            yield

    def _configuration(self) -> str:
        """The file as it is, with the paths, ports and the user of this site."""
        text = CONFIGURATION.read_text("utf-8")
        account, control = self.unused_ports
        for pattern, replacement in (
            (r"^user mosquitto$", f"user {'root' if os.geteuid() == 0 else 'mosquitto'}"),
            (r"^pid_file .*$", f"pid_file {self.link_folder / 'pid'}"),
            (r"^log_dest syslog$", "log_dest stdout"),
            (r"/etc/mosquitto/certs/server\.(\w+)", rf"{self.folder / 'tls'}/server.\1"),
            (r"/etc/mosquitto/fleetgate/", f"{self.link_folder}/"),
            (r"^listener 8883$", f"listener {self.gate_port} 127.0.0.1"),
            (r"^listener 8884$", f"listener {account} 127.0.0.1"),
            (r"^listener 1884 127\.0\.0\.1$", f"listener {control} 127.0.0.1"),
        ):
            text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
        return text


_ACCOUNT_FILES = ("passwords", "acl", "control-passwords", "control-acl")


@contextmanager
def mosquitto(configuration: Path, port: int) -> Iterator[None]:
    """The real server, until the end of the block."""
    assert PROGRAM is not None
    with configuration.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen([PROGRAM, "-c", str(configuration)], stdout=log, stderr=log)
    try:
        until_s = time.monotonic() + START_S_MAX
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until_s:
                raise SystemExit(f"mosquitto does not serve; see {configuration.with_suffix('.log')}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(START_S_MAX)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(arguments: list[str]) -> int:
    """Both, one after the other."""
    if PROGRAM is None:
        raise SystemExit("mosquitto is not installed: apt-get install mosquitto")
    folder = Path(arguments[0] if arguments else "demo-run").resolve()
    clear(folder)
    behind = run(MosquittoSite(folder / "account-brokers"), "mosquitto as account brokers")
    instead = run(MosquittoGateSite(folder / "provision-broker"), "mosquitto as provision broker too")
    confirmed = behind[0] + instead[0]
    console.print(f"demo-mosquitto: {confirmed}/{2 * DEVICES} devices confirmed on their mosquitto account brokers")
    return 0 if behind[1] and instead[1] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
