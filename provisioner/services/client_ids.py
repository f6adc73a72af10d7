"""Where a client id is taken: some account brokers have one space of client ids for all accounts on them."""

from provisioner.model.account import Account
from provisioner.model.device import Device
from provisioner.model.errors import Conflict
from provisioner.model.request import ProvisionRequest
from provisioner.model.user import AccountUser
from provisioner.services.platform import Platform


async def check_free_at_broker(platform: Platform, account: str, client_id: str, broker: str) -> None:
    """Raises Conflict when another account has, or is about to have, a device of that client id on this broker, where
    the two would be one (F-05). It does not say which account: that is none of this one's business."""
    known = platform.brokers.get(broker)
    if known is None or not known.capabilities().client_ids_shared:
        return
    if await _is_there(platform, account, client_id, broker) or await _is_coming(platform, account, client_id, broker):
        raise Conflict(f"another account has a device of client id {client_id} on account broker {broker}")


async def _is_there(platform: Platform, account: str, client_id: str, broker: str) -> bool:
    for device in await platform.store.find(Device, "any_client_id", client_id):
        if device.account != account:
            users = await platform.store.find(AccountUser, "device", device.id)
            if any(user.broker == broker for user in users):
                return True
    return False


async def _is_coming(platform: Platform, account: str, client_id: str, broker: str) -> bool:
    """Only where ``client_id_scope`` is ``account`` can there be such requests."""
    for request in await platform.store.find(ProvisionRequest, "any_client_id", client_id):
        if request.is_open and request.account != account:
            owner = await platform.store.get(Account, request.account)
            if owner is not None and owner.broker == broker:
                return True
    return False
