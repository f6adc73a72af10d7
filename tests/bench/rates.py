"""P1 to P4: rate and tail latency of whole walks, every side in turn."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict

from tests.bench.figure import Figure, Round
from tests.bench.site import Bench, Side, measure

RATE_BARS = {"tinydb": 0.4, "sqlite": 0.5, "postgresql": 0.5}
TLS_BAR, TAIL_BAR = 0.9, 2.0
MOSQUITTO_BARS = {"plain": 0.5, "tls": 1.0}
FLOOR, MOSQUITTO = "floor", "mosquitto + paho"

Rounds = dict[str, list[Round]]  # side -> one round a turn
Sides = dict[str, Callable[[], AbstractContextManager[Side]]]


def p1(bench: Bench) -> Iterator[Figure]:
    """P1 and P4: rate and tail over the floor's, plain."""
    taken = _turns(bench, "plain", _sides(bench, secure=False))
    for store in bench.stores:
        yield Figure("P1", store, _ratio(taken, store, FLOOR, _rate), RATE_BARS[store])
        yield Figure("P4", f"{store} p99", _ratio(taken, store, FLOOR, _tail), TAIL_BAR, at_least=False)


def p2(bench: Bench) -> Iterator[Figure]:
    """P2: rate over the floor's with TLS, and CPU per device, since the generator is the slower side there."""
    taken = _turns(bench, "tls", _sides(bench, secure=True))
    for store in bench.stores:
        yield Figure("P2", store, _ratio(taken, store, FLOOR, _rate), TLS_BAR)
        yield Figure("P2", f"{store} CPU a device", _ratio(taken, store, FLOOR, _cpu), unit="over the floor's")


def p3(bench: Bench) -> Iterator[Figure]:
    """P3: rate over that of mosquitto with a responder that does no work."""
    for way, bar in MOSQUITTO_BARS.items():
        secure = way == "tls"
        sides: Sides = {MOSQUITTO: lambda secure=secure: bench.site.mosquitto(secure=secure)}  # type: ignore[misc]  # binds
        sides |= {name: side for name, side in _sides(bench, secure=secure).items() if name != FLOOR}
        taken = _turns(bench, f"{way}, beside mosquitto", sides)
        for store in bench.stores:
            yield Figure("P3", f"{store} {way}", _ratio(taken, store, MOSQUITTO, _rate), bar)


def _sides(bench: Bench, *, secure: bool) -> Sides:
    sides: Sides = {FLOOR: lambda: bench.site.floor(secure=secure)}
    for store in bench.stores:
        sides[store] = lambda store=store: bench.site.product(store, secure=secure)  # type: ignore[misc]  # binds
    return sides


def _turns(bench: Bench, name: str, sides: Sides) -> Rounds:
    """Every side, one after the other, and all of that again: who has a busy neighbour is compared with others of
    the same moment."""
    taken: Rounds = {side: [] for side in sides}
    for _ in range(bench.pairs):
        for side, opened in sides.items():
            with opened() as ready:
                one = measure(ready)
            assert one.load.provisioned == one.load.devices, (side, one.load.outcomes)
            taken[side].append(one)
            print(
                f"   {name} {side}: {one.load.devices_per_s:,.0f} devices/s, p99 {1000 * one.load.p99_s:.1f} ms, "
                f"{one.cpu_ms_per_device:.3f} ms CPU a device",
                flush=True,
            )
    bench.raw[name] = {side: [asdict(each) for each in rounds] for side, rounds in taken.items()}
    return taken


def _ratio(taken: Rounds, side: str, base: str, of: Callable[[Round], float]) -> float:
    """The median over the turns."""
    pairs: Sequence[tuple[Round, Round]] = list(zip(taken[side], taken[base], strict=True))
    return statistics.median(of(ours) / of(theirs) for ours, theirs in pairs)


def _rate(one: Round) -> float:
    return one.load.devices_per_s


def _tail(one: Round) -> float:
    return one.load.p99_s


def _cpu(one: Round) -> float:
    return one.cpu_ms_per_device
