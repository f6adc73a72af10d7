"""Provisions a second where each flush of the disk takes three milliseconds, fifty under way (D9).

``python -m tests.bench.slow_disk FOLDER --store JSON`` prints the rate of provisioning alone, from the message to its
durable answer: no sockets, but confirmations beside it. PostgreSQL flushes in processes of its own and is left out.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from broker.loop import run
from provisioner.model.messages import ProvisionMessage, Status
from provisioner.model.ports import Store
from provisioner.model.request import ProvisionRequest
from provisioner.services.provisioning import Asker, Provisioning
from tests.bench.figure import Figure
from tests.bench.product import service_in, stock
from tests.bench.site import Bench
from tests.support.bad_disk import BadDisk

FLUSH_S, BAR = 0.003, 1_000
IN_FLIGHT, WARM, PROVISIONS = 50, 300, 3_000


def slow_disk(bench: Bench) -> Iterator[Figure]:
    """What a group commit saves when flushes are slow."""
    for store in (each for each in bench.stores if each != "postgresql"):
        place = bench.site.place(store)
        disk = BadDisk(bench.site.new_folder(), flush_s=FLUSH_S)
        command = [sys.executable, "-m", __name__, str(place.folder), "--store", json.dumps(place.store)]
        rates = []
        for _ in range(bench.pairs):
            done = subprocess.run(command, env=disk.environment, check=True, stdout=subprocess.PIPE, text=True)
            rates.append(float(done.stdout))
        bench.raw[f"slow disk, {store}"] = rates
        what = f"{store}, {1000 * FLUSH_S:g} ms a flush, {IN_FLIGHT} under way"
        yield Figure("FLUSH", what, max(rates), BAR, unit="provisions/s")


async def provisions_per_s(folder: Path, store: dict[str, str]) -> float:
    service = await service_in(folder, store)
    await service.start()
    provisioning = Provisioning(service.platform, service.effects)
    made = await stock(service, f"slow{time.time_ns()}-", WARM + PROVISIONS, "mqtt://127.0.0.1:1883")
    askers = [await _asker(service.platform.store, each["client_id"]) for each in made]
    await _all_provisioned(provisioning, askers[:WARM])
    started_s = time.perf_counter()
    await _all_provisioned(provisioning, askers[WARM:])
    took_s = time.perf_counter() - started_s
    await service.stop()
    return PROVISIONS / took_s


async def _asker(store: Store, client_id: str) -> Asker:
    (request,) = await store.find(ProvisionRequest, "any_client_id", client_id)
    return Asker(request.id, client_id, request.username, "192.0.2.7", contended=False)


async def _all_provisioned(provisioning: Provisioning, askers: list[Asker]) -> None:
    waiting = iter(askers)

    async def one_after_the_other() -> None:
        for asker in waiting:
            answer = await provisioning.handle(asker, ProvisionMessage(message_id="m1", dialect="json_v1"))
            assert answer is not None and answer.status is Status.PROVISIONED, answer

    await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--store", required=True, help="that part of the settings, as JSON")
    arguments = parser.parse_args()
    print(run(provisions_per_s(arguments.folder, json.loads(arguments.store))))


if __name__ == "__main__":
    main()
