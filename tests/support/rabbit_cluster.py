"""Two RabbitMQ nodes on the loopback interface that ask an HTTP endpoint about every login; in a folder of its own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.ports import free_ports

START_S_MAX = 90.0
# What Debian puts in the path changes to a user of its own; these do not.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")
ADMIN, ADMIN_PASSWORD = "operator", "Operator-word-1"
CALLER = "rabbit"


class RabbitNode:
    """mqtt, management: its ports."""

    def __init__(self, folder: Path, number: int, epmd: int, settings: str) -> None:
        self.folder, self.name = folder, f"fleetgate-{number}@localhost"
        self.amqp, self.mqtt, self.management, self._dist = free_ports(4)
        self._epmd = epmd
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        (folder / "enabled_plugins").write_text("[rabbitmq_mqtt,rabbitmq_auth_backend_http,rabbitmq_management].")
        (folder / "rabbitmq.conf").write_text(f"""
listeners.tcp.1 = 127.0.0.1:{self.amqp}
mqtt.listeners.tcp.1 = 127.0.0.1:{self.mqtt}
management.tcp.ip = 127.0.0.1
management.tcp.port = {self.management}
{settings}""")

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
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.mqtt), 1.0).close()
                return
            except OSError:
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


class RabbitCluster:
    """nodes: two, joined. secret: what they prove themselves by at ``http://127.0.0.1:callback_port``, where one
    service at a time can be asked."""

    def __init__(self, folder: Path) -> None:
        epmd, self.callback_port = free_ports(2)
        self.secret = secrets.token_urlsafe(16)
        cookie = folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        self.epmd = epmd
        settings = _settings(self.callback_port, self.secret)
        self.nodes = [RabbitNode(folder / f"node-{number}", number, epmd, settings) for number in (1, 2)]

    def heal(self) -> None:
        """Bring back what was killed."""
        dead = [node for node in self.nodes if not node.is_running]
        for node in dead:
            node.start()
        for node in dead:
            node.wait()

    @property
    def management_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{node.management}" for node in self.nodes]


def _settings(callback_port: int, secret: str) -> str:
    asked = f"http://{CALLER}:{secret}@127.0.0.1:{callback_port}"
    paths = "\n".join(f"auth_http.{name}_path = {asked}/{name}" for name in ("user", "vhost", "resource", "topic"))
    return f"""
mqtt.allow_anonymous = false
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = fleetgate-1@localhost
cluster_formation.classic_config.nodes.2 = fleetgate-2@localhost
auth_backends.1 = internal
auth_backends.2 = http
auth_http.http_method = post
{paths}
default_user = {ADMIN}
default_pass = {ADMIN_PASSWORD}
log.console = false
"""


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
def running_cluster(folder: Path) -> Iterator[RabbitCluster]:
    """Both nodes serve; none is left at the end, nor the port mapper that they found each other by."""
    assert PROGRAMS.is_dir(), "rabbitmq-server is not installed; scripts/system-packages says how"
    epmd_program = shutil.which("epmd")
    assert epmd_program is not None
    cluster = RabbitCluster(folder)
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
