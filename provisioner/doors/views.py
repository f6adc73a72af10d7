"""Nouns as the JSON that people and programs see, without verifiers, sealed boxes and stored passwords.

Instants are RFC 3339 texts in UTC. ``made`` and ``row`` alone carry clear secrets: what was generated just now.
"""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from provisioner.doors.error_kinds import kind_of
from provisioner.model import records
from provisioner.model.account import Account
from provisioner.model.audit import AuditEvent
from provisioner.model.decision import Decision
from provisioner.model.device import Device
from provisioner.model.errors import FleetgateError, InvalidInput
from provisioner.model.ports import AccountBroker
from provisioner.model.request import Grant, ProvisionRequest
from provisioner.model.user import AccountUser, ProvisionUser
from provisioner.services.copying import Summaries
from provisioner.services.request_import import RowResult
from provisioner.services.request_making import Made
from provisioner.services.requests import Preview

View = dict[str, Any]


def account(noun: Account) -> View:
    return {
        "id": noun.id,
        "broker": noun.broker,
        "broker_url": noun.broker_url,
        "coupling": noun.coupling.value,
        "certificates": noun.certificates.value,
        "enabled": noun.enabled,
        "created_at": _instant(noun.created_at),
    }


def capabilities(broker: AccountBroker | None) -> View | None:
    """What the broker can do; None when the settings have no such broker."""
    return None if broker is None else asdict(broker.capabilities())


def request(noun: ProvisionRequest, now: datetime, epoch: int) -> View:
    """``state`` is the stored one, ``phase`` what it amounts to now (D5). activation_key: whether one is required.

    epoch: the store's."""
    return {
        "id": noun.id,
        "account": noun.account,
        "client_id": noun.client_id,
        "username": noun.username,
        "state": noun.state.value,
        "phase": noun.phase(now, epoch),
        "activates_on": _instant(noun.activates_on),
        "expires_on": _instant(noun.expires_on),
        "activation_key": noun.key_verifier is not None,
        "endpoint": noun.endpoint,
        "reserve_user": noun.reserve_user,
        "coupling": noun.coupling.value,
        "configuration": dict(noun.configuration),
        "packages": [records.dump(package) for package in noun.packages],
        "max_attempts": noun.max_attempts,
        "approval": noun.approval.value,
        "attempts": noun.attempts,
        "key_failures": noun.key_failures,
        "key_blocked_until": _instant(noun.key_blocked_until),
        "arm": noun.arm,
        "epoch": noun.epoch,
        "grant": _grant(noun.grant),
        "confirmed_at": _instant(noun.confirmed_at),
        "created_at": _instant(noun.created_at),
        "created_by": noun.created_by,
    }


def made(result: Made, now: datetime, epoch: int, *, dry_run: bool) -> View:
    """A new request, with the secrets that were generated for it. Of a dry run they would open nothing: left out."""
    view = request(result.request, now, epoch)
    view["warnings"] = list(result.warnings)
    if not dry_run:
        view["secrets"] = _secrets(result)
    return view


def backup(target: Path, summaries: Summaries) -> View:
    """records: how many of each kind."""
    return {"target": str(target), "records": {kind: summary.count for kind, summary in summaries.items()}}


def device(noun: Device) -> View:
    connection = noun.connection
    return {
        "id": noun.id,
        "account": noun.account,
        "client_id": noun.client_id,
        "request": noun.request,
        "state": noun.state.value,
        "user": connection.user,
        "coupling": connection.coupling.value,
        "reserved_user": connection.reserved_user,
        "last_seen_at": _instant(connection.last_seen_at),
        "address": connection.address,
        "status": connection.status.value,
        "status_at": _instant(connection.status_at),
        "metadata": dict(noun.metadata),
        "certificate_serial": noun.certificate_serial,
        "certificate_ends_at": _instant(noun.certificate_ends_at),
        "created_at": _instant(noun.created_at),
    }


def user(noun: ProvisionUser | AccountUser) -> View:
    """Of the provision account: its name and the account that owns it. Of an account: what it may do, and where."""
    if isinstance(noun, ProvisionUser):
        return {
            "id": noun.id,
            "username": noun.id,
            "account": noun.account,
            "kind": "provision",
            "created_at": _instant(noun.created_at),
        }
    return {
        "id": noun.id,
        "username": noun.username,
        "account": noun.account,
        "kind": "account",
        "client_id": noun.client_id,
        "device": noun.device_id,
        "broker": noun.broker,
        "permissions": list(noun.permissions),
        "reserved": noun.reserved,
        "coupling": noun.coupling.value,
        "enabled": noun.enabled,
        "created_at": _instant(noun.created_at),
    }


def audit(event: AuditEvent) -> View:
    return {
        "seq": event.seq,
        "at": _instant(event.at),
        "actor": event.actor,
        "action": event.action,
        "outcome": event.outcome,
        "reason": event.reason,
        "account": event.account,
        "client_id": event.client_id,
        "username": event.username,
        "subject": event.subject,
        "address": event.address,
        "details": dict(event.details),
    }


def explanation(noun: ProvisionRequest, decision: Decision, at: str) -> View:
    """``granted``, or ``refusal`` with what the device is told (``status``) and what is true (``reason``)."""
    refusal = decision.refusal
    told = None
    if refusal is not None:
        told = {
            "status": refusal.status.value,
            "reason": refusal.reason,
            "detail": refusal.detail,
            "retry_after_s": refusal.retry_after_s,
        }
    return {
        "id": noun.id,
        "client_id": noun.client_id,
        "at": at,
        "granted": refusal is None,
        "refusal": told,
        "checks": [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in decision.checks],
    }


def preview(result: Preview) -> View:
    return {"configuration": dict(result.configuration), "overridden": result.overridden}


def row(result: RowResult, *, dry_run: bool) -> View:
    """One row of an import, without what its asker knows already."""
    if result.made is None:
        refusal = error(result.error) if result.error is not None else None
        return {"line": result.line, "ok": False, "error": refusal}
    noun = result.made.request
    return {
        "line": result.line,
        "ok": True,
        "id": noun.id,
        "account": noun.account,
        "client_id": noun.client_id,
        "username": noun.username,
        "warnings": list(result.made.warnings),
        "secrets": {} if dry_run else _secrets(result.made),
    }


def error(refusal: FleetgateError) -> View:
    """``kind`` is what a program decides by, ``message`` and ``problems`` are for people."""
    problems = refusal.problems if isinstance(refusal, InvalidInput) else ()
    return {
        "kind": kind_of(refusal),
        "message": str(refusal),
        "problems": [{"field": p.field, "rule": p.rule, "shape": p.shape} for p in problems],
    }


def page(items: list[View], after: object | None) -> View:
    """``after`` continues the listing when it is given back; None at the end."""
    return {"items": items, "after": after}


def _grant(grant: Grant | None) -> View | None:
    if grant is None:
        return None
    return {
        "granted_at": _instant(grant.granted_at),
        "device": grant.device_id,
        "username": grant.username,
        "certificate_serial": grant.certificate_serial,
    }


def _secrets(result: Made) -> View:
    secrets = {"password": result.password, "activation_key": result.activation_key}
    return {name: secret.reveal() for name, secret in secrets.items() if secret is not None}


def _instant(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()
