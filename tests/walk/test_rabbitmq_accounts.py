"""The walk through the gate to RabbitMQ: a real cluster of two, which asks the service about every device."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from device_sim.actions import Log
from tests.support.device import Address
from tests.support.fleet import QUICK, all_came_home, run_fleet
from tests.support.installation import Installation
from tests.support.machine import patience
from tests.support.ports import free_ports
from tests.support.rabbit_cluster import RabbitCluster, rabbit_settings, write_rabbit_secrets
from tests.support.relay import Balancer

FreshId = Callable[[], str]
BROKER = "rabbit"
FLEET = 200
PROOF_S = 2.0


@dataclass
class Site:
    """account acme lives on the cluster, account bolt on the embedded broker; a balancer stands before the cluster."""

    installation: Installation
    cluster: RabbitCluster
    balancer: Balancer

    def provision(self, client_id: str, **fields: Any) -> dict[str, Any]:
        """Until confirmed."""
        return dict(self.installation.provision(self.installation.request(client_id, **fields), broker=BROKER))

    def is_refused(self, answer: dict[str, Any]) -> bool:
        try:
            self.installation.account_wire(answer, BROKER).close()
        except ConnectionRefusedError:
            return True
        return False


@pytest.fixture(scope="module")
def site(rabbit: RabbitCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    balancer = Balancer(*(Address(node.mqtt) for node in rabbit.nodes))
    near: dict[str, Any] = {"name": "embedded", "kind": "embedded", "port": free_ports(1)[0]}
    settings = rabbit_settings(rabbit, BROKER, balancer.port)
    installation = Installation(
        tmp_path_factory.mktemp("rabbit") / "installation", brokers=(), account_brokers=[settings, near]
    )
    installation.account_brokers = {
        BROKER: Address(balancer.port),
        "embedded": Address(near["port"], installation.ca),
    }
    write_rabbit_secrets(rabbit, BROKER, installation.folder)
    with balancer, installation.running():
        balancer.open()
        installation.account("acme", BROKER)
        installation.account("bolt", "embedded")
        yield Site(installation, rabbit, balancer)


def test_ec_31_a_device_ends_on_rabbitmq_and_is_confirmed_there(site: Site, fresh_id: FreshId) -> None:
    """The user exists where the service is asked; its own topics work and nobody else's; the account shows what the
    broker can do."""
    answer = site.provision(fresh_id())
    with site.installation.account_wire(answer, BROKER) as wire:
        assert wire.subscribe(f"acme/{answer['client_id']}/#") == (1,)
        wire.publish(f"$EDC/acme/{answer['client_id']}/MQTT/BIRTH", b"x")
        assert wire.subscribe("acme/#") == ()
    shown = json.loads(site.installation.cli("account", "show", "acme", "-o", "json").stdout)
    can = shown["broker_capabilities"]
    assert (can["kicks"], can["refusal_disconnects"], can["mqtt5"]) == (True, True, False)


def test_the_selftest_passes_on_rabbitmq(site: Site) -> None:
    """RabbitMQ cuts who asks for what is not his: every rule is tried all the same, and holds."""
    result = site.installation.ask("selftest", patience_s=60)
    assert [check for check in result["checks"] if not check["passed"]] == []
    report = {each["target"]: each for each in result["isolation"]}[f"account broker {BROKER}"]
    assert report["took_s"] < PROOF_S * patience()


def test_the_broker_is_looked_at_from_outside(site: Site) -> None:
    """`broker check`: our endpoint knows who proves itself, and no stranger; the cluster's management answers."""
    rows = json.loads(site.installation.cli("broker", "check", BROKER, "-o", "json").stdout)
    assert [(row["name"], row["passed"]) for row in rows] == [
        ("endpoint", True),
        ("stranger", True),
        ("management", True),
    ]


def test_f_09_a_client_id_with_a_dot_is_no_request_for_rabbitmq(site: Site, fresh_id: FreshId) -> None:
    """RabbitMQ takes a dot for a slash, so that the request is refused by name; on another broker it is none."""
    client_id = f"{fresh_id()}.x"
    create = ("request", "create", "--client-id", client_id, "--username", f"user-{fresh_id()}")
    refused = site.installation.cli(*create, "--account", "acme", status=6)
    assert "client_id" in refused.stderr
    assert "'.'" in refused.stderr
    site.installation.cli(*create, "--account", "bolt")


def test_a_restarted_service_knows_its_users_again(site: Site, fresh_id: FreshId) -> None:
    """D6: what was only in memory is there again after a kill; the live connection was never touched."""
    answer = site.provision(fresh_id())
    with site.installation.account_wire(answer, BROKER) as wire:
        site.installation.kill()
        site.installation.start()
        assert wire.subscribe(f"acme/{answer['client_id']}/#") == (1,)
    assert not site.is_refused(answer)


def test_f_27_a_killed_node_keeps_no_device_from_being_confirmed(site: Site) -> None:
    """Two hundred devices provision while one of the two nodes is killed: all of them end confirmed."""
    installation = site.installation
    made = [installation.request(f"node-{number:03}") for number in range(FLEET)]
    rows = [f"{each.client_id},{each.username},{each.password}" for each in made]
    (installation.folder / "devices.csv").write_text("\n".join(("client_id,username,password", *rows)))
    connected: list[str] = []
    killing = threading.Lock()

    def observe(who: str, log: Log) -> None:
        if log.event == "CONNECTED":
            connected.append(who)
        if len(connected) >= FLEET // 4 and killing.acquire(blocking=False):
            site.cluster.nodes[0].kill()

    report, made_fleet = run_fleet(
        installation,
        {
            "name": "nodes",
            "devices_file": "devices.csv",
            "timeouts": QUICK | {"reply_s": 4.0},
            "arrival": {"pattern": "uniform", "over_s": 4},
            "stay_s": 0,
        },
        folder=installation.folder,
        observe=observe,
    )
    assert killing.locked(), "no node was killed"
    assert all_came_home(made_fleet), report.outcomes()
    for each in made:
        installation.await_state(each.client_id, "confirmed")
