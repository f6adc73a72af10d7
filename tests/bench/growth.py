"""P7 and P8: what a million stored requests cost, and how fast they come in."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from tests.bench.figure import Figure, Round
from tests.bench.site import Bench, Place, measure

SMALL, LARGE = 1_000, 1_000_000
GROWING = ("sqlite", "postgresql")  # tinydb takes 10,000
GROWTH_BAR = 0.9
IMPORTED, IMPORT_BAR, FLAT_BAR = 100_000, 5_000, 0.5
READS = ("show", "find", "list", "filter")


def p7(bench: Bench) -> Iterator[Figure]:
    """P7: devices/s with a million requests stored over those with a thousand, on the same store, in turns; and what
    an administrator asks of each."""
    for store in (each for each in bench.stores if each in GROWING):
        places = {stored: bench.site.place(store) for stored in (SMALL, LARGE)}
        rounds: dict[int, list[Round]] = {SMALL: [], LARGE: []}
        for _ in range(bench.pairs):
            for stored, place in places.items():
                with bench.site.product(store, secure=False, stored=stored, place=place) as side:
                    one = measure(side)
                assert one.load.provisioned == one.load.devices, one.load.outcomes
                rounds[stored].append(one)
                print(f"   {store}, {stored:,} stored: {one.load.devices_per_s:,.0f} devices/s", flush=True)
        bench.raw[f"growth, {store}"] = {stored: [asdict(each) for each in of] for stored, of in rounds.items()}
        ratio = statistics.median(
            large.load.devices_per_s / small.load.devices_per_s
            for small, large in zip(rounds[SMALL], rounds[LARGE], strict=True)
        )
        yield Figure("P7", f"{store}, {LARGE:,} over {SMALL:,} stored", ratio, GROWTH_BAR)
        yield from _reads(bench, store, places)


def _reads(bench: Bench, store: str, places: dict[int, Place]) -> Iterator[Figure]:
    took = {stored: _asked(bench, f"reads, {store}, {stored}", "reads", place) for stored, place in places.items()}
    for read in READS:
        yield Figure("P7", f"{store} {read}, {LARGE:,} over {SMALL:,} stored", took[LARGE][read] / took[SMALL][read])


def p8(bench: Bench) -> Iterator[Figure]:
    """P8: requests with generated credentials, as ``request import`` makes them."""
    for store in bench.stores:
        if store == "tinydb":
            continue
        took = _asked(bench, f"import, {store}", "import", bench.site.place(store), str(IMPORTED))
        parts = took["parts_per_s"]
        yield Figure("P8", f"{store} import of {IMPORTED:,}", IMPORTED / took["seconds"], IMPORT_BAR, unit="requests/s")
        yield Figure("P8", f"{store} import, its last tenth over its first", parts[-1] / parts[0], FLAT_BAR)


def _asked(bench: Bench, name: str, what: str, place: Place, *arguments: str) -> dict[str, Any]:
    """What ``tests.bench.administrator`` prints, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.administrator", what, str(place.folder), json.dumps(place.store)]
    done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, check=True, text=True)
    took: dict[str, Any] = json.loads(done.stdout)
    bench.raw[name] = took
    print(f"   {name}: {took}", flush=True)
    return took
