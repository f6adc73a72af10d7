"""Nouns of the model, with all that a test does not care about filled in."""

from datetime import UTC, datetime, timedelta
from typing import Any

from provisioner.model.account import Account
from provisioner.model.device import Device, DeviceConnection
from provisioner.model.request import Grant, ProvisionRequest

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)


def a_request(**changes: Any) -> ProvisionRequest:
    """A pending request whose window is open at NOON and never closes."""
    fields: dict[str, Any] = {
        "id": "req-0000000000000001",
        "account": "acme",
        "client_id": "gw1",
        "client_id_claim": "/gw1",
        "username": "lobby",
        "activates_on": NOON - HOUR,
        "created_at": NOON - HOUR,
        "created_by": "admin:ada",
    }
    return ProvisionRequest(**fields | changes)


def a_grant(**changes: Any) -> Grant:
    fields: dict[str, Any] = {
        "message_id": "m1",
        "granted_at": NOON,
        "device_id": "dev-1",
        "username": "dev-1-1",
        "sealed": "gcm1$k1$AAAA",
    }
    return Grant(**fields | changes)


def an_account(**changes: Any) -> Account:
    fields: dict[str, Any] = {
        "id": "acme",
        "broker": "local",
        "broker_url": "mqtts://broker.example:8883",
        "created_at": NOON,
    }
    return Account(**fields | changes)


def a_device(**changes: Any) -> Device:
    fields: dict[str, Any] = {
        "id": "dev-1",
        "account": "acme",
        "client_id": "gw1",
        "request": "req-0000000000000001",
        "connection": DeviceConnection(user="dev-1-1"),
        "created_at": NOON,
    }
    return Device(**fields | changes)
