"""Self-test: every part that a walk through the gate needs is tried for real, without leaving a trace."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from provisioner.model import names
from provisioner.model.errors import FleetgateError, Unavailable
from provisioner.model.ports import LinkLogins
from provisioner.services.isolation import Report, is_throw_away
from provisioner.services.platform import Platform
from provisioner.vault import generate

EXPIRES_SOON = timedelta(days=30)
_PURPOSE, _RECORD = "selftest", "selftest"


@dataclass(frozen=True, slots=True)
class Tried:
    """One part. ``detail`` says what was seen, or what to do about it."""

    name: str
    passed: bool
    detail: str


async def selftest(platform: Platform) -> list[Tried]:
    """Every part with its verdict; one that fails does not stop the others. Isolation is proved apart."""
    return [tried async for tried in _each(platform)]


def tried_rules(report: Report) -> list[Tried]:
    """Each rule of isolation at one target as a part, then all of them as one."""
    rules = [Tried(f"{report.target}: {each.rule}", each.held is True, each.detail) for each in report.verdicts]
    whole = f"{report.summary}; tried in {report.took_s:.2f} s"
    return [*rules, Tried(f"{report.target}: isolation", report.holds, whole)]


async def _each(platform: Platform) -> AsyncIterator[Tried]:
    parts: list[tuple[str, Callable[[Platform], Awaitable[str]]]] = [
        ("store", _store),
        ("clock", _clock),
        ("key ring", _key_ring),
        ("passwords", _passwords),
        ("authority", _authority),
    ]
    for name, part in parts:
        yield await _try(name, part(platform))
    if platform.link_logins is not None:
        yield await _try("logins at the provision broker", _logins(platform.link_logins))
    for name in sorted(platform.brokers):
        yield await _try(f"account broker {name}", _broker(platform, name))


async def _try(name: str, part: Awaitable[str]) -> Tried:
    try:
        return Tried(name, True, await part)
    except FleetgateError as error:
        return Tried(name, False, str(error))


async def _store(platform: Platform) -> str:
    await platform.store.health()
    return "a commit could succeed now"


async def _clock(platform: Platform) -> str:
    """F-32: windows are decided by this clock; behind the audit log it has jumped back."""
    now = platform.now()
    for newest in await platform.store.audit_page(limit=1, newest_first=True):
        if newest.at - now > timedelta(seconds=1):
            raise Unavailable(f"the clock says {now.isoformat()}, the newest audit row {newest.at.isoformat()}")
    return now.isoformat()


async def _key_ring(platform: Platform) -> str:
    clear = secrets.token_bytes(32)
    if platform.ring.open(platform.ring.seal(clear, _RECORD, _PURPOSE), _RECORD, _PURPOSE) != clear:
        raise Unavailable("what was sealed opens as something else")
    return "seals and opens"


async def _passwords(platform: Platform) -> str:
    password, other = generate.password(), generate.password()
    if any(names.check_password(password.reveal())):
        raise Unavailable("a generated password breaks the password rules")
    verifier = platform.ring.verifier(password, _PURPOSE, _RECORD)
    right = platform.ring.verify(verifier, password, _PURPOSE, _RECORD)
    if not right or platform.ring.verify(verifier, other, _PURPOSE, _RECORD):
        raise Unavailable("a right password is refused or a wrong one accepted")
    return "the right one is accepted, another one refused"


async def _authority(platform: Platform) -> str:
    now, ends = platform.now(), platform.authority.certificate.not_valid_after_utc
    if not platform.authority.certificate.not_valid_before_utc <= now < ends - EXPIRES_SOON:
        raise Unavailable(f"the authority's certificate ends at {ends.isoformat()}; renew it")
    made = platform.authority.with_new_key(_RECORD, _RECORD, now)
    return f"issues certificates until {ends.date().isoformat()}, the next renews after {made.renew_after.date()}"


async def _logins(logins: LinkLogins) -> str:
    if unknown := logins.unknown():
        raise Unavailable(
            f"{len(unknown)} requests were made before provision_link, so their devices cannot log in: delete each and"
            f" create it again, with its password in a file or under a new username; the first is of {unknown[0]}"
        )
    return "every open request has one"


async def _broker(platform: Platform, name: str) -> str:
    users = [user for user in await platform.broker(name).users() if not is_throw_away(user[0])]
    return f"answers and knows {len(users)} users"
