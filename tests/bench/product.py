"""The product as the figures need it: a real installation with stored requests, whose account broker is elsewhere.

``python -m tests.bench.product FOLDER --requests N --broker-url URL`` makes the installation and the requests, prints
the ports, serves until SIGTERM. ``FOLDER/devices.json`` then holds the devices' credentials.
"""

import argparse
import asyncio
import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from broker.loop import run
from provisioner import app
from provisioner.config import Settings
from provisioner.doors import installation
from provisioner.model.ports import BrokerUser, Capabilities, Sighting
from provisioner.services.accounts import Accounts
from provisioner.services.request_making import RequestMaking

SEEN_AFTER_S = 0.02


class ReportingBroker:
    """An account broker whose server is another process: it reports each new user as seen a moment later, so that
    the cost of confirming is part of what is measured."""

    name = "elsewhere"

    def __init__(self) -> None:
        self._users: dict[tuple[str, str], BrokerUser] = {}
        self._seen: Callable[[Sighting], None] = lambda sighting: None

    def capabilities(self) -> Capabilities:
        return Capabilities(kicks=False, reports_sightings=True, refuses_subscribe=True, mqtt5=True)

    async def start(self, seen: Callable[[Sighting], None]) -> None:
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


async def stock(service: app.Service, requests: int, broker_url: str) -> list[dict[str, str]]:
    """One account and that many requests with generated credentials."""
    accounts = Accounts(service.platform, service.effects, service.gate.kick, reserved=frozenset())
    await accounts.create("bench", {"name": "bench", "broker": ReportingBroker.name, "broker_url": broker_url})
    making = RequestMaking(service.platform)
    rows = [
        (n, {"account": "bench", "client_id": f"bench{n:06d}", "username": f"bench{n:06d}"}) for n in range(requests)
    ]
    at_once = 500  # makings share commits as they would in an import by many
    devices = []
    for start in range(0, requests, at_once):
        parts = await asyncio.gather(*(making.make_all("bench", [row]) for row in rows[start : start + at_once]))
        for (result,) in parts:
            assert result.made is not None and result.made.password is not None, result.error
            name = result.made.request.client_id
            devices.append({"client_id": name, "username": name, "password": result.made.password.reveal()})
    return devices


async def serve(folder: Path, requests: int, broker_url: str) -> None:
    settings = Settings.model_validate(
        {
            "gate": {
                "listeners": [
                    {"name": "plain", "host": "127.0.0.1", "port": 0, "tls": False},
                    {"name": "secure", "host": "127.0.0.1", "port": 0, "tls": True},
                ]
            },
            "admin": {"port": 0},
            "log_level": "WARNING",
        }
    )
    installation.create(folder, installation.Plan(), app.utc_now())
    service = await app.build(settings, folder, {ReportingBroker.name: ReportingBroker()})
    await service.start()
    devices = await stock(service, requests, broker_url)
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
    parser.add_argument("--broker-url", default="mqtt://127.0.0.1:1883")
    arguments = parser.parse_args()
    run(serve(arguments.folder, arguments.requests, arguments.broker_url))


if __name__ == "__main__":
    main()
