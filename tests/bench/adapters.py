"""The account brokers: P9, and the rate of whole walks that end on each kind of them."""

import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from broker.loop import run
from tests.bench.figure import Figure
from tests.bench.load import Device, LoadPlan, load
from tests.bench.mosquitto_certificates import certificate_stall_ms
from tests.bench.mosquitto_users import BATCH, stall_ms
from tests.bench.site import IN_FLIGHT, WARM_DEVICES, Bench, provision_message
from tests.support.installation import Installation
from tests.support.mosquitto import MosquittoServer, mosquitto_settings
from tests.support.ports import free_ports
from tests.support.rabbit_cluster import rabbit_settings, running_cluster, write_rabbit_secrets

USERS, CONNECTED, STALL_BAR_MS = 50_000, 1_000, 50.0
USERS_MAX = 25_000  # that the adapter takes by default
DEVICES = 800
KINDS = ("embedded", "mosquitto-files", "mosquitto-dynsec", "certificate", "http-callback (RabbitMQ)")
BROKER, ACCOUNT = "away", "acme"
CONFIRMED_S_MAX = 60.0


def p9(bench: Bench) -> Iterator[Figure]:
    """P9: how long a mosquitto with many users stands still when it is told of more; beside it the most users that
    ``mosquitto-files`` takes, and the kind for more than those."""
    for users in (USERS, USERS_MAX):
        stall = stall_ms(users, CONNECTED)
        bench.raw[f"stall, mosquitto-files, {users}"] = asdict(stall)
        yield Figure("P9", f"mosquitto-files stall with {users:,} users", stall.stall_ms, STALL_BAR_MS, False, "ms")
        yield Figure("P9", f"times told for each batch of {BATCH}", stall.readings / stall.batches, 1, False)
    stall = certificate_stall_ms(USERS, CONNECTED)
    bench.raw[f"stall, certificate, {USERS}"] = asdict(stall)
    yield Figure("P9", f"certificate stall with {USERS:,} devices", stall.stall_ms, STALL_BAR_MS, False, "ms")


def adapters(bench: Bench) -> Iterator[Figure]:
    """Whole walks, the second hop with the device's own credentials on the real broker, until all are confirmed."""
    for kind in KINDS:
        with ExitStack() as stack:
            installation = _installation(bench, kind, stack)
            devices = _devices(installation)
            plan = LoadPlan(
                port=installation.plain.port,
                in_flight=IN_FLIGHT,
                second_topic=f"{ACCOUNT}/{{client_id}}/hello",
                second_tls=ssl.create_default_context(cafile=installation.ca),
                second_ca=installation.ca,
            )
            run(load(devices[:WARM_DEVICES], plan))
            began_s = time.perf_counter()
            taken = run(load(devices[WARM_DEVICES:], plan))
            assert taken.provisioned == taken.devices, (kind, taken.outcomes)
            _await_confirmed(installation, len(devices))
            confirmed_s = time.perf_counter() - began_s
        bench.raw[f"adapter, {kind}"] = asdict(taken) | {"confirmed_s": confirmed_s}
        yield Figure("ADAPTER", kind, taken.devices_per_s, unit="devices/s")
        yield Figure("ADAPTER", f"{kind} until confirmed", taken.devices / confirmed_s, unit="devices/s")


def _installation(bench: Bench, kind: str, stack: ExitStack) -> Installation:
    """Running, with an account on a broker of that kind."""
    folder = bench.site.new_folder() / "installation"
    certificates = "server-key" if kind == "certificate" else "off"
    if kind.startswith("http-callback"):
        cluster = stack.enter_context(running_cluster(bench.site.new_folder()))
        settings = rabbit_settings(cluster, BROKER, cluster.nodes[0].mqtt)
        installation = Installation(folder, brokers=(), account_brokers=[settings])
        write_rabbit_secrets(cluster, BROKER, installation.folder)
    elif kind == "embedded":
        settings = {"name": BROKER, "kind": kind, "port": free_ports(1)[0]}
        installation = Installation(folder, brokers=(), account_brokers=[settings])
    else:
        settings = mosquitto_settings(kind, BROKER, tls=kind == "certificate")
        installation = Installation(folder, brokers=(), account_brokers=[settings])
        installation.cli("broker", "render", "mosquitto", "--write")
        stack.enter_context(MosquittoServer(settings, folder))
    stack.enter_context(installation.running())
    installation.account(ACCOUNT, BROKER, certificates=certificates)
    return installation


def _devices(installation: Installation) -> list[Device]:
    names = [f"gw{number:05d}" for number in range(DEVICES + WARM_DEVICES)]
    rows: list[tuple[int, dict[str, Any]]] = [
        (n, {"account": ACCOUNT, "client_id": name, "username": f"user-{name}"}) for n, name in enumerate(names)
    ]
    with installation.client() as client:
        made = list(client.send_rows(rows))
    return [
        Device(row["client_id"], row["username"], row["secrets"]["password"].encode(), provision_message(number))
        for number, row in enumerate(made)
    ]


def _await_confirmed(installation: Installation, count: int) -> None:
    until_s = time.monotonic() + CONFIRMED_S_MAX
    while (there := installation.ask("status")["requests"]["confirmed"]) < count:
        assert time.monotonic() < until_s, f"{there} of {count} are confirmed"
        time.sleep(0.01)
