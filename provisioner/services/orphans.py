"""What was made in an account while it was being deleted: neither side saw the other's records before its commit."""

from provisioner.model.account import Account
from provisioner.model.audit import AuditEvent
from provisioner.model.device import Device
from provisioner.model.effect import EffectVerb
from provisioner.model.errors import StaleVersion, Unavailable
from provisioner.model.ports import Delete, Noun, Put, Unit
from provisioner.model.request import ProvisionRequest
from provisioner.model.user import AccountUser, ProvisionUser
from provisioner.services.effects import Effects
from provisioner.services.platform import Platform
from provisioner.services.stale import again_when_stale


async def remove_orphans(
    platform: Platform, effects: Effects, actor: str, account: str
) -> list[ProvisionRequest] | None:
    """The requests that were removed with all that hung on them. None: the account is there, or nobody can say now, and
    nothing was done; what has no account then is refused at the gate and found by fsck.

    Whoever has deleted an account or made a request calls it after its commit: whichever was the later of the two
    finds what the other did. A commit that held on to the account would have all imports into it wait in line."""
    try:
        found = await _remove(platform, effects, actor, account)
    except (Unavailable, StaleVersion):
        return None
    if found is None:
        return None
    requests, users = found
    await effects.apply_all(user.id for user in users)
    return requests


@again_when_stale
async def _remove(
    platform: Platform, effects: Effects, actor: str, account: str
) -> tuple[list[ProvisionRequest], list[AccountUser]] | None:
    store = platform.store
    if await store.get(Account, account) is not None:
        return None
    requests = list(await store.find(ProvisionRequest, "account", account))
    users = list(await store.find(AccountUser, "account", account))
    logins = await store.find(ProvisionUser, "account", account)
    devices = await store.find(Device, "account", account)
    gone: list[Noun] = [*requests, *users, *logins, *devices]
    changes: list[Put | Delete] = [*map(Delete, gone)]
    changes += [await effects.plan(EffectVerb.REMOVE, user) for user in users]
    if changes:
        audit = [_told(platform, actor, request) for request in requests]
        await store.commit(Unit(changes=changes, audit=audit))
    return requests, users


def _told(platform: Platform, actor: str, request: ProvisionRequest) -> AuditEvent:
    return AuditEvent(
        at=platform.now(),
        actor=actor,
        action="request.delete",
        reason="account_deleted",
        account=request.account,
        client_id=request.client_id,
        username=request.username,
        subject=request.id,
    )
