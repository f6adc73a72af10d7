"""What a decision about a stored request depends on, for the gate and for ``request explain`` alike."""

from datetime import datetime

from provisioner.model.account import Account
from provisioner.model.decision import Circumstances
from provisioner.model.device import Device
from provisioner.model.errors import NotFound
from provisioner.model.request import ProvisionRequest
from provisioner.services.platform import Platform


async def circumstances(
    platform: Platform,
    request: ProvisionRequest,
    now: datetime,
    *,
    key_matches: bool = True,
    contended: bool = False,
    repeated: bool = False,
) -> Circumstances:
    """Read what belongs to the request. Raises NotFound when its account is gone."""
    account = await platform.store.get(Account, request.account)
    if account is None:
        raise NotFound("account", request.account)
    devices = await platform.store.find(Device, "client_id", f"{request.account}/{request.client_id}")
    return Circumstances(
        request=request,
        account=account,
        device=devices[0] if devices else None,
        policy=platform.policy,
        now=now,
        key_matches=key_matches,
        contended=contended,
        repeated=repeated,
        epoch=platform.epoch,
        shared=request.key_verifier is None and await is_shared(platform, request),
    )


async def is_shared(platform: Platform, request: ProvisionRequest) -> bool:
    """Whether other open requests are reached by the same username and password; where the login is checked by a
    broker that lets its holder speak for each of them, the closed ones count too: their devices know it still."""
    index = "open_username" if platform.link_logins is None else "username"
    same = await platform.store.page(ProvisionRequest, where={index: request.username}, limit=2)
    return any(other.id != request.id for other in same.items)
