"""A real mosquitto as an account broker, as the settings describe it and `fleetgate broker render` configures it."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from provisioner.broker_settings import BrokerSettings, MosquittoSettings
from provisioner.model.ports import AccountBroker
from provisioner.mosquitto_setup import CONFIGURATION, mosquitto_broker, write_configuration
from tests.support.ports import free_ports, serves

START_S_MAX = 30.0
KINDS = ("mosquitto-files", "mosquitto-dynsec")
CONTROL_PREFIX = "$EDC"
# Debian installs the server where an ordinary user's PATH does not lead.
PROGRAM = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") or "mosquitto"


def mosquitto_settings(kind: str, name: str = "south", **changes: Any) -> dict[str, Any]:
    """As they stand in the file; ports that are free just now, plain listeners on the loopback interface."""
    devices, control = free_ports(2)
    own: dict[str, Any] = {"name": name, "kind": kind, "host": "127.0.0.1", "port": devices, "control_port": control}
    own |= {"tls": False, "pid_file": f"mosquitto/{name}.pid"}
    if os.geteuid() == 0:
        own["system_user"] = "root"  # else it becomes a user who may not look into a test's folder
    return own | changes


class MosquittoServer:
    """The process. It may be killed and started again, on the same ports and with the same files."""

    def __init__(self, settings: dict[str, Any], base: Path) -> None:
        self.settings: MosquittoSettings = TypeAdapter(BrokerSettings).validate_python(settings)  # type: ignore[assignment]  # the kinds of this module
        self.base = base
        self.folder = base / self.settings.own_folder
        self.address = ("127.0.0.1", self.settings.port)
        self.log = base / f"{self.settings.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def adapter(self) -> AccountBroker:
        return mosquitto_broker(self.settings, self.base, CONTROL_PREFIX)

    def prepare(self) -> None:
        """Write the configuration, unless there is one."""
        if not (self.folder / CONFIGURATION).exists():
            write_configuration(self.settings, self.base, CONTROL_PREFIX)

    def start(self) -> None:
        """Returns when both listeners are open. Configuration is written at the first start only."""
        self.prepare()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([PROGRAM, "-c", str(self.folder / CONFIGURATION)], stdout=log, stderr=log)
        until_s = time.monotonic() + START_S_MAX
        for port in (self.settings.port, self.settings.control_port):
            while not serves(port):
                assert self.process.poll() is None, f"mosquitto ended: {self.log.read_text()[-2000:]}"
                assert time.monotonic() < until_s, "mosquitto does not listen"
                time.sleep(0.01)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(START_S_MAX)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(START_S_MAX)
