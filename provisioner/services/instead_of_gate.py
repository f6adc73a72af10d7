"""The self-test's devices at a broker that stands in the place of the gate: their logins are written as those of real
devices are, for the trial only, and what one of them says is answered on its own topics for all who hear them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from provisioner.link.probe import Door, Login, Probe
from provisioner.model.errors import Unavailable
from provisioner.services.isolation_cast import Stranger
from provisioner.services.isolation_trial import Cast, Target
from provisioner.services.link_logins import LinkLogins
from provisioner.services.stand_ins import StandIns

NAME = "provision broker"
LET_IN_WITHIN_S = 15.0  # it reads its files the less often the longer they are
_AGAIN_S = 0.1


class InsteadOfGate:
    """``admitted`` for as long as a trial lasts."""

    def __init__(self, logins: LinkLogins, stand_ins: StandIns, door: Callable[[], Door]) -> None:
        """door: where devices reach that broker."""
        self._logins, self._stand_ins, self._door = logins, stand_ins, door

    def target(self) -> Target:
        """mosquitto grants what it does not deliver, and knows a device by its user alone."""
        return Target(
            name=NAME, door=self._door(), refuses_subscribe=False, refuses_wills=False, checks_client_id=False
        )

    @asynccontextmanager
    async def admitted(self, cast: Cast, strangers: Sequence[Stranger]) -> AsyncIterator[None]:
        """Returns when that broker lets both in. Raises Unavailable."""
        passwords = {party.login.username: party.login.password for party in (cast.spy, cast.holder)}
        self._stand_ins.remember(cast.stranger)
        try:
            for user, request, rights in strangers:
                verifier = await self._logins.verifier(user.id, passwords[user.id])
                self._stand_ins.admit(user, request, rights)
                self._logins.admit(replace(user, link_verifier=verifier), request)
            for party in (cast.spy, cast.holder):
                await asyncio.to_thread(self._wait, party.client_id, party.login)
            yield
        finally:
            for user, request, _ in strangers:
                self._logins.dismiss(request.id)
                self._stand_ins.dismiss(user, request)

    def _wait(self, client_id: str, login: Login) -> None:
        until_s = time.monotonic() + LET_IN_WITHIN_S
        while True:
            probe = Probe(self._door(), client_id, login, until_s)
            let_in = probe.connect()
            probe.leave()
            if let_in:
                return
            if not probe.answered or time.monotonic() > until_s:
                raise Unavailable(f"the provision broker does not let its throw-away devices in: {probe.failure}")
            time.sleep(_AGAIN_S)
