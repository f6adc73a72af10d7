"""RabbitMQ nodes on the loopback interface that ask an HTTP endpoint about every login; in a folder of their own.

Their configuration is what `fleetgate broker render rabbitmq` writes, and nothing besides."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioner.callback_render import write_configuration
from provisioner.callback_settings import HttpCallbackSettings
from tests.support.ports import free_ports, listens

START_S_MAX = 90.0
# What Debian puts in the path changes to a user of its own; these do not.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")
ADMIN, ADMIN_PASSWORD = "operator", "Operator-word-1"


@dataclass(frozen=True, slots=True)
class Papers:
    """PEM files: of the nodes' devices' listeners, and of who signed these and what our endpoint shows."""

    certificate: Path
    key: Path
    authority: Path


class RabbitNode:
    """mqtt, management: its ports."""

    def __init__(self, folder: Path, name: str, epmd: int) -> None:
        self.folder, self.name = folder, name
        self.mqtt, self.management, self._dist = free_ports(3)
        self._epmd = epmd
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin; ``wait`` says when it serves."""
        folder = self.folder
        environment = {
            **os.environ,
            "HOME": str(folder.parent),  # where the cookie is
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PLUGINS_EXPAND_DIR": str(folder / "expanded"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        }
        with (folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                [PROGRAMS / "rabbitmq-server"], env=environment, stdout=out, stderr=out, start_new_session=True
            )

    def wait(self) -> None:
        """Until devices can connect."""
        until_s = time.monotonic() + START_S_MAX
        while not listens(self.mqtt):
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "out").read_text()[-2000:]
            assert time.monotonic() < until_s, "the node does not start"
            time.sleep(0.1)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """As by a power cut; nothing when it does not run."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """What it kept of its former life; it must not run."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)


class RabbitCluster:
    """nodes: joined. secret: what they prove themselves by at ``http://127.0.0.1:callback_port``, where one
    service at a time can be asked; with papers by TLS, as devices at the nodes."""

    def __init__(self, folder: Path, size: int, papers: Papers | None) -> None:
        epmd, self.callback_port = free_ports(2)
        self.secret = secrets.token_urlsafe(16)
        cookie = folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        self.epmd = epmd
        names = [f"fleetgate-{number}@localhost" for number in range(1, size + 1)]
        self.nodes = [RabbitNode(folder / name.partition("@")[0], name, epmd) for name in names]
        write_rabbit_secrets(self, "rabbit", folder)
        for node in self.nodes:
            settings = HttpCallbackSettings.model_validate(_node_settings(self, node, papers))
            write_configuration(settings, folder, node.folder, names if size > 1 else ())

    def heal(self) -> None:
        """All nodes serve. Once one was killed all of them begin anew, with nothing kept: a node of RabbitMQ 3.10 that
        comes back may try for minutes to join the others' record of client ids, and does not listen meanwhile."""
        if all(node.is_running for node in self.nodes):
            return
        for node in self.nodes:
            node.kill()
            node.forget()
            node.start()
        for node in self.nodes:
            node.wait()
        self._await_virtual_host()

    def _await_virtual_host(self) -> None:
        """Until it is up on every node. A node that joined while another one made it may have missed it; then a device
        is hung up on, so it is told to start it, as an administrator would."""
        until_s = time.monotonic() + START_S_MAX
        while down := [node.name for node in self.nodes if self._virtual_host().get(node.name) != "running"]:
            assert time.monotonic() < until_s, f"its virtual host is down on {down}"
            for name in down:
                with suppress(OSError):
                    self._ask("POST", f"/api/vhosts/%2F/start/{name}")
            time.sleep(0.1)

    def _virtual_host(self) -> Mapping[str, str]:
        """The state of ``/`` on each node; empty while nobody answers."""
        with suppress(OSError):
            return dict(json.loads(self._ask("GET", "/api/vhosts/%2F")).get("cluster_state", {}))
        return {}

    def _ask(self, method: str, path: str) -> bytes:
        """Of the first node's management. Raises OSError."""
        login = b64encode(f"{ADMIN}:{ADMIN_PASSWORD}".encode()).decode()
        request = urllib.request.Request(self.management_urls[0] + path, method=method)
        request.add_header("Authorization", f"Basic {login}")
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bytes(answer.read())

    @property
    def management_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{node.management}" for node in self.nodes]


def _node_settings(cluster: RabbitCluster, node: RabbitNode, papers: Papers | None) -> dict[str, Any]:
    """Those of the whole, and what is different on each node where all of them are on one host."""
    settings = rabbit_settings(cluster, "rabbit", node.mqtt)
    settings["management"] = settings["management"] | {"urls": [f"http://127.0.0.1:{node.management}"]}
    settings["host"] = "127.0.0.1"
    if papers is not None:
        settings |= {"tls": True, "callback_tls": True, "callback_url_host": "localhost", "authority": papers.authority}
        settings |= {"certificate": papers.certificate, "key": papers.key}
    return settings


def rabbit_settings(cluster: RabbitCluster, name: str, port: int) -> dict[str, Any]:
    """Of an account broker that devices reach at ``port``, as they stand in the file."""
    return {
        "name": name,
        "kind": "http-callback",
        "product": "rabbitmq",
        "url_host": "127.0.0.1",
        "port": port,
        "tls": False,
        "callback_port": cluster.callback_port,
        "management": {"urls": cluster.management_urls, "username": ADMIN, "password": "management.secret"},
    }


def write_rabbit_secrets(cluster: RabbitCluster, name: str, folder: Path) -> None:
    """Into the installation's folder, before it starts."""
    own = {"management.secret": ADMIN_PASSWORD, f"callbacks/{name}.secret": cluster.secret}
    for path, secret in own.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(secret)
        (folder / path).chmod(0o600)


@contextmanager
def running_cluster(folder: Path, size: int = 2, papers: Papers | None = None) -> Iterator[RabbitCluster]:
    """All nodes serve; none is left at the end, nor the port mapper that they found each other by."""
    assert PROGRAMS.is_dir(), "rabbitmq-server is not installed; scripts/system-packages says how"
    epmd_program = shutil.which("epmd")
    assert epmd_program is not None
    cluster = RabbitCluster(folder, size, papers)
    environment = {**os.environ, "ERL_EPMD_ADDRESS": "127.0.0.1"}
    mapper = subprocess.Popen([epmd_program, "-port", str(cluster.epmd)], env=environment)
    try:
        cluster.heal()
        yield cluster
    finally:
        for node in cluster.nodes:
            node.kill()
        mapper.kill()
        mapper.wait()
