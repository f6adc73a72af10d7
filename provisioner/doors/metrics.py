"""Metrics for Prometheus. No label ever comes from a device: all of them are words of this program or its settings."""

import functools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from provisioner.model.audit import AuditEvent
from provisioner.model.messages import Status
from provisioner.services.figures import Figures
from provisioner.services.readiness import Readiness

CONTENT_TYPE = CONTENT_TYPE_LATEST
ANSWER_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STORE_S = (0.00001, 0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# Why a CONNECT was refused that says nothing of its login.
OVERLOAD = frozenset(
    (
        "accept_rate",
        "application_failed",
        "application_slow",
        "attempts_at_once",
        "connections_max",
        "contenders_max",
        "flapping",
        "shutting_down",
        "unauthenticated_max",
        "verification_unavailable",
    )
)
LOCKOUTS = {"connect.locked_out": "login", "provision.key_locked": "activation_key"}
# What alerts wait for is there from the start, at zero: of a first time that comes from nowhere they would not hear.
AWAITED = ("alert.client_id_contended", "alert.isolation", "alert.two_addresses", "audit.dropped", "clock.jumped")


VERBS = ("get", "find", "commit")


class Durations(Collector):
    """A histogram by one label, for what happens a dozen times a device: five times as quick as the library's own."""

    def __init__(self, name: str, text: str, label: str) -> None:
        self._name, self._text, self._label = name, text, label
        self._bounds: dict[str, Sequence[float]] = {}
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def begin(self, value: str, bounds_s: Sequence[float]) -> None:
        """Count under that value of the label. bounds_s: upper ends of the buckets but for the last one."""
        self._bounds[value], self._counts[value], self._sums[value] = bounds_s, [0] * (len(bounds_s) + 1), 0.0

    def observe(self, value: str, took_s: float) -> None:
        self._counts[value][bisect_left(self._bounds[value], took_s)] += 1
        self._sums[value] += took_s

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._text, labels=(self._label,))
        for value, bounds in self._bounds.items():
            below = list(accumulate(self._counts[value]))
            ends = (*map(floatToGoString, bounds), "+Inf")
            family.add_metric((value,), list(zip(ends, below, strict=True)), self._sums[value])
        yield family


class Metrics:
    """An ``Observer`` that counts, and gauges that are set before each scrape."""

    def __init__(self, dialects: Iterable[str]) -> None:
        """dialects: their names."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's one function without types
        own = self._registry = CollectorRegistry()
        ProcessCollector(registry=own)
        self._messages = Counter(
            "fleetgate_messages",
            "Provision messages, by the status of the answer.",
            ("dialect", "status"),
            registry=own,
        )
        self._answer = Durations("fleetgate_answer_seconds", "From a provision message to its answer.", "dialect")
        self._store = Durations("fleetgate_store_seconds", "How long the store took.", "verb")
        for durations in (self._answer, self._store):
            own.register(durations)
        self._events = Counter(
            "fleetgate_events", "What is audited, each time that it happens.", ("action", "outcome"), registry=own
        )
        self._failures = Counter(
            "fleetgate_authentication_failures", "Refused logins, by the true reason.", ("door", "reason"), registry=own
        )
        self._turned_away = Counter(
            "fleetgate_connects_turned_away", "Logins that were not tried for want of room.", ("reason",), registry=own
        )
        self._lockouts = Counter("fleetgate_lockouts", "Guessers that were locked out.", ("kind",), registry=own)
        self._store_failures = Counter(
            "fleetgate_store_failures", "Verbs of the store that failed.", ("verb",), registry=own
        )
        # To find the counter of some labels takes three times as long as to count.
        self._message, self._event = functools.cache(self._messages.labels), functools.cache(self._events.labels)
        self.gauges = Gauges(own)
        self._begin_at_zero(dialects)

    def _begin_at_zero(self, dialects: Iterable[str]) -> None:
        for dialect in dialects:
            self._answer.begin(dialect, ANSWER_S)
            for status in Status:
                self._messages.labels(dialect, status.value)
        for action in AWAITED:
            self._events.labels(action, "failed")
        for kind in LOCKOUTS.values():
            self._lockouts.labels(kind)
        for verb in VERBS:
            self._store.begin(verb, STORE_S)
            self._store_failures.labels(verb)

    def answered(self, dialect: str, status: Status, took_s: float) -> None:
        self._message(dialect, status.value).inc()
        self._answer.observe(dialect, took_s)

    def happened(self, event: AuditEvent) -> None:
        self._event(event.action, event.outcome).inc(event.count)
        if event.action == "connect.refused":
            reason = event.reason or "none"
            if reason in OVERLOAD:
                self._turned_away.labels(reason).inc(event.count)
            else:
                self._failures.labels(event.actor, reason).inc(event.count)
        elif (kind := LOCKOUTS.get(event.action)) is not None:
            self._lockouts.labels(kind).inc(event.count)

    def recorded(self, event: AuditEvent) -> None:
        """A row is no event: it may stand for many that were counted already."""

    def stored(self, verb: str, took_s: float, *, failed: bool) -> None:
        self._store.observe(verb, took_s)
        if failed:
            self._store_failures.labels(verb).inc()

    def text(self) -> bytes:
        """All of it, in the format of ``CONTENT_TYPE``."""
        return generate_latest(self._registry)


class Gauges:
    """What is so just now. Each is set anew before a scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"fleetgate_{name}", text, labels, registry=registry)

        self._requests = gauge("requests", "Provision requests, by stored state.", "state")
        self._effects = gauge("effects_waiting", "Changes that account brokers have not been told of yet.")
        self._connections = gauge("connections", "Open sockets at a door, by what they are.", "door", "standing")
        self._device_certificates = gauge(
            "device_certificates", "Devices by the days within which their certificates end.", "within_days"
        )
        self._own_certificates = gauge(
            "certificate_end_timestamp_seconds", "When a certificate of our own ends.", "certificate"
        )
        self._ready = gauge("ready", "1 while the part can do its work.", "part")
        self._broker = gauge("account_broker_usable", "1 while devices can be let in there.", "broker")
        self._lag = gauge("event_loop_lag_seconds", "The longest that anything had to wait since the last scrape.")

    def stored(self, figures: Figures) -> None:
        for state, count in figures.requests.items():
            self._requests.labels(state).set(count)
        self._effects.set(figures.effects)

    def connected(self, door: str, standings: Mapping[str, int]) -> None:
        for standing, count in standings.items():
            self._connections.labels(door, standing).set(count)

    def certified(self, left: Mapping[str, int]) -> None:
        for days, count in left.items():
            self._device_certificates.labels(days).set(count)

    def own_certificate(self, name: str, ends_at: datetime) -> None:
        self._own_certificates.labels(name).set(ends_at.timestamp())

    def ready(self, readiness: Readiness) -> None:
        for part in readiness.core:
            self._ready.labels(part.name).set(part.fault is None)
        for part in readiness.brokers:
            self._broker.labels(part.name.removeprefix("account broker ")).set(part.fault is None)

    def lagged(self, longest_s: float) -> None:
        self._lag.set(longest_s)
