"""The verbs of the administrators' door: one table, verb -> what it takes and which service does it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioner.doors import control_listings as listings
from provisioner.doors import views
from provisioner.doors.control_params import Takes, Verb
from provisioner.model.account import Account
from provisioner.model.device import Device, DeviceState
from provisioner.model.effect import Effect
from provisioner.model.errors import InvalidInput, Problem, Unavailable, shape
from provisioner.model.request import Approval, ProvisionRequest, RequestState
from provisioner.services import copying
from provisioner.services.accounts import Accounts
from provisioner.services.devices import Devices
from provisioner.services.fsck import fsck
from provisioner.services.platform import Platform
from provisioner.services.proving import Proving
from provisioner.services.request_import import RequestImport
from provisioner.services.requests import Requests
from provisioner.services.selftest import selftest, tried_rules

# Rows that are made together. Each password that a person chose takes a core for a while, and the asker waits.
IMPORT_SLICE, IMPORT_SLICE_PASSWORDS = 500, 50
IMPORT_S_MAX = 3.0  # the asker waits ten seconds; rows that are left over he sends again

Fields = Mapping[str, Any]
View = views.View


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What verbs call. status: what the running service says of itself. proving: None where nothing listens."""

    platform: Platform
    accounts: Accounts
    requests: Requests
    importing: RequestImport
    devices: Devices
    status: Callable[[], Mapping[str, Any]]
    proving: Proving | None = None

    def request(self, noun: ProvisionRequest) -> View:
        return views.request(noun, self.platform.now(), self.platform.epoch)


async def _account_create(s: Services, actor: str, *, fields: Fields, dry_run: bool) -> View:
    return views.account(await s.accounts.create(actor, fields, dry_run=dry_run))


async def _account_page(s: Services, actor: str, *, after: str | None, limit: int) -> View:
    page = await s.accounts.page(after=after, limit=limit)
    return listings.bounded(page, views.account)


async def _account_show(s: Services, actor: str, *, id: str) -> View:
    account = await s.accounts.show(id)
    return {
        **views.account(account),
        "broker_capabilities": views.capabilities(s.platform.brokers.get(account.broker)),
        "broker_refused": s.platform.refused.get(account.broker),
    }


async def _account_update(s: Services, actor: str, *, id: str, fields: Fields, dry_run: bool) -> View:
    return views.account(await s.accounts.update(actor, id, fields, dry_run=dry_run))


async def _account_delete(s: Services, actor: str, *, id: str, dry_run: bool) -> View:
    return views.account(await s.accounts.delete(actor, id, dry_run=dry_run))


async def _user_page(s: Services, actor: str, *, account: str, after: str | None, limit: int) -> View:
    page = await s.accounts.page_users(account, after=after, limit=limit)
    return listings.bounded(page, views.user)


async def _user_show(s: Services, actor: str, *, account: str, username: str) -> View:
    return views.user(await s.accounts.show_user(account, username))


async def _request_create(s: Services, actor: str, *, fields: Fields, dry_run: bool) -> View:
    made = await s.requests.create(actor, fields, dry_run=dry_run)
    return views.made(made, s.platform.now(), s.platform.epoch, dry_run=dry_run)


async def _request_page(s: Services, actor: str, *, after: str | None, limit: int, **filters: str | None) -> View:
    where, keep = listings.request_filters(filters, s.platform.now(), s.platform.epoch)
    page = await s.requests.page(where=where, after=after, limit=limit)
    return listings.bounded(page, s.request, keep)


async def _request_show(s: Services, actor: str, *, id: str) -> View:
    return s.request(await s.requests.find(id))


async def _request_update(s: Services, actor: str, *, id: str, fields: Fields, dry_run: bool) -> View:
    return s.request(await s.requests.update(actor, id, fields, dry_run=dry_run))


async def _request_delete(s: Services, actor: str, *, id: str, dry_run: bool) -> View:
    return s.request(await s.requests.delete(actor, id, dry_run=dry_run))


async def _request_revoke(s: Services, actor: str, *, id: str, dry_run: bool) -> View:
    return s.request(await s.requests.revoke(actor, id, dry_run=dry_run))


async def _request_rearm(s: Services, actor: str, *, id: str, cut: bool, dry_run: bool) -> View:
    return s.request(await s.requests.rearm(actor, id, cut=cut, dry_run=dry_run))


async def _request_approve(s: Services, actor: str, *, id: str, dry_run: bool) -> View:
    return s.request(await s.requests.decide_approval(actor, id, Approval.APPROVED, dry_run=dry_run))


async def _request_reject(s: Services, actor: str, *, id: str, dry_run: bool) -> View:
    return s.request(await s.requests.decide_approval(actor, id, Approval.REJECTED, dry_run=dry_run))


async def _request_explain(s: Services, actor: str, *, id: str, at: str | None) -> View:
    request, decision = await s.requests.explain(id, at)
    return views.explanation(request, decision, at or s.platform.now().isoformat())


async def _request_preview(s: Services, actor: str, *, id: str) -> View:
    return views.preview(await s.requests.preview(id))


async def _request_import(s: Services, actor: str, *, rows: list[tuple[int, Fields]], dry_run: bool) -> View:
    """Answers for the first rows of the chunk, at least one; the asker sends those that are left over again.

    In slices, for what was made must be told with its secrets even if the store fails behind it. A dry run takes as
    long, for it tries passwords too; rows that collide over the border of two slices are found by the asker."""
    told: list[View] = []
    size, until_s = 0, time.monotonic() + IMPORT_S_MAX
    while not told or (len(told) < len(rows) and size < listings.PAGE_BYTES_MAX // 2 and time.monotonic() < until_s):
        try:
            done = await s.importing.make_all(actor, _slice(rows[len(told) :]), dry_run=dry_run)
        except Unavailable:
            if not told:
                raise
            break
        slice_told = [views.row(result, dry_run=dry_run) for result in done]
        size += sum(map(listings.size, slice_told))
        told += slice_told
    return {"rows": told}


def _slice(rows: list[tuple[int, Fields]]) -> list[tuple[int, Fields]]:
    chosen = [place for place, (_, fields) in enumerate(rows[:IMPORT_SLICE]) if fields.get("password")]
    end = chosen[IMPORT_SLICE_PASSWORDS] if len(chosen) > IMPORT_SLICE_PASSWORDS else IMPORT_SLICE
    return rows[:end]


async def _device_page(s: Services, actor: str, *, after: str | None, limit: int, **filters: str | None) -> View:
    listings.check_state(filters["state"], tuple(DeviceState))
    page = await s.devices.page(where=listings.where(filters), after=after, limit=limit)
    return listings.bounded(page, views.device)


async def _device_show(s: Services, actor: str, *, id: str, account: str | None) -> View:
    return views.device(await s.devices.find(id, account))


async def _device_enable(s: Services, actor: str, *, id: str, account: str | None, dry_run: bool) -> View:
    return views.device(await s.devices.enable(actor, id, account=account, dry_run=dry_run))


async def _device_disable(s: Services, actor: str, *, id: str, account: str | None, dry_run: bool) -> View:
    return views.device(await s.devices.disable(actor, id, account=account, dry_run=dry_run))


async def _device_revoke(s: Services, actor: str, *, id: str, account: str | None, dry_run: bool) -> View:
    return views.device(await s.devices.revoke(actor, id, account=account, dry_run=dry_run))


async def _device_kick(s: Services, actor: str, *, id: str, account: str | None, dry_run: bool) -> View:
    """``cut``: whether there was a live connection; null when nothing was tried."""
    device = await s.devices.find(id, account)
    cut = None if dry_run else await s.devices.kick(actor, device.id, account=account)
    return {"id": device.id, "account": device.account, "client_id": device.client_id, "cut": cut}


async def _audit_page(s: Services, actor: str, *, after: int | None, limit: int, **filters: str | None) -> View:
    return listings.audit(await s.platform.store.audit_page(after=after or 0, limit=limit), limit, filters)


async def _audit_wait(s: Services, actor: str, *, after: int | None, wait_s: int, limit: int) -> View:
    return await listings.audit_after(s.platform.store, after, wait_s, limit)


async def _status(s: Services, actor: str) -> View:
    store = s.platform.store
    await store.health()
    requests = {state.value: await store.count(ProvisionRequest, where={"state": state}) for state in RequestState}
    return {
        **s.status(),
        "time": s.platform.now().isoformat(),
        "epoch": s.platform.epoch,
        "account_brokers": {name: views.capabilities(each) for name, each in sorted(s.platform.brokers.items())},
        "brokers_refused": dict(sorted(s.platform.refused.items())),
        "isolation": s.proving.status() if s.proving is not None else {},
        "accounts": await store.count(Account),
        "requests": requests,
        "devices": await store.count(Device),
        "effects_waiting": await store.count(Effect),
        "audit_seq": await listings.newest_seq(store),
    }


async def _selftest(s: Services, actor: str) -> View:
    reports = await s.proving.prove() if s.proving is not None else ()
    checks = [*await selftest(s.platform), *(tried for report in reports for tried in tried_rules(report))]
    return {
        "ok": all(check.passed for check in checks),
        "checks": [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in checks],
        "isolation": [{"target": r.target, "holds": r.holds, "leaks": r.leaks, "took_s": r.took_s} for r in reports],
    }


async def _store_backup(s: Services, actor: str, *, target: str) -> View:
    """target: an absolute path on the service's own host, where no file is yet."""
    path = Path(target)
    if not path.is_absolute() or "\0" in target:
        raise InvalidInput([Problem("target", "must be an absolute path", shape(target))])
    return views.backup(path, await copying.backup(actor, s.platform.store, path, s.platform.now()))


async def _fsck(s: Services, actor: str) -> View:
    """Empty findings: consistent."""
    findings = await fsck(s.platform)
    return {"findings": [{"kind": f.kind, "subject": f.subject, "detail": f.detail} for f in findings]}


_PAGE = {"after": Takes.TEXT, "limit": Takes.LIMIT}
_WRITE = {"id": Takes.ID, "dry_run": Takes.FLAG}
_DEVICE = {"id": Takes.ID, "account": Takes.TEXT}

VERBS: Mapping[str, Verb] = {
    "account.create": Verb(_account_create, fields=Takes.FIELDS, dry_run=Takes.FLAG),
    "account.page": Verb(_account_page, **_PAGE),
    "account.show": Verb(_account_show, id=Takes.ID),
    "account.update": Verb(_account_update, fields=Takes.FIELDS, **_WRITE),
    "account.delete": Verb(_account_delete, **_WRITE),
    "user.page": Verb(_user_page, account=Takes.ID, **_PAGE),
    "user.show": Verb(_user_show, account=Takes.ID, username=Takes.ID),
    "request.create": Verb(_request_create, fields=Takes.FIELDS, dry_run=Takes.FLAG),
    "request.page": Verb(
        _request_page, account=Takes.TEXT, state=Takes.TEXT, client_id=Takes.TEXT, username=Takes.TEXT, **_PAGE
    ),
    "request.show": Verb(_request_show, id=Takes.ID),
    "request.update": Verb(_request_update, fields=Takes.FIELDS, **_WRITE),
    "request.delete": Verb(_request_delete, **_WRITE),
    "request.revoke": Verb(_request_revoke, **_WRITE),
    "request.rearm": Verb(_request_rearm, cut=Takes.FLAG, **_WRITE),
    "request.approve": Verb(_request_approve, **_WRITE),
    "request.reject": Verb(_request_reject, **_WRITE),
    "request.explain": Verb(_request_explain, id=Takes.ID, at=Takes.TEXT),
    "request.preview": Verb(_request_preview, id=Takes.ID),
    "request.import": Verb(_request_import, rows=Takes.ROWS, dry_run=Takes.FLAG),
    "device.page": Verb(_device_page, account=Takes.TEXT, state=Takes.TEXT, client_id=Takes.TEXT, **_PAGE),
    "device.show": Verb(_device_show, **_DEVICE),
    "device.enable": Verb(_device_enable, dry_run=Takes.FLAG, **_DEVICE),
    "device.disable": Verb(_device_disable, dry_run=Takes.FLAG, **_DEVICE),
    "device.revoke": Verb(_device_revoke, dry_run=Takes.FLAG, **_DEVICE),
    "device.kick": Verb(_device_kick, dry_run=Takes.FLAG, **_DEVICE),
    "audit.page": Verb(
        _audit_page,
        after=Takes.SEQ,
        limit=Takes.LIMIT,
        account=Takes.TEXT,
        client_id=Takes.TEXT,
        action=Takes.TEXT,
    ),
    "audit.wait": Verb(_audit_wait, after=Takes.SEQ, wait_s=Takes.WAIT_S, limit=Takes.LIMIT),
    "store.backup": Verb(_store_backup, target=Takes.ID),
    "status": Verb(_status),
    "selftest": Verb(_selftest),
    "fsck": Verb(_fsck),
}
