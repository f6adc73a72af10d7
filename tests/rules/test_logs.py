"""The two forms of the log: one line an event, whom it is about, and nothing that looks like a secret."""

import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.account_brokers.mosquitto_passwords import password_digest
from provisioner.authority.local_ca import LocalAuthority
from provisioner.doors import logs
from provisioner.model.audit import AuditEvent
from provisioner.model.secret import Secret
from provisioner.services.observing import EventLog
from provisioner.services.subject import about
from provisioner.vault import generate
from provisioner.vault.keyring import KeyRing
from tests.rules.nouns import NOON

Lines = Callable[[], list[str]]
log = logging.getLogger("tests.logs")
RING = KeyRing({"k1": b"\x01" * 32})
AUTHORITY = LocalAuthority.create("Acme provisioning", datetime.now(UTC))


@pytest.fixture(params=["text", "json"])
def lines(request: pytest.FixtureRequest) -> Iterator[Lines]:
    """What was logged since, line by line."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    logs.configure("DEBUG", request.param, stream)
    yield lambda: stream.getvalue().splitlines()
    logging.captureWarnings(False)
    logging.raiseExceptions = True
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def events(lines: Lines) -> Callable[[], list[dict[str, object]]]:
    """As objects; only where the form is JSON."""

    def read() -> list[dict[str, object]]:
        found = lines()
        return [json.loads(line) for line in found] if found[0].startswith("{") else []

    return read


def _basic(secret: str) -> str:
    return f"authorization: Basic {secret}"


SECRETS = {
    "a generated password": (generate.password().reveal(), "the password is {}."),
    "an activation key": (generate.activation_key().reveal(), "asked with {} again"),
    "a private key": (AUTHORITY.server(["h"], NOON)[1].reveal(), "key file:\n{}"),
    "half a private key": (AUTHORITY.server(["h"], NOON)[1].reveal()[:120], "key file: {}"),
    "a verifier": (RING.verifier(Secret("Chosen-Pass-1"), "p", "r"), "stored as {}"),
    "a sealed box": (RING.seal(b"clear", "r", "p"), "sealed={}"),
    "an argon2 digest": ("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b/dWQ", "{}"),
    "a digest of mosquitto": (password_digest(Secret("Chosen-Pass-1")), "dev-1:{}"),
    "a login in a URL": ("Chosen-Pass-1", "mqtts://dev-1:{}@broker.example.org:8883"),
    "a bearer": ("Y2hvc2VuLXBhc3Mtd29yZC0x", "sent Bearer {}"),
    "a basic login": ("Y2hvc2VuLXBhc3Mtd29yZC0x", "authorization: Basic {}"),
    "a password by its name": ("Chosen-Pass-1", "password={}"),
    "a key by its name in JSON": ("Chosen Pass 1", '{{"activation_key": "{}", "x": 1}}'),
    "a password by its name in a repr": ("Chosen Pass 1", "Login(username='u', password='{}')"),
    "a pepper": ("00ff00ff", "pepper: {}"),
}


@pytest.mark.parametrize("what", SECRETS)
def test_f_39_what_looks_like_a_secret_does_not_pass(lines: Lines, what: str) -> None:
    """F-39: in a message, an argument, whom it is about and a traceback; what stands around it does."""
    secret, form = SECRETS[what]
    text = f"before it {form.format(secret)} after it"
    log.info(text)
    log.info("%s %d", text, 7)
    log.info("x", extra={"about": {"client_id": text}})
    with about(client_id=text):
        log.info("y")
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("z")
    told = "\n".join(lines())
    assert secret not in told
    assert json.dumps(secret)[1:-1] not in told
    assert told.count("before it") == 5
    assert logs.GONE in told


def test_f_39_a_secret_is_not_shown_by_what_holds_it(lines: Lines) -> None:
    """F-39: a Secret that is logged by mistake shows asterisks."""
    log.info("%s %r", Secret("Chosen-Pass-1"), {"password": Secret("Chosen-Pass-1")})
    assert "Chosen" not in lines()[0]


@given(st.text("abcdefghijklmnop qrstuvwxyz0123456789.,:/-_()%\n", max_size=200))
def test_ordinary_words_pass_as_they_are(text: str) -> None:
    """What has none of the forms is left alone."""
    if not re.search("password|passwd|secret|credential|key|pepper|basic|bearer|://|fg-|[0-9a-z]{6}-", text):
        assert logs.redacted(text) == text


@pytest.mark.parametrize(
    "text", ["connect.refused reason=password client_id=gw1", "the password was refused", "3 credentials; secret files"]
)
def test_words_about_secrets_pass(text: str) -> None:
    """A reason that is called password is no password."""
    assert logs.redacted(text) == text


def test_f_09_a_line_is_one_line(lines: Lines) -> None:
    """F-09: what a stranger sent cannot look like another line, nor move the cursor."""
    forged = "gw1\n2026-01-01T00:00:00.000Z INFO x: connect.accepted\r\x1b[2J\u2028z"
    log.info("refused %s", forged)
    log.info("refused", extra={"about": {"client_id": forged}})
    with about(client_id=forged):
        log.info("refused")
    told = lines()
    assert len(told) == 3
    assert all(line.isprintable() for line in told)


def test_who_it_is_about_is_told_inside_and_not_after(events: Callable[[], list[dict[str, object]]]) -> None:
    """Lines of whatever part say the request and the client id of the work at hand; an inner block adds to that."""
    with about(client_id="gw1", address=None):
        with about(request_id="req-1"):
            log.info("inner")
        log.info("outer")
    log.info("after")
    told = [{name: event[name] for name in event.keys() - {"ts", "level", "logger", "event"}} for event in events()]
    assert told in ([{"client_id": "gw1", "request_id": "req-1"}, {"client_id": "gw1"}, {}], [])


def test_a_line_has_when_what_and_where_from(lines: Lines, events: Callable[[], list[dict[str, object]]]) -> None:
    """RFC 3339 in UTC, level, logger and event in both forms; a traceback where there is one."""
    before = datetime.now(UTC)
    try:
        raise KeyError("missing")
    except KeyError:
        log.warning("failed %s", "here", exc_info=True)
    assert any("KeyError: 'missing'" in line for line in lines())
    if not (told := events()):
        when, level, logger, event, where = lines()[0].split()
        assert (level, logger, event, where) == ("WARNING", "tests.logs:", "failed", "here")
    else:
        when = str(told[0]["ts"])
        assert (told[0]["level"], told[0]["logger"], told[0]["event"]) == ("WARNING", "tests.logs", "failed here")
    assert abs((datetime.fromisoformat(when) - before).total_seconds()) < 10
    assert when.endswith("Z")


def test_a_long_name_is_shortened(lines: Lines) -> None:
    """A client id of 65,535 characters does not fill the log."""
    log.info("refused", extra={"about": {"client_id": "x" * 65_535}})
    assert len(lines()[0]) < 1_000


REFUSED = AuditEvent(
    at=NOON,
    actor="gate",
    action="connect.refused",
    outcome="refused",
    reason="unknown_user",
    client_id="gw 1",
    username="not-shown",
    address="192.0.2.7",
    details={"count": 12, "detail": "not-shown"},
)


def test_a_refusal_is_told_with_its_reason(lines: Lines) -> None:
    """At INFO, with what an operator looks for, and without what a device may have put into the details."""
    EventLog().recorded(REFUSED)
    (line,) = lines()
    for word in ("INFO", "connect.refused", "unknown_user", "gw 1", "192.0.2.7", "12"):
        assert word in line
    assert "not-shown" not in line


@pytest.mark.parametrize(
    ("action", "outcome", "level"),
    [("provision.granted", "ok", "DEBUG"), ("alert.two_addresses", "failed", "WARNING"), ("x.y", "failed", "INFO")],
)
def test_how_loud_an_event_is(lines: Lines, action: str, outcome: str, level: str) -> None:
    """What went well is for DEBUG, an alert is a warning."""
    EventLog().recorded(AuditEvent(at=NOON, actor="device", action=action, outcome=outcome, subject="req-1"))
    assert f"{level}" in lines()[0]
    assert re.search(r"request_id\W{1,3}req-1", lines()[0])


def test_the_handler_is_the_only_one(lines: Lines) -> None:
    """Nothing goes to another stream beside it, and a Python warning is a line as well."""
    assert len([each for each in logging.getLogger().handlers if type(each) is logging.StreamHandler]) == 1
    logging.getLogger("py.warnings").warning("%s", "deprecated")
    assert "deprecated" in lines()[0]
    assert sys.stderr not in [getattr(each, "stream", None) for each in logging.getLogger().handlers]


def test_f_39_what_cannot_be_written_is_shown_nowhere(lines: Lines, capfd: pytest.CaptureFixture[str]) -> None:
    """F-39: a full disk under the log brings nothing past the forms of the log."""
    (handler,) = (each for each in logging.getLogger().handlers if type(each) is logging.StreamHandler)
    closed = io.StringIO()
    closed.close()
    handler.stream = closed
    log.info("password=%s", "Chosen-Pass-1")
    assert capfd.readouterr() == ("", "")
