"""The proof of isolation: at each listener of the gate and each account broker, two throw-away devices and a trial.

Their logins exist for the trial only: on account brokers as users that the store does not know, at the gate as
requests in memory. What a crash left of them at a broker is taken away at the next start and before each trial.
"""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from provisioner.link.probe import Door, door_of, trusting
from provisioner.model.account import Account
from provisioner.model.audit import AuditEvent
from provisioner.model.errors import FleetgateError, Unavailable
from provisioner.model.policy import AtStart
from provisioner.model.ports import AccountBroker, BrokerUser
from provisioner.services.instead_of_gate import NAME, InsteadOfGate
from provisioner.services.isolation import BY_NAME, Report, Verdict, is_throw_away
from provisioner.services.isolation_cast import cast_at_broker, cast_at_gate
from provisioner.services.isolation_trial import Cast, Target, Trial
from provisioner.services.platform import Platform
from provisioner.services.stand_ins import StandIns

log = logging.getLogger(__name__)

RETRY_S, RETRY_S_MAX = 30.0, 600.0
UNPROVED = "its isolation is not proved yet"


class GateLeaks(FleetgateError):
    """The gate's own isolation fails; where that is refused the service ends."""


class Proving:
    """``run`` at the start and until cancelled; ``prove`` whenever somebody asks. One proof at a time."""

    def __init__(
        self,
        platform: Platform,
        stand_ins: StandIns,
        *,
        gate_doors: Callable[[ssl.SSLContext], Mapping[str, Door]],
        trusted: Callable[[], Iterable[str]],
        usable_again: Callable[[], Awaitable[object]],
        control_prefix: str,
        at_start: AtStart = AtStart.OFF,
        instead: InsteadOfGate | None = None,
    ) -> None:
        """gate_doors: listener name -> where it is, given what to trust. trusted: PEM texts of the authority and of
        our own servers, read anew each time. usable_again: called when a broker was refused and is not any more.
        control_prefix: of the devices' second topic space. instead: of the gate, where a broker stands there."""
        self._instead = instead
        self._platform, self._stand_ins = platform, stand_ins
        self._gate_doors, self._trusted, self._usable_again = gate_doors, trusted, usable_again
        self._control_prefix, self._at_start = control_prefix, at_start
        self._alone = asyncio.Lock()
        self._last: dict[str, tuple[Report, str]] = {}
        if at_start is AtStart.REFUSE:
            platform.refused.update(dict.fromkeys(platform.brokers, UNPROVED))

    async def run(self) -> None:
        """Clear away what a crash left, prove if that is wanted, again and again while a broker is refused. Raises
        GateLeaks."""
        swept = await self._swept_all()
        if self._at_start is not AtStart.OFF:
            self._end_if_refusing(await self._prove_or_log(None))
        wait_s = RETRY_S
        while True:
            await asyncio.sleep(wait_s)
            swept = swept or await self._swept_all()
            is_open = bool(self._platform.refused) or self._instead_is_unknown
            if is_open:
                self._end_if_refusing(await self._prove_or_log(sorted(self._platform.refused)))
            wait_s = min(wait_s * 2, RETRY_S_MAX) if is_open else RETRY_S

    async def _prove_or_log(self, brokers: Sequence[str] | None) -> Sequence[Report]:
        """A test that cannot be made is no reason to end the service."""
        try:
            return await self.prove(brokers)
        except (OSError, ValueError, FleetgateError) as error:
            log.error("isolation cannot be proved: %s", type(error).__name__)
            return ()

    async def prove(self, brokers: Sequence[str] | None = None) -> Sequence[Report]:
        """A report for each target; what leaks is told to the audit log. brokers: only these, and not the gate; then
        nothing is told that was told before."""
        async with self._alone:
            former = {name: report.summary for name, (report, _) in self._last.items()} if brokers is not None else {}
            context = trusting(self._trusted(), by_name=False)
            doors = self._gate_doors(context) if brokers is None else {}
            reports = [await self._prove_gate(name, door) for name, door in doors.items()]
            if self._instead is not None and (brokers is None or self._instead_is_unknown):
                cast, strangers = await cast_at_gate(self._platform)
                reports = [await self._report(self._instead.target(), cast, self._instead.admitted(cast, strangers))]
            for name in sorted(self._platform.brokers) if brokers is None else brokers:
                reports.append(await self._prove_broker(self._platform.broker(name)))
                await self._decide(name, reports[-1])
        for report in reports:
            if former.get(report.target) != report.summary:
                self._tell(report)
        return reports

    def status(self) -> Mapping[str, Any]:
        """The newest report of each target, in short."""
        return {
            name: {"result": report.summary, "took_s": report.took_s, "at": at}
            for name, (report, at) in self._last.items()
        }

    async def _prove_gate(self, name: str, door: Door) -> Report:
        cast, requests = await cast_at_gate(self._platform)
        target = Target(
            name=f"gate {name}", door=door, refuses_subscribe=True, refuses_wills=True, checks_client_id=True
        )

        @asynccontextmanager
        async def admitted() -> AsyncIterator[None]:
            for user, request, rights in requests:
                self._stand_ins.admit(user, request, rights)
            self._stand_ins.remember(cast.stranger)
            try:
                yield
            finally:
                for user, request, _ in requests:
                    self._stand_ins.dismiss(user, request)

        return await self._report(target, cast, admitted())

    async def _prove_broker(self, broker: AccountBroker) -> Report:
        cast, users = cast_at_broker(self._platform, broker, self._control_prefix, self._trusted())
        can = broker.capabilities()
        target = Target(
            name=_of_broker(broker.name),
            door=door_of(self._platform.broker_urls[broker.name], trusting(self._trusted(), by_name=True)),
            refuses_subscribe=can.refuses_subscribe,
            refuses_wills=False,
            checks_client_id=can.checks_client_id,
        )

        @asynccontextmanager
        async def known() -> AsyncIterator[None]:
            await self._sweep(broker)
            try:
                for user in users:
                    await broker.put_user(user)
                yield
            finally:
                # Even when the service is just being stopped.
                await asyncio.shield(asyncio.ensure_future(_forget(broker, users)))

        return await self._report(target, cast, known())

    async def _report(
        self, target: Target, cast: Cast, present: contextlib.AbstractAsyncContextManager[None]
    ) -> Report:
        """present: makes the throw-away logins, and removes them."""
        started_s = time.monotonic()
        try:
            async with present:
                verdicts = await asyncio.to_thread(Trial(target, cast).run)
        except FleetgateError as error:
            verdicts = [Verdict("own-topics", None, f"not tried: {error}")]
        report = Report(target=target.name, took_s=round(time.monotonic() - started_s, 3), verdicts=verdicts)
        self._last[target.name] = (report, self._platform.now().isoformat())
        return report

    async def _decide(self, name: str, report: Report) -> None:
        """Refuse a broker that leaks, use one that does not. What could not be tried changes nothing."""
        refused = self._platform.refused
        if report.leaks and self._at_start is AtStart.REFUSE:
            refused[name] = f"its isolation fails, it {report.summary}; see `fleetgate selftest`"
        elif report.holds and name in refused:
            was = refused.pop(name)
            if was != UNPROVED:
                self._note("isolation.restored", report, "ok")
                log.warning("%s is used again: its isolation holds", report.target)
            await self._usable_again()
        elif refused.get(name, "").startswith(UNPROVED):
            refused[name] = f"{UNPROVED}: {report.summary}"

    def _tell(self, report: Report) -> None:
        if report.leaks:
            self._note("alert.isolation", report, "failed")
            for verdict in report.verdicts:
                if verdict.held is False:
                    log.error("%s does not keep devices apart: %s: %s", report.target, verdict.rule, verdict.detail)
        elif not report.holds:
            log.warning("the isolation of %s is not proved: %s", report.target, report.summary)
        else:
            log.info("the isolation of %s holds; tried in %.2f s", report.target, report.took_s)

    def _note(self, action: str, report: Report, outcome: str) -> None:
        name = report.target.removeprefix(_of_broker(""))
        details: dict[str, Any] = {"rules": list(report.leaks)} if report.leaks else {}
        if name in self._platform.brokers:
            details["used"] = name not in self._platform.refused
        self._platform.audit.note(
            AuditEvent(
                at=self._platform.now(),
                actor="selftest",
                action=action,
                outcome=outcome,
                reason=report.leaks[0] if report.leaks else None,
                subject=report.target,
                details=details,
            )
        )

    @property
    def _instead_is_unknown(self) -> bool:
        """It was tried, and could not be: that broker may have been away."""
        report, _ = self._last.get(NAME, (None, ""))
        return report is not None and not report.leaks and not report.holds

    def _end_if_refusing(self, reports: Sequence[Report]) -> None:
        """When it leaks where devices come in. An account broker is not used then, which harms no other."""
        ways_in = [each for each in reports if each.target not in map(_of_broker, self._platform.brokers)]
        for report in ways_in:
            if report.leaks and self._at_start is AtStart.REFUSE:
                advice = BY_NAME[report.leaks[0]].advice
                raise GateLeaks(f"{report.target} {report.summary}; nobody is served. To do: {advice}")

    async def _swept_all(self) -> bool:
        swept = True
        async with self._alone:
            for broker in self._platform.brokers.values():
                try:
                    await self._sweep(broker)
                except FleetgateError as error:
                    log.warning("what may be left of a self-test at %s stays for now: %s", broker.name, error)
                    swept = False
        return swept

    async def _sweep(self, broker: AccountBroker) -> None:
        """Remove users of former self-tests."""
        for account, username in await broker.users():
            if is_throw_away(account) and await self._platform.store.get(Account, account) is None:
                log.info("account broker %s: a user of a former self-test is removed", broker.name)
                await broker.remove_user(account, username)


async def _forget(broker: AccountBroker, users: Sequence[BrokerUser]) -> None:
    """Both, even when the first one cannot be; what is left then is swept later."""
    for user in users:
        try:
            await broker.remove_user(user.account, user.username)
        except Unavailable as error:
            log.warning("a user of the self-test is left at account broker %s: %s", broker.name, error)


def _of_broker(name: str) -> str:
    return f"account broker {name}"
