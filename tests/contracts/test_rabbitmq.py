"""RabbitMQ as an account broker that asks us: the common contract against a real cluster of two nodes."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from provisioner.account_brokers.callback_rabbitmq import RabbitMq
from provisioner.account_brokers.http_callback import HttpCallbackBroker
from provisioner.account_brokers.http_client import ManagementClient
from provisioner.account_brokers.http_server import Handler, HttpServer
from provisioner.account_brokers.management import RabbitManagement
from provisioner.model.errors import Unavailable
from provisioner.model.ports import Sighting
from provisioner.model.secret import Secret
from tests.contracts.account_broker_contract import AccountBrokerContract
from tests.contracts.account_broker_stage import LoopThread, Stage, closing_devices, user, verify
from tests.contracts.mqtt_device import ACCEPTED, SOON_S
from tests.support.rabbit_cluster import ADMIN, ADMIN_PASSWORD, RabbitCluster


@pytest.fixture(scope="module")
def cluster(rabbit: RabbitCluster) -> RabbitCluster:
    return rabbit


@pytest.fixture(scope="module")
def loop() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.close()


def serving(cluster: RabbitCluster) -> HttpCallbackBroker:
    def serve(handler: Handler) -> HttpServer:
        return HttpServer("127.0.0.1", cluster.callback_port, handler)

    client = ManagementClient(tuple(cluster.management_urls), ADMIN, Secret(ADMIN_PASSWORD))
    return HttpCallbackBroker(
        "rabbit",
        RabbitMq(),
        serve,
        verify,
        lambda: datetime.now(UTC),
        secret=Secret(cluster.secret),
        management=RabbitManagement(client),
    )


_turns = itertools.count()


@pytest.fixture
def stage(cluster: RabbitCluster, loop: LoopThread) -> Iterator[Stage]:
    """A fresh endpoint in front of the cluster; devices of one test are on one node, of the next on the other."""
    sightings: list[Sighting] = []
    broker = serving(cluster)
    loop.run(broker.start(sightings.append))
    address = ("127.0.0.1", cluster.nodes[next(_turns) % 2].mqtt)
    try:
        with closing_devices(Stage(broker, address, loop, sightings)) as made:
            yield made
    finally:
        for name in ("user-1", "user-2"):
            loop.run(broker.remove_user("acme", name))
        loop.run(broker.stop())


class TestRabbitMq(AccountBrokerContract):
    pass


def test_the_newest_connection_wins_across_nodes(stage: Stage, cluster: RabbitCluster) -> None:
    """kapua#2219: a connection on the other node takes the client id over; one with a wrong password does not."""
    made = stage.put(user(1))
    first, second = (("127.0.0.1", node.mqtt) for node in cluster.nodes)
    stage.address = first
    older = stage.of(made).admitted()
    stage.address = second
    assert stage.device("gw1", "user-1", "Wrong-word-1").connect() != ACCEPTED
    assert not older.left.is_set()
    newer = stage.of(made).admitted()
    assert older.left.wait(SOON_S)
    assert newer.subscribe("acme/gw1/#")


def test_a_kick_reaches_the_other_node(stage: Stage, cluster: RabbitCluster) -> None:
    """F-08: whichever node a device is on, one management address of the cluster is enough to cut it."""
    made = stage.put(user(1))
    for node in cluster.nodes:
        stage.address = ("127.0.0.1", node.mqtt)
        device = stage.of(made).admitted()
        assert stage.loop.run(stage.broker.kick("acme", "gw1"))
        assert device.left.wait(SOON_S)


def test_a_dot_is_no_part_of_a_client_id(stage: Stage) -> None:
    """F-09: RabbitMQ takes a dot for a slash, so such a client id is refused by name, here and at the login."""
    with pytest.raises(Unavailable, match=r"'\.'"):
        stage.put(user(1, client_id="gw1.x"))


def test_topics_with_dots_stay_in_their_own_space(stage: Stage) -> None:
    """F-09: what RabbitMQ makes of a dot or a star in a topic is what is judged."""
    stage.put(user(1))
    victim = stage.of(user(1)).admitted()
    assert victim.subscribe("acme/gw1/#")
    made = stage.put(user(2))
    for topic in ("acme.gw1.data", "acme/gw1.data"):
        stage.of(made).admitted().publish(topic, b"forged")
    for topic_filter in ("acme.gw1.data", "acme/*/data", "acme.*.data", "*/gw1/#"):
        assert not stage.of(made).admitted().subscribe(topic_filter)
    victim.publish("acme/gw1/marker", b"last")
    assert victim.got("acme/gw1/marker", b"last")
    assert {topic for topic, _, _ in victim.received} == {"acme/gw1/marker"}


def test_nobody_gets_in_while_we_do_not_answer(stage: Stage) -> None:
    """Fails closed: without our answer a login is refused; who is in stays in."""
    made = stage.put(user(1))
    device = stage.of(made).admitted()
    stage.loop.run(stage.broker.stop())
    assert stage.of(made, "gw1").connect() != ACCEPTED
    assert not device.left.is_set()
    stage.loop.run(stage.broker.start(stage.sightings.append))
    assert stage.of(made).connect() == ACCEPTED


def test_the_cluster_was_made_of_two(cluster: RabbitCluster) -> None:
    """Both nodes know each other, so that what this file proves is proved on a cluster."""
    client = ManagementClient((cluster.management_urls[0],), ADMIN, Secret(ADMIN_PASSWORD))
    loop = LoopThread()
    try:
        nodes = loop.run(client.ask("GET", "/api/nodes"))
    finally:
        loop.close()
    assert all(node.name.encode() in nodes.body for node in cluster.nodes)
