"""Metrics for Prometheus. No label ever comes from a device: all of them are words of this program or its settings."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

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
        self._answer = Histogram(
            "fleetgate_answer_seconds", "From a provision message to its answer.", ("dialect",), registry=own,
            buckets=ANSWER_S,
        )  # fmt: skip
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
        self._store = Histogram(
            "fleetgate_store_seconds", "How long the store took.", ("verb",), registry=own, buckets=STORE_S
        )
        self._store_failures = Counter(
            "fleetgate_store_failures", "Verbs of the store that failed.", ("verb",), registry=own
        )
        self._verbs = {verb: self._store.labels(verb) for verb in ("get", "find", "commit")}
        self.gauges = Gauges(own)
        self._begin_at_zero(dialects)

    def _begin_at_zero(self, dialects: Iterable[str]) -> None:
        for dialect in dialects:
            self._answer.labels(dialect)
            for status in Status:
                self._messages.labels(dialect, status.value)
        for action in AWAITED:
            self._events.labels(action, "failed")
        for kind in LOCKOUTS.values():
            self._lockouts.labels(kind)
        for verb in self._verbs:
            self._store_failures.labels(verb)

    def answered(self, dialect: str, status: Status, took_s: float) -> None:
        self._messages.labels(dialect, status.value).inc()
        self._answer.labels(dialect).observe(took_s)

    def happened(self, event: AuditEvent) -> None:
        self._events.labels(event.action, event.outcome).inc(event.count)
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
        self._verbs[verb].observe(took_s)
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
