"""Those who look on: all that is told goes to each of them, and one writes what went wrong to the log."""

import logging
import time
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from provisioner.model.audit import AuditEvent
from provisioner.model.errors import Unavailable
from provisioner.model.messages import Status
from provisioner.model.observer import Nobody, Observer
from provisioner.model.ports import Noun, Store, Unit

log = logging.getLogger("provisioner.events")
N = TypeVar("N", bound=Noun)

REQUEST_ID = "req-"


class Observers:
    """One after the other."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def answered(self, dialect: str, status: Status, took_s: float) -> None:
        for each in self._observers:
            each.answered(dialect, status, took_s)

    def happened(self, event: AuditEvent) -> None:
        for each in self._observers:
            each.happened(event)

    def recorded(self, event: AuditEvent) -> None:
        for each in self._observers:
            each.recorded(event)

    def stored(self, verb: str, took_s: float, *, failed: bool) -> None:
        for each in self._observers:
            each.stored(verb, took_s, failed=failed)


class EventLog(Nobody):
    """The audit log for whoever reads the service's log: what was refused or failed, with its true reason, at INFO,
    what wants a person at WARNING, all else at DEBUG. Details stay in the audit log, for devices have a say in them."""

    def recorded(self, event: AuditEvent) -> None:
        level = logging.INFO if event.outcome != "ok" else logging.DEBUG
        if event.action.startswith("alert."):
            level = logging.WARNING
        if log.isEnabledFor(level):
            log.log(level, "%s", event.action, extra={"about": _about(event)})


def _about(event: AuditEvent) -> dict[str, object]:
    subject = event.subject or ""
    about = {
        "reason": event.reason,
        "request_id": subject if subject.startswith(REQUEST_ID) else None,
        "subject": None if subject.startswith(REQUEST_ID) else subject,
        "client_id": event.client_id,
        "account": event.account,
        "address": event.address,
        "actor": event.actor,
        "count": event.count if event.count > 1 else None,
    }
    return {name: value for name, value in about.items() if value}


def observed(store: Store, observer: Observer) -> Store:
    """The store, telling how long the verbs took that devices wait for, and of each audit row that is committed."""
    return cast(Store, _Observed(store, observer))


class _Observed:
    """Whatever is not here is the store's own."""

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store, self._observer = store, observer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get(self, noun: type[N], id: str) -> N | None:
        started_s = time.perf_counter()
        try:
            found = await self._store.get(noun, id)
        except Unavailable:
            self._observer.stored("get", time.perf_counter() - started_s, failed=True)
            raise
        self._observer.stored("get", time.perf_counter() - started_s, failed=False)
        return found

    async def find(self, noun: type[N], index: str, value: str) -> Sequence[N]:
        started_s = time.perf_counter()
        try:
            found = await self._store.find(noun, index, value)
        except Unavailable:
            self._observer.stored("find", time.perf_counter() - started_s, failed=True)
            raise
        self._observer.stored("find", time.perf_counter() - started_s, failed=False)
        return found

    async def commit(self, unit: Unit) -> int:
        started_s = time.perf_counter()
        try:
            seq = await self._store.commit(unit)
        except Unavailable:
            self._observer.stored("commit", time.perf_counter() - started_s, failed=True)
            raise
        self._observer.stored("commit", time.perf_counter() - started_s, failed=False)
        for event in unit.audit:
            self._observer.happened(event)
            self._observer.recorded(event)
        return seq
