"""P5 and P6: many devices at once, many that only wait, and what they cost in memory."""

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import asdict

from broker.encoding import encode
from broker.loop import run
from broker.packets import V311, Connect
from tests.bench.figure import Figure
from tests.bench.load import Device
from tests.bench.site import WARM_DEVICES, Bench, Server, measure

AT_ONCE = 2_000
STORM, STORM_ARRIVAL_S = 10_000, 1.0
IDLE_CONNECTIONS = 1_000


def p5(bench: Bench) -> Iterator[Figure]:
    """P5: none may be lost, and no two may get the same password. How long it takes is P1 once more, and told."""
    with bench.site.floor(secure=False, devices=AT_ONCE) as side:
        floor = measure(side, in_flight=AT_ONCE).load
    for store in bench.stores:
        with bench.site.product(store, secure=False, devices=AT_ONCE) as side:
            taken = measure(side, in_flight=AT_ONCE).load
        bench.raw[f"{AT_ONCE} at once, {store}"] = [asdict(floor), asdict(taken)]
        what = f"{store} {AT_ONCE:,} at once"
        yield Figure("P5", f"{what}, lost", taken.devices - taken.provisioned, 0, False, "devices")
        yield Figure("P5", f"{what}, duplicate credentials", taken.provisioned - taken.passwords, 0, False, "devices")
        yield Figure("P5", f"{what}, time over the floor's", taken.seconds / floor.seconds)


def storm(bench: Bench) -> Iterator[Figure]:
    """P5: 10,000 devices that arrive within one second, over TLS."""
    with bench.site.floor(secure=True, devices=STORM) as side:
        floor = measure(side, in_flight=STORM, arrival_s=STORM_ARRIVAL_S).load
    for store in (each for each in bench.stores if each != "tinydb"):  # whose limit is 10,000 requests
        with bench.site.product(store, secure=True, devices=STORM) as side:
            before = side[0].resident_bytes()
            taken = measure(side, in_flight=STORM, arrival_s=STORM_ARRIVAL_S).load
            each_kb = (side[0].peak_bytes() - before) / STORM / 1000
        bench.raw[f"storm, {store}"] = [asdict(floor), asdict(taken)]
        print(f"   storm, {store}: {taken.outcomes}", flush=True)
        what = f"{store} storm of {STORM:,} over TLS"
        yield Figure("P5", f"{what}, lost", taken.devices - taken.provisioned, 0, False, "devices")
        yield Figure("P5", f"{what}, duplicate credentials", taken.provisioned - taken.passwords, 0, False, "devices")
        yield Figure("P5", f"{what}, time over the floor's", taken.seconds / floor.seconds, 2.0, False)
        yield Figure("P5", f"{what}, memory a device", each_kb, unit="kB")


def p6(bench: Bench) -> Iterator[Figure]:
    """P6: what an idle provisioning connection over TLS costs in memory."""
    with bench.site.product(secure=True, devices=IDLE_CONNECTIONS) as (server, devices, context):
        assert context is not None
        run(_idle(server, devices[:WARM_DEVICES], context))  # the allocator's first growth is nobody's
        before = server.resident_bytes()
        after = run(_idle(server, devices[WARM_DEVICES:], context))
    each_kb = (after - before) / IDLE_CONNECTIONS / 1000
    bench.raw["idle TLS connection, kB"] = each_kb
    yield Figure("P6", "idle TLS connection", each_kb, 30, False, "kB")


async def _idle(server: Server, devices: list[Device], context: ssl.SSLContext) -> int:
    """Resident bytes of the server while all of them are connected and silent."""
    writers = []
    for device in devices:
        reader, writer = await asyncio.open_connection("localhost", server.port, ssl=context)
        writer.write(encode(Connect(device.client_id, username=device.username, password=device.password), V311))
        assert (await reader.readexactly(4))[3] == 0
        writers.append(writer)
    held = server.resident_bytes()
    for writer in writers:
        writer.transport.abort()
    return held
