"""RabbitMQ as `fleetgate broker render` configures it for a site beyond one host: TLS for devices and for questions."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from provisioner.account_brokers.callback_rabbitmq import RabbitMq
from provisioner.account_brokers.http_callback import HttpCallbackBroker
from provisioner.account_brokers.http_server import Handler, HttpServer
from provisioner.authority.local_ca import LocalAuthority
from provisioner.model.secret import Secret
from tests.contracts.account_broker_stage import LoopThread, Stage, closing_devices, user, verify
from tests.contracts.mqtt_device import ACCEPTED
from tests.support.rabbit_cluster import Papers, RabbitCluster, running_cluster

HOST = "127.0.0.1"
NAMES = [HOST, "localhost"]


def papers(folder: Path, name: str, hosts: list[str]) -> Papers:
    """Of an authority of that name, whose key is kept beside them."""
    authority = LocalAuthority.create(name, datetime.now(UTC))
    (folder / f"{name}-authority.key").write_text(authority.key_pem().reveal())
    return signed(folder, name, authority, hosts)


def signed(folder: Path, name: str, authority: LocalAuthority, hosts: list[str]) -> Papers:
    """For a server of these hosts."""
    certificate, key = authority.server(hosts, datetime.now(UTC))
    made = Papers(*(folder / f"{name}-{what}.pem" for what in ("server", "key", "ca")))
    made.certificate.write_text(certificate)
    made.key.write_text(key.reveal())
    made.authority.write_text(authority.pem)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rabbit-tls")


@pytest.fixture(scope="module")
def ours(folder: Path) -> Papers:
    return papers(folder, "ours", NAMES)


@pytest.fixture(scope="module")
def node(folder: Path, ours: Papers) -> Iterator[RabbitCluster]:
    with running_cluster(folder, 1, ours) as running:
        yield running


def endpoint(node: RabbitCluster, shown: Papers) -> HttpCallbackBroker:
    """Our side, which shows this certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(shown.certificate, shown.key)

    def serve(handler: Handler) -> HttpServer:
        return HttpServer(HOST, node.callback_port, handler, context)

    return HttpCallbackBroker(
        "rabbit", RabbitMq(), serve, verify, lambda: datetime.now(UTC), secret=Secret(node.secret)
    )


def logs_in(node: RabbitCluster, ours: Papers, shown: Papers) -> bool:
    """Whether a known device gets in while our endpoint shows that certificate."""
    loop = LoopThread()
    try:
        broker = endpoint(node, shown)
        loop.run(broker.start(lambda _: None))
        stage = Stage(broker, (HOST, node.nodes[0].mqtt), loop, [], ours.authority)
        with closing_devices(stage):
            answer = stage.of(stage.put(user(1))).connect()
        loop.run(broker.stop())
        return bool(answer == ACCEPTED)
    finally:
        loop.close()


def test_devices_and_questions_go_by_tls(node: RabbitCluster, ours: Papers) -> None:
    """AZ-03: a device that trusts our authority gets in by TLS, and nothing plain listens for devices."""
    assert logs_in(node, ours, ours)
    conf = (node.nodes[0].folder / "rabbitmq.conf").read_text()
    assert "mqtt.listeners.tcp = none\n" in conf
    with socket.create_connection((HOST, node.nodes[0].mqtt)) as line:
        line.settimeout(5.0)
        line.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
        with suppress(ConnectionResetError):  # it need not say why it hangs up
            assert b"\x20\x02" not in line.recv(100)[:2]


def test_nobody_is_let_in_by_an_endpoint_that_is_not_ours(node: RabbitCluster, ours: Papers, folder: Path) -> None:
    """AZ-03: what listens in our endpoint's place is not asked: not with the certificate of another authority, nor with
    one of ours for another host."""
    assert not logs_in(node, ours, papers(folder, "theirs", NAMES))
    authority = LocalAuthority.read(ours.authority, folder / "ours-authority.key")
    assert not logs_in(node, ours, signed(folder, "elsewhere", authority, ["other.example"]))
    assert logs_in(node, ours, ours)
