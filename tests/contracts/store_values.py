"""Records that store tests put: numbered, so that equal numbers belong together."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from provisioner.model.account import Account
from provisioner.model.audit import AuditEvent
from provisioner.model.device import Device, DeviceConnection
from provisioner.model.effect import Effect, EffectVerb
from provisioner.model.epoch import Epoch
from provisioner.model.ports import Noun, Put, Store, Unit
from provisioner.model.request import Grant, Package, ProvisionRequest, RequestState
from provisioner.model.user import AccountUser, ProvisionUser

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def request(number: int, **changes: Any) -> ProvisionRequest:
    made = ProvisionRequest(
        id=f"req-{number:06d}",
        account="acme",
        client_id=f"gw{number}",
        client_id_claim=f"gw{number}",
        username="lobby",
        activates_on=NOON,
        created_at=NOON,
        created_by="admin:ada",
    )
    return replace(made, **changes)


def full_request(number: int) -> ProvisionRequest:
    """One with every field set to something that is not its default."""
    return request(
        number,
        expires_on=NOON + timedelta(days=1),
        key_verifier="hmac-sha256$k1$AAAA",
        endpoint="mqtts://broker.example:8883",
        reserve_user=True,
        configuration={"net": {"ntp": ["a", 1, 2.5, None, True]}, "größe": "\u2603"},
        packages=(Package(name="heater", version="1.0", url="https://example/heater.dp", sha256="0" * 64),),
        max_attempts=3,
        state=RequestState.GRANTED,
        attempts=2,
        key_failures=1,
        key_blocked_until=NOON.replace(microsecond=0),
        grant=Grant(message_id="m1", granted_at=NOON, device_id="dev-1", username="dev-1", sealed="gcm1$k1$AAAA"),
    )


def device(number: int, **changes: Any) -> Device:
    made = Device(
        id=f"dev-{number:06d}",
        account="acme",
        client_id=f"gw{number}",
        request=f"req-{number:06d}",
        connection=DeviceConnection(user=f"user-{number}", last_seen_at=NOON),
        created_at=NOON,
        metadata={"serial_number": f"S{number}"},
    )
    return replace(made, **changes)


def account_user(number: int) -> AccountUser:
    return AccountUser(
        id=f"acme/user-{number}",
        account="acme",
        username=f"user-{number}",
        client_id=f"gw{number}",
        broker="local",
        device_id=f"dev-{number:06d}",
        verifier="hmac-sha256$k1$BBBB",
        created_at=NOON,
    )


def effect(number: int) -> Effect:
    return Effect(
        id=f"acme/user-{number}",
        verb=EffectVerb.APPLY,
        broker="local",
        account="acme",
        username=f"user-{number}",
        created_at=NOON,
    )


def account(name: str = "acme") -> Account:
    return Account(id=name, broker="local", broker_url="mqtts://broker.example:8883", created_at=NOON)


def provision_user(name: str = "lobby") -> ProvisionUser:
    return ProvisionUser(id=name, account="acme", verifier="hmac-sha256$k1$CCCC", created_at=NOON)


def event(subject: str, action: str = "request.create", **changes: Any) -> AuditEvent:
    return replace(AuditEvent(at=NOON, actor="admin:ada", action=action, subject=subject), **changes)


def one_of_each() -> list[Noun]:
    epoch = Epoch(number=2, began_at=NOON)
    return [account(), provision_user(), full_request(1), request(2), device(1), account_user(1), effect(1), epoch]


def walk_unit(number: int) -> Unit:
    """What one provisioned device leaves: four records and two audit rows."""
    subject = f"req-{number:06d}"
    nouns: list[Noun] = [request(number), device(number), account_user(number), effect(number)]
    return Unit([Put(noun) for noun in nouns], [event(subject, "provision.granted"), event(subject, "user.create")])


async def until(condition: Callable[[], bool], nudge: Callable[[], Awaitable[object]]) -> None:
    """Nudge until the condition holds; the test's own time limit is the deadline."""
    while not condition():
        await nudge()


async def all_audit(store: Store) -> list[AuditEvent]:
    rows: list[AuditEvent] = []
    while page := await store.audit_page(after=rows[-1].seq if rows else 0, limit=1000):
        rows += page
    return rows
