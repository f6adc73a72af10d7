"""A provision broker and an account broker in one mosquitto, with a scripted platform behind the former."""

import datetime
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.mosquitto import PROGRAM
from tests.support.ports import free_ports

FACTORY, FACTORY_PASSWORD = "meters", "Factory-pass-1"
ACCOUNT, ACCOUNT_PASSWORD = "acme-user", "Account-pass-1"
SERVICE, SERVICE_PASSWORD = "platform", "Platform-pass-1"
START_LIMIT_S = 10.0

Body = dict[str, Any]
Script = Callable[[str, Body, int], Body | None]


def write_certificates(folder: Path) -> None:
    """ca.pem, and server.pem with server.key for the name localhost and no other."""
    now = datetime.datetime.now(datetime.UTC)

    def issue(subject: str, issuer: str, public: Any, signer: Any, extension: x509.ExtensionType) -> bytes:
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (subject, issuer)]
        builder = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(1))
        builder = builder.not_valid_after(now + datetime.timedelta(2)).add_extension(extension, critical=True)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    basic = x509.BasicConstraints(ca=True, path_length=None)
    (folder / "ca.pem").write_bytes(issue("test ca", "test ca", authority.public_key(), authority, basic))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    (folder / "server.pem").write_bytes(issue("localhost", "test ca", server.public_key(), authority, names))
    (folder / "server.key").write_bytes(
        server.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


class Site:
    """plain, tls, ws: URLs of the listeners. asked: every question, acks: every acknowledgement, in order of arrival.

    script(client id, question, how many from it so far) gives the answer's fields, or None for silence.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(("plain", "tls", "ws"), free_ports(3), strict=True))
        self.plain = f"mqtt://127.0.0.1:{self.ports['plain']}"
        self.tls = f"mqtts://localhost:{self.ports['tls']}"
        self.ws = f"ws://127.0.0.1:{self.ports['ws']}/mqtt"
        self.script: Script = self.provision
        self.asked: list[tuple[str, Body]] = []
        self.acks: list[tuple[str, Body]] = []
        self.first: list[str] = []

    def reset(self) -> None:
        self.script = self.provision
        for seen in (self.asked, self.acks, self.first):
            seen.clear()

    def provision(self, client_id: str, question: Body, n: int) -> Body:
        return {
            "status": "provisioned",
            "account": "acme",
            "broker_url": self.plain,
            "client_id": client_id,
            "username": ACCOUNT,
            "password": ACCOUNT_PASSWORD,
        }

    def on_message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        if message.topic.startswith("acme/"):
            self.first.append(message.topic.split("/")[1])
            return
        client_id, what = message.topic.split("/")[2:4]
        body = json.loads(message.payload)
        if what == "ack":
            self.acks.append((client_id, body))
            return
        self.asked.append((client_id, body))
        answer = self.script(client_id, body, sum(who == client_id for who, _ in self.asked))
        if answer is not None:
            full = {"request_id": body["request_id"], "server_time": "2026-01-01T00:00:00Z"} | answer
            client.publish(f"prov/v1/{client_id}/response", json.dumps(full), qos=1)


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    site = Site(folder)
    write_certificates(folder)
    logins = {FACTORY: FACTORY_PASSWORD, ACCOUNT: ACCOUNT_PASSWORD, SERVICE: SERVICE_PASSWORD}
    passwords = folder / "passwords"
    passwords.touch(mode=0o600)
    for username, password in logins.items():
        subprocess.run(["mosquitto_passwd", "-b", str(passwords), username, password], check=True, capture_output=True)
    (folder / "mosquitto.conf").write_text(_configuration(site, passwords))
    with (folder / "mosquitto.log").open("wb") as log:
        broker = subprocess.Popen([PROGRAM, "-c", str(folder / "mosquitto.conf")], stdout=log, stderr=log)
    platform = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="platform")
    try:
        _start(platform, site)
        yield site
    finally:
        platform.disconnect()
        platform.loop_stop()
        broker.terminate()
        broker.wait(10)


def _configuration(site: Site, passwords: Path) -> str:
    return f"""
user root
allow_anonymous false
password_file {passwords}
max_queued_messages 0
set_tcp_nodelay true
listener {site.ports["plain"]} 127.0.0.1
listener {site.ports["ws"]} 127.0.0.1
protocol websockets
listener {site.ports["tls"]} 127.0.0.1
cafile {site.folder / "ca.pem"}
certfile {site.folder / "server.pem"}
keyfile {site.folder / "server.key"}
"""


def _start(platform: mqtt.Client, site: Site) -> None:
    """Returns when the platform is subscribed."""
    subscribed: list[int] = []
    platform.username_pw_set(SERVICE, SERVICE_PASSWORD)
    platform.on_message = site.on_message
    platform.on_subscribe = lambda client, userdata, mid, codes, properties: subscribed.append(mid)
    deadline_s = time.monotonic() + START_LIMIT_S
    while True:
        try:
            platform.connect("127.0.0.1", site.ports["plain"])
            break
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)
    platform.loop_start()
    platform.subscribe([("prov/v1/+/request", 1), ("prov/v1/+/ack", 1), ("acme/#", 1)])
    while not subscribed and time.monotonic() < deadline_s:
        time.sleep(0.01)
