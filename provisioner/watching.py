"""Builds those who look on: metrics and their door. Where they are off, nothing of them is even loaded."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.config import Settings
from provisioner.model.ports import Dialect
from provisioner.services.platform import Platform

if TYPE_CHECKING:
    from provisioner.doors.metrics import Metrics
    from provisioner.doors.watch import Entry, WatchDoor


def metrics_of(settings: Settings, dialects: Iterable[Dialect]) -> "Metrics | None":
    """None: off."""
    if settings.metrics.port is None:
        return None
    from provisioner.doors.metrics import Metrics

    return Metrics(dialect.name for dialect in dialects)


def watch_door(
    settings: Settings, base: Path, platform: Platform, metrics: "Metrics | None", entries: "Mapping[str, Entry]"
) -> "WatchDoor | None":
    """Not started; None: off."""
    if metrics is None or settings.metrics.port is None:
        return None
    from provisioner.doors.watch import WatchDoor

    certificates = {"gate": base / settings.gate.tls.certificate} if _shows_certificate(settings) else {}
    return WatchDoor((settings.metrics.host, settings.metrics.port), platform, metrics, entries, certificates)


def _shows_certificate(settings: Settings) -> bool:
    return settings.provision_link.kind == "gate" and any(each.tls for each in settings.gate.listeners)
