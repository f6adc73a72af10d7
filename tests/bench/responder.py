"""P3's other side: a real mosquitto, and a paho-mqtt client behind it that answers every question with a constant.

``python -m tests.bench.responder FOLDER [--tls CERTIFICATES] [--broker-url URL]`` prints the port and serves until
SIGTERM. It does what the product's walk does on the wire and no work at all: no store, no user, no decision.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.bench.floor import constant_answer
from tests.support.mosquitto import PROGRAM
from tests.support.ports import free_ports

START_S_MAX = 10.0
LOGIN = "bench-fleet"  # of every device, see tests.bench.load
PASSWORD = "bench-password"
RESPONDER = "responder"


def configuration(folder: Path, port: int, certificates: Path | None) -> str:
    """As a careful administrator has it: passwords, an access list by client id, no delay."""
    tls = ""
    if certificates is not None:
        tls = f"certfile {certificates}/server.pem\nkeyfile {certificates}/server.key\n"
    user = "user root\n" if os.geteuid() == 0 else ""
    return (
        f"{user}allow_anonymous false\npassword_file {folder}/passwords\nacl_file {folder}/acl\n"
        "set_tcp_nodelay true\nmax_queued_messages 0\nmax_packet_size 66560\npersistence false\nlog_type error\n"
        f"listener {port} 127.0.0.1\n{tls}"
    )


def write_files(folder: Path, port: int, certificates: Path | None) -> None:
    for path in (folder / "passwords", folder / "acl"):
        path.touch(0o600)
    program = shutil.which("mosquitto_passwd")
    assert program is not None
    for name in (LOGIN, RESPONDER):
        subprocess.run([program, "-b", str(folder / "passwords"), name, PASSWORD], check=True, capture_output=True)
    rights = "pattern write prov/v1/%c/request\npattern read prov/v1/%c/response\n"
    (folder / "acl").write_text(f"{rights}user {RESPONDER}\ntopic readwrite prov/v1/#\n")
    (folder / "mosquitto.conf").write_text(configuration(folder, port, certificates))


class Responder:
    """One network thread, as the product's own link to such a broker has."""

    def __init__(self, port: int, certificates: Path | None, broker_url: str) -> None:
        self._answer = constant_answer(broker_url)
        self._ready = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=RESPONDER)
        self._client.username_pw_set(RESPONDER, PASSWORD)
        if certificates is not None:
            self._client.tls_set(str(certificates / "ca.pem"))
        self._client.max_inflight_messages_set(1_000)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._ready.set()
        until_s = time.monotonic() + START_S_MAX
        while True:
            try:
                self._client.connect("localhost" if certificates else "127.0.0.1", port)
                break
            except OSError:
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.02)
        self._client.loop_start()
        self._client.subscribe("prov/v1/+/request", 1)
        assert self._ready.wait(START_S_MAX)

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        client.publish(message.topic.removesuffix("request") + "response", self._answer, qos=1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tls", type=Path, help="folder of ca.pem, server.pem and server.key")
    parser.add_argument("--broker-url", default="mqtt://127.0.0.1:1883")
    arguments = parser.parse_args()
    (port,) = free_ports(1)
    write_files(arguments.folder, port, arguments.tls)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with subprocess.Popen([PROGRAM, "-c", str(arguments.folder / "mosquitto.conf")]) as server:
        responder = Responder(port, arguments.tls, arguments.broker_url)
        print(json.dumps(port), flush=True)
        stop.wait()
        responder.close()
        server.terminate()


if __name__ == "__main__":
    main()
