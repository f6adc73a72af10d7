"""What an administrator waits for: an import, and the listings of a large store; in a process of its own.

``python -m tests.bench.administrator import FOLDER STORE ROWS`` and ``... reads FOLDER STORE`` print JSON. STORE is
that part of the settings, as JSON; the installation in FOLDER is made where there is none.
"""

import argparse
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from broker.loop import run
from provisioner import app
from provisioner.config import Settings
from provisioner.doors import installation
from provisioner.doors.control_verbs import IMPORT_SLICE
from provisioner.model.ports import Store
from provisioner.model.request import ProvisionRequest
from provisioner.services.accounts import Accounts
from provisioner.services.request_import import RequestImport
from provisioner.services.request_making import RequestMaking
from tests.bench.product import ACCOUNT, ReportingBroker, id_of_others

PARTS = 10
READINGS = 200
SMALL_STORE = 1_000  # what every store that is read holds at least
PAGE = 100


async def built(folder: Path, store: dict[str, Any]) -> app.Service:
    if not (folder / installation.SETTINGS_FILE).exists():
        installation.create(folder, installation.Plan(), app.utc_now())
    settings = Settings.model_validate({"store": store, "admin": {"port": 0}, "log_level": "WARNING"})
    return await app.build(settings, folder, {ReportingBroker.name: ReportingBroker()})


async def import_rows(service: app.Service, count: int) -> dict[str, Any]:
    """Seconds for all rows, and the rate of each tenth."""
    accounts = Accounts(service.platform, service.effects, service.gate.kick, reserved=frozenset())
    fields = {"name": ACCOUNT, "broker": ReportingBroker.name, "broker_url": "mqtt://127.0.0.1:1883"}
    await accounts.create("bench", fields)
    importing = RequestImport(RequestMaking(service.platform, service.effects), service.platform.now)
    began_s, parts = time.perf_counter(), []
    for part in range(PARTS):
        part_s = time.perf_counter()
        numbers = range(part * count // PARTS, (part + 1) * count // PARTS)
        for start in range(numbers.start, numbers.stop, IMPORT_SLICE):
            names = [f"import{number:08d}" for number in range(start, min(start + IMPORT_SLICE, numbers.stop))]
            rows = [(n, {"account": ACCOUNT, "client_id": name, "username": name}) for n, name in enumerate(names)]
            results = await importing.make_all("bench", rows)
            assert all(result.made for result in results)
        parts.append(round(len(numbers) / (time.perf_counter() - part_s)))
    return {"seconds": time.perf_counter() - began_s, "parts_per_s": parts}


async def read(store: Store) -> dict[str, float]:
    """Milliseconds of one request by id, one by its client id, a page from the middle, a filtered one, and a count."""
    there = (await store.page(ProvisionRequest, after=id_of_others(SMALL_STORE // 2), limit=READINGS)).items
    ids, found = [each.id for each in there], [each.client_id for each in there]
    where = {"account": ACCOUNT, "state": "pending"}
    return {
        "show": await _median_ms([lambda id=id: store.get(ProvisionRequest, id) for id in ids]),
        "find": await _median_ms([lambda id=id: store.find(ProvisionRequest, "any_client_id", id) for id in found]),
        "list": await _median_ms([lambda id=id: store.page(ProvisionRequest, after=id, limit=PAGE) for id in ids[:50]]),
        "filter": await _median_ms(
            [lambda id=id: store.page(ProvisionRequest, where=where, after=id, limit=PAGE) for id in ids[:50]]
        ),
        "count": await _median_ms([lambda: store.count(ProvisionRequest, where={"state": "pending"})] * 3),
    }


async def _median_ms(calls: list[Callable[[], Awaitable[object]]]) -> float:
    took = []
    for call in calls:
        began_s = time.perf_counter()
        await call()
        took.append(1000 * (time.perf_counter() - began_s))
    return round(statistics.median(took), 4)


async def answer(arguments: argparse.Namespace) -> None:
    service = await built(arguments.folder, json.loads(arguments.store))
    try:
        store = service.platform.store
        told = await (import_rows(service, arguments.rows) if arguments.what == "import" else read(store))
    finally:
        await service.platform.store.close()
    print(json.dumps(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("import", "reads"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("store")
    parser.add_argument("rows", type=int, nargs="?", default=100_000)
    run(answer(parser.parse_args()))


if __name__ == "__main__":
    main()
