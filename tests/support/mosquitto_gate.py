"""A real mosquitto in the place of the gate: the configuration at the root of the repository, with paths and ports of
a test, and an installation whose provisioner joins it."""

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from tests.support.device import Address, Credentials, JsonDevice, Wire
from tests.support.installation import ROOT, Installation
from tests.support.mosquitto import PROGRAM
from tests.support.ports import free_ports, serves

START_S_MAX = 30.0
SECRET = "Provisioner-pass-1"
FILES = [f"provision/{name}" for name in ("passwords", "acl")]
FILES += [f"account/{name}" for name in ("passwords", "acl", "control-passwords", "control-acl")]


class MosquittoGate:
    """plain, secure: how devices reach the provision listener. ``shared``: several devices have one username."""

    def __init__(self, installation_folder: Path, *, shared: bool = False) -> None:
        self.base, self.shared = installation_folder, shared
        self.folder = installation_folder / "mosquitto"
        self.port, self.plain_port, self.account_port, self.control_port = free_ports(4)
        self.plain = Address(self.plain_port)
        self.secure = Address(self.port, installation_folder / "ca/ca.pem")
        self.log = self.folder / "mosquitto.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def settings(self) -> dict[str, Any]:
        """Of the installation: the link over TLS, as at a site."""
        link = {
            "kind": "mosquitto",
            "url": f"mqtts://localhost:{self.port}",
            "ca": "ca/ca.pem",
            "password_file": "mosquitto/secret",
            "password_file_path": "mosquitto/provision/passwords",
            "acl_file_path": "mosquitto/provision/acl",
            "reload": {"pid_file": "mosquitto/pid"},
        }
        return {"provision_link": link}

    def configuration(self) -> str:
        """The file at the root, which is what is tested, with nothing but paths, ports and the user changed."""
        text = (ROOT / "mosquitto.conf").read_text()
        user = "root" if os.geteuid() == 0 else "mosquitto"
        for pattern, replacement in (
            (r"^user mosquitto$", f"user {user}"),
            (r"^pid_file .*$", f"pid_file {self.folder / 'pid'}"),
            (r"^log_dest syslog$", "log_dest stdout"),
            (r"/etc/mosquitto/certs/server\.(\w+)", rf"{self.base / 'tls'}/server.\1"),
            (r"/etc/mosquitto/fleetgate/", f"{self.folder}/"),
            (r"^listener 8883$", f"listener {self.port} 127.0.0.1"),
            (r"^listener 8884$", f"listener {self.account_port} 127.0.0.1"),
            (r"^listener 1884 127\.0\.0\.1$", f"listener {self.control_port} 127.0.0.1"),
        ):
            text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
            assert count, f"mosquitto.conf has no {pattern}"
        if self.shared:
            text = text.replace("use_username_as_clientid true", "use_username_as_clientid false", 1)
        return text + self._plain_listener()

    def _plain_listener(self) -> str:
        """The provision listener once more without TLS, for the raw devices of the tests."""
        return "\n".join(
            (
                "",
                f"listener {self.plain_port} 127.0.0.1",
                "allow_anonymous false",
                "allow_zero_length_clientid false",
                f"password_file {self.folder / 'provision/passwords'}",
                f"acl_file {self.folder / 'provision/acl'}",
                f"use_username_as_clientid {str(not self.shared).lower()}",
                "",
            )
        )

    def installation(self, **settings: Any) -> Installation:
        """In the same folder; its devices go to this mosquitto."""
        made = Installation(self.base, **self.settings, **settings)
        made.plain, made.secure = self.plain, self.secure
        for name in FILES:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).touch(mode=0o600)
        (self.folder / "secret").write_text(f"{SECRET}\n")
        return made

    def start(self) -> None:
        path = self.folder / "mosquitto.conf"
        path.write_text(self.configuration())
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([PROGRAM, "-c", str(path)], stdout=log, stderr=log)
        until_s = time.monotonic() + START_S_MAX
        while not (self.folder / "pid").exists() or not serves(self.plain_port):
            assert self.process.poll() is None, f"mosquitto ended: {self.log.read_text()[-2000:]}"
            assert time.monotonic() < until_s, "mosquitto does not listen"
            time.sleep(0.01)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(START_S_MAX)

    def await_user(self, username: str, *topics: str) -> None:
        """Until the files name the user, and these topics."""
        until_s = time.monotonic() + START_S_MAX
        while not self._is_written(username, topics):
            assert time.monotonic() < until_s, f"{username} is not written"
            time.sleep(0.02)

    def _is_written(self, username: str, topics: tuple[str, ...]) -> bool:
        access = (self.folder / "provision/acl").read_text()
        passwords = (self.folder / "provision/passwords").read_text()
        return f"\n{username}:" in passwords and all(f" {topic}\n" in access for topic in topics)

    def kill(self) -> None:
        """As by a power cut; the file with the process id stays."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(START_S_MAX)


def await_link(installation: Installation, timeout_s: float = 10.0) -> None:
    """Until the provisioner has joined its broker and hears what devices say."""
    until_s = time.monotonic() + timeout_s
    while not installation.ask("status")["provision_link"]["up"]:
        assert time.monotonic() < until_s, f"the link does not come up: {installation.log.read_text()[-2000:]}"
        time.sleep(0.02)


def login(
    installation: Installation, credentials: Credentials, *, known_as: Credentials | None = None, **options: Any
) -> Wire:
    """Connected to the broker, which may learn of a new login a moment after it was made. known_as: whose login it is,
    when the client id is somebody else's."""
    if known_as is not None:
        login(installation, known_as).leave()
    until_s = time.monotonic() + START_S_MAX
    while True:
        wire = Wire(installation.plain)
        if wire.connect(credentials.client_id, credentials.username, credentials.password, **options) == 0:
            return wire
        wire.close()
        assert time.monotonic() < until_s, f"{credentials.username} is not let in"
        time.sleep(0.02)


def connected(installation: Installation, credentials: Credentials) -> JsonDevice:
    """A device that has subscribed, once the broker knows its login."""
    login(installation, credentials).leave()
    return JsonDevice(installation.plain, credentials)
