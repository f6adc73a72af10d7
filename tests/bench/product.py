"""The product as the figures need it: a real installation with stored requests, whose account broker is elsewhere.

``python -m tests.bench.product FOLDER --requests N --broker-url URL`` makes the installation, where there is none, and
the requests, prints the ports, serves until SIGTERM. ``FOLDER/devices.json`` then holds the devices' credentials.
"""

import argparse
import asyncio
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from broker.loop import run
from provisioner import app
from provisioner.config import Settings
from provisioner.doors import installation
from provisioner.model.account import Account
from provisioner.model.capabilities import Capabilities
from provisioner.model.ports import BrokerUser, Gap, Put, Sighting, Store, Unit, heedless
from provisioner.model.request import ProvisionRequest
from provisioner.services.accounts import Accounts
from provisioner.services.request_import import RequestImport
from provisioner.services.request_making import RequestMaking

SEEN_AFTER_S = 0.02
ACCOUNT = "bench"
AT_ONCE = 500  # rows that an import commits together
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class ReportingBroker:
    """An account broker whose server is another process: it reports each new user as seen a moment later, so that
    the cost of confirming is part of what is measured."""

    name = "elsewhere"

    def __init__(self) -> None:
        self._users: dict[tuple[str, str], BrokerUser] = {}
        self._seen: Callable[[Sighting], None] = lambda sighting: None

    def capabilities(self) -> Capabilities:
        return Capabilities(kicks=False, reports_sightings=True, refuses_subscribe=True, mqtt5=True)

    async def start(self, seen: Callable[[Sighting], None], gap: Callable[[Gap], None] = heedless) -> None:
        self._seen = seen

    async def stop(self) -> None:
        self._users.clear()

    async def put_user(self, user: BrokerUser) -> None:
        self._users[user.account, user.username] = user
        sighting = Sighting(account=user.account, username=user.username, client_id=user.client_id, address="127.0.0.1")
        asyncio.get_running_loop().call_later(SEEN_AFTER_S, self._seen, sighting)

    async def remove_user(self, account: str, username: str) -> None:
        self._users.pop((account, username), None)

    async def kick(self, account: str, client_id: str) -> bool:
        return False

    async def users(self) -> Sequence[tuple[str, str]]:
        return list(self._users)


async def stock(service: app.Service, prefix: str, requests: int, broker_url: str) -> list[dict[str, str]]:
    """One account and that many requests with generated credentials."""
    if await service.platform.store.get(Account, ACCOUNT) is None:
        accounts = Accounts(service.platform, service.effects, service.gate.kick, reserved=frozenset())
        await accounts.create("bench", {"name": ACCOUNT, "broker": ReportingBroker.name, "broker_url": broker_url})
    names = [f"{prefix}{number:06d}" for number in range(requests)]
    rows = [(n, {"account": ACCOUNT, "client_id": name, "username": name}) for n, name in enumerate(names)]
    importing = RequestImport(RequestMaking(service.platform, service.effects), service.platform.now)
    devices = []
    for start in range(0, requests, AT_ONCE):
        for result in await importing.make_all("bench", rows[start : start + AT_ONCE]):
            assert result.made is not None and result.made.password is not None, result.error
            name = result.made.request.client_id
            devices.append({"client_id": name, "username": name, "password": result.made.password.reveal()})
    return devices


async def fill(store: Store, requests: int) -> None:
    """Requests of others, until there are that many."""
    there = await store.count(ProvisionRequest)
    for start in range(there, requests, AT_ONCE):
        numbers = range(start, min(requests, start + AT_ONCE))
        await store.commit(Unit([Put(_of_others(number)) for number in numbers]))


def id_of_others(number: int) -> str:
    """In the order of creation, as generated ids are, and before all of them."""
    return f"req-{number:018d}"


def _of_others(number: int) -> ProvisionRequest:
    name = f"other{number:09d}"
    return ProvisionRequest(
        id=id_of_others(number),
        account=ACCOUNT,
        client_id=name,
        client_id_claim=f"/{name}",
        username=name,
        activates_on=MOMENT,
        created_at=MOMENT,
        created_by="bench",
    )


async def service_in(folder: Path, store: Mapping[str, object]) -> app.Service:
    """Built, not started. store: that part of the settings."""
    settings = Settings.model_validate(
        {
            "gate": {
                "listeners": [
                    {"name": "plain", "host": "127.0.0.1", "port": 0, "tls": False},
                    {"name": "secure", "host": "127.0.0.1", "port": 0, "tls": True},
                ]
            },
            "admin": {"port": 0},
            "store": store,
            "log_level": "WARNING",
        }
    )
    if not (folder / installation.SETTINGS_FILE).exists():
        installation.create(folder, installation.Plan(), app.utc_now())
    return await app.build(settings, folder, {ReportingBroker.name: ReportingBroker()})


async def serve(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    service = await service_in(folder, json.loads(arguments.store))
    await fill(service.platform.store, arguments.stored)
    await service.start()
    devices = await stock(service, f"bench{os.getpid()}-", arguments.requests, arguments.broker_url)
    (folder / "devices.json").write_text(json.dumps(devices))
    print(json.dumps(dict(service.gate.ports)), flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await service.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--stored", type=int, default=0, help="requests of others that are there as well")
    parser.add_argument("--store", default="{}", help="that part of the settings, as JSON")
    parser.add_argument("--broker-url", default="mqtt://127.0.0.1:1883")
    run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
