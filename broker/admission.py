"""Who is let in: what can never be right, then the limits, then the application, then its answer's own limits."""

from broker.access import Admission, Denial, DenialKind, Incident, Login, check_login, may_will
from broker.hall import Hall, logger
from broker.limits import Attempt
from broker.session_settings import Refusal

REFUSALS = {
    DenialKind.NOT_AUTHORIZED: Refusal.NOT_AUTHORISED,
    DenialKind.CLIENT_ID: Refusal.CLIENT_ID_NOT_VALID,
    DenialKind.BUSY: Refusal.SERVER_BUSY,
    DenialKind.RATE: Refusal.RATE_EXCEEDED,
    DenialKind.UNAVAILABLE: Refusal.SERVER_UNAVAILABLE,
}


async def decide(hall: Hall, login: Login) -> Admission | Denial:
    """Nothing outside the limits' own counters is changed by a login that ends in a Denial."""
    if (denial := check_login(login)) is not None:
        return denial
    attempt = Attempt(login.address, login.username or "", login.client_id)
    if (denial := hall.logins.begin(attempt, hall.clock())) is not None:
        return denial
    outcome: Admission | Denial | None = None
    try:
        outcome = await _ask(hall, login)
    finally:
        if hall.logins.end(attempt, hall.clock(), _success(outcome)):
            hall.observe(Incident("connect.locked_out", "failures", login.client_id, login.username, login.address))
    if isinstance(outcome, Denial):
        return outcome
    if login.will_topic is not None and not may_will(outcome.rights, login.will_topic, login.will_retain):
        return Denial(DenialKind.NOT_AUTHORIZED, "will_not_allowed")
    return hall.logins.connected(outcome.identity, hall.clock()) or outcome


async def _ask(hall: Hall, login: Login) -> Admission | Denial:
    try:
        return await hall.application.admit(login)
    except Exception as error:
        # The type only: a message or a traceback could quote the login.
        logger.error("the application failed on a login: %s", type(error).__name__)
        return Denial(DenialKind.UNAVAILABLE, "application_failed")


def _success(outcome: Admission | Denial | None) -> bool | None:
    if isinstance(outcome, Admission):
        return True
    if outcome is not None and outcome.kind in (DenialKind.NOT_AUTHORIZED, DenialKind.CLIENT_ID):
        return False
    return None
