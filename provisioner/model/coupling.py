"""Which user may connect as which client id of its account (EC-25, EC-26)."""

from provisioner.model.account import Coupling
from provisioner.model.ports import BrokerUser

RESERVED_ELSEWHERE = "user_reserved_elsewhere"
CLIENT_ID_RESERVED = "client_id_reserved"
NOT_ITS_OWN = "strict_coupling"


def may_connect(user: BrokerUser, client_id: str, owner: BrokerUser | None) -> str | None:
    """None when allowed, else why not.

    owner: the user that was made for ``client_id`` in the same account, None when there is none.
    A reservation holds in LOOSE mode too (kapua PR 4195), and from both ends: the user goes nowhere else and the
    client id takes nobody else. STRICT on either end binds both, so that neither can be lent out by the other.
    """
    if user.reserved and client_id != user.client_id:
        return RESERVED_ELSEWHERE
    foreign_owner = owner is not None and owner.username != user.username
    if owner is not None and foreign_owner and owner.reserved:
        return CLIENT_ID_RESERVED
    if client_id == user.client_id:
        return None
    modes = {user.coupling} if owner is None else {user.coupling, owner.coupling}
    return None if modes == {Coupling.LOOSE} else NOT_ITS_OWN
