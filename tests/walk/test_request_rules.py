"""What may be requested: every rule of a provision request, tried at the command line of a running service."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.fleet import devices, fleet_of, run_fleet
from tests.support.installation import Installation

FreshId = Callable[[], str]
CONFLICT, INVALID_INPUT, PARTLY_DONE = 5, 6, 7


class Office:
    """Somebody who creates requests at the command line."""

    def __init__(self, site: Installation, fresh_id: FreshId) -> None:
        self.site, self.fresh_id = site, fresh_id

    def now(self) -> datetime:
        """The server's."""
        return datetime.fromisoformat(self.site.ask("status")["time"])

    def create(self, *options: str, password: str | None = None, **named: str) -> dict[str, Any]:
        """The request that was made."""
        made = self.site.cli(*self._words(options, named, password), stdin=password or "")
        return {**json.loads(made.stdout), "said": made.stderr}

    def refused(self, status: int, *options: str, password: str | None = None, **named: str) -> str:
        """What the command says; nothing was stored and nobody is told that it was."""
        before = self.site.ask("status")
        refusal = self.site.cli(*self._words(options, named, password), status=status, stdin=password or "")
        after = self.site.ask("status")
        assert (refusal.stdout, after["requests"]) == ("", before["requests"])
        # What strangers did before may still come to be told.
        told = self.site.ask("audit.page", after=before["audit_seq"], limit=500)["items"]
        assert [row for row in told if row["actor"].startswith("admin:")] == []
        return refusal.stderr

    def import_rows(self, rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
        """Results of rows of which every one is refused."""
        before = self.site.ask("status")["requests"]
        done = self.site.cli(
            "request", "import", "-", "--format", "json", "-o", "json", stdin=json.dumps(rows), status=PARTLY_DONE
        )
        results: list[dict[str, Any]] = json.loads(done.stdout)
        assert not any(result["ok"] for result in results)
        assert self.site.ask("status")["requests"] == before
        return results

    def _words(self, options: Sequence[str], named: dict[str, str], password: str | None) -> list[str]:
        client_id = named.pop("client_id", None) or self.fresh_id()
        fields = {"account": "acme", "client_id": client_id, "username": f"user-{self.fresh_id()}", **named}
        words = [word for name, value in fields.items() for word in (f"--{name.replace('_', '-')}", value)]
        return ["request", "create", *words, *options, *(["--password-file", "-"] if password else [])]


@pytest.fixture
def office(shared_installation: Installation, fresh_id: FreshId) -> Office:
    return Office(shared_installation, fresh_id)


def test_ec_07_a_client_id_is_open_once_on_the_platform(office: Office) -> None:
    """A second open request for a client id conflicts, in the same account and in another one."""
    client_id = office.fresh_id()
    office.create(client_id=client_id)
    assert "client_id" in office.refused(CONFLICT, client_id=client_id)
    assert "client_id" in office.refused(CONFLICT, client_id=client_id, account="bolt")
    office.site.cli("request", "revoke", client_id, "--yes")
    assert office.create(client_id=client_id, account="bolt")["account"] == "bolt"


def test_ec_07_with_scope_account_each_account_has_its_own(make_installation: Callable[..., Installation]) -> None:
    """By setting, two accounts may use one client id under different usernames, and both devices get through."""
    site = make_installation(policy={"client_id_scope": "account"})
    with site.running():
        site.account("acme")
        site.account("bolt")
        create = ("request", "create", "--client-id", "dev1", "--account")
        site.request("dev1", "acme", username="of-acme")
        site.cli(*create, "acme", "--username", "other", status=CONFLICT)
        site.cli(*create, "bolt", "--username", "of-acme", status=CONFLICT)
        credentials = site.request("dev1", "bolt", username="of-bolt")
        with site.device(credentials) as device:
            assert device.ask()["account"] == "bolt"
        assert (len(site.users_of("dev1", "bolt")), site.users_of("dev1", "acme")) == (1, [])


# What Kura makes of names that hold / + # . and its default, the MAC address without colons.
KURA_NAMES = ("AA11BB22CC33", "plant-7-press-4", "00:11:22:33:44:55")


def test_ec_08_client_ids_that_act_in_topics_are_refused(office: Office) -> None:
    """Empty, too long, NUL, half a character, wildcards and separators: refused, with the field's name."""
    base = {"account": "acme", "username": "rule-test"}
    bad = ["", "x" * 256, "é" * 128, "a\0b", "a+b", "a#b", "a/b", "\u200bx", " x"]
    for result in office.import_rows([{**base, "client_id": client_id} for client_id in bad]):
        assert {problem["field"] for problem in result["error"]["problems"]} == {"client_id"}, result
        assert result["error"]["kind"] == "invalid_input"
    half = json.dumps([{**base, "client_id": "a\ud800"}])
    said = office.site.cli("request", "import", "-", "--format", "json", stdin=half, status=INVALID_INPUT).stderr
    assert said.startswith("line 1: must not hold half a character")
    for client_id in ("a+b", "a#b", "a/b", "x" * 256):
        assert office.refused(INVALID_INPUT, client_id=client_id).startswith("client_id: ")


@pytest.mark.parametrize("client_id", ["a", "Z9", "0123456789abcdefghijKLM", *KURA_NAMES, "x" * 255])
def test_ec_08_client_ids_of_the_field_are_accepted(office: Office, client_id: str) -> None:
    """1 to 23 letters and digits pass in silence, longer and odder ones with a warning; all of them get through."""
    made = office.create(client_id=client_id)
    portable = len(client_id) <= 23 and client_id.isalnum()
    assert ("warning: client_id: " in made["said"]) == (not portable)
    office.site.cli("request", "delete", client_id, "--yes")
    office.site.provision(office.site.request(client_id, username=f"user-{office.fresh_id()}"), broker="north")


def test_ec_08_strict_mqtt31_refuses_what_is_not_portable(make_installation: Callable[..., Installation]) -> None:
    """AZ-11: by setting, more than 23 characters are refused; without it a GUID is a client id like any other."""
    site = make_installation(policy={"strict_mqtt31": True})
    with site.running():
        site.account()
        create = ("request", "create", "--account", "acme", "--username", "strict", "--client-id")
        long = site.cli(*create, "x" * 24, status=INVALID_INPUT).stderr
        assert long.startswith("client_id: is longer than the 23 characters")
        site.cli(*create, "a:b", status=INVALID_INPUT)
        site.cli(*create, "0123456789abcdefghijKLM")
        assert [request["client_id"] for request in site.listed("request.page")] == ["0123456789abcdefghijKLM"]


def test_ec_09_a_username_has_three_characters(office: Office) -> None:
    """Two are refused, naming the field; three are accepted."""
    assert office.refused(INVALID_INPUT, username="ab").startswith("username: must be at least 3 characters")
    assert office.create(username="abc")["username"] == "abc"


@pytest.mark.parametrize("username", ["a.b", "a b", "a+b", "é12", "a/b", "abc\n", "٣٣٣"])
def test_ec_10_a_username_is_letters_digits_dash_and_underscore(office: Office, username: str) -> None:
    """Anything else is refused, naming the field; the four kinds together are accepted."""
    assert office.refused(INVALID_INPUT, username=username).startswith("username: must contain only letters")


def test_ec_10_all_four_kinds_of_characters_are_accepted(office: Office) -> None:
    """Upper and lower case, digits, dash and underscore, in any place."""
    assert office.create(username="_Az-09_-")["username"] == "_Az-09_-"


def test_ec_12_one_pair_serves_all_requests_of_an_account(office: Office) -> None:
    """A hundred requests with one username and password, a hundred devices through; another password conflicts."""
    site, username, password = office.site, f"user-{office.fresh_id()}", "Printed-on-every-label"
    fleet = [
        site.request(office.fresh_id(), username=username, password=password, activation_key=True) for _ in range(100)
    ]
    report, sim = run_fleet(site, *(fleet_of(credentials) for credentials in fleet))
    assert report.is_met, report
    users = {runner.device.state.settings.username for runner in devices(sim) if runner.device.state.settings}
    assert len(users) == 100
    for credentials in fleet:
        site.await_state(credentials.client_id, "confirmed")
    other = "Another-password-2"
    said = office.refused(CONFLICT, "--activation-key", username=username, password=other)
    assert "another password" in said and other not in said
    office.create("--activation-key", username=username, password=password)


def test_ec_13_a_password_has_twelve_characters(office: Office) -> None:
    """Eleven are refused, twelve are accepted, and the device gets in with them."""
    assert office.refused(INVALID_INPUT, password="Abcdefghij!").startswith("password: must be at least 12 characters")
    made = office.create(password="Abcdefghi-k!")
    assert "password" not in made["secrets"]
    credentials = {"username": made["username"], "password": "Abcdefghi-k!"}
    report, _ = run_fleet(office.site, {"client_id": made["client_id"], **credentials})
    assert report.is_met, report


@pytest.mark.parametrize(
    ("password", "missing"),
    [
        ("ABCDEFGHIJK!", {"lower-case"}),
        ("abcdefghijk!", {"upper-case"}),
        ("Abcdefghijkl", {"special"}),
        ("123456789012", {"lower-case", "upper-case", "special"}),
        ("abc", {"at least 12", "upper-case", "special"}),
    ],
)
def test_ec_14_every_broken_rule_of_a_password_is_told_at_once(
    office: Office, password: str, missing: set[str]
) -> None:
    """Each rule that fails has its line, and no line shows the password."""
    lines = office.refused(INVALID_INPUT, password=password).splitlines()
    assert len(lines) == len(missing)
    assert all(line.startswith("password: ") and password not in line for line in lines)
    assert all(any(rule in line for line in lines) for rule in missing)


def test_ec_14_a_password_needs_no_digit(office: Office) -> None:
    """Lower, upper and special characters are enough."""
    assert "password" not in office.create(password="Abcdefghijk!")["secrets"]


def test_ec_19_a_request_is_active_from_now_on(office: Office) -> None:
    """EC-21: without times the window opens within a second of the server's now, and has no end."""
    before, made, after = office.now(), office.create(), office.now()
    second = timedelta(seconds=1)
    assert before - second <= datetime.fromisoformat(made["activates_on"]) <= after + second
    assert (made["expires_on"], made["phase"]) == (None, "active")


@pytest.mark.parametrize("after_s", [0, -1, -86_400])
def test_ec_23_a_window_ends_after_it_begins(office: Office, after_s: int) -> None:
    """An end at or before the beginning is refused by create and by update, and nothing is stored."""
    opens = datetime.now(UTC) + timedelta(hours=1)
    closes = opens + timedelta(seconds=after_s)
    window = {"activates_on": opens.isoformat(), "expires_on": closes.isoformat()}
    assert office.refused(INVALID_INPUT, **window).startswith("expires_on: ")
    made = office.create(activates_on=window["activates_on"])
    office.site.cli("request", "update", made["id"], "--expires-on", window["expires_on"], status=INVALID_INPUT)
    assert office.site.ask("request.show", id=made["id"])["expires_on"] is None


def test_ec_23_without_a_beginning_the_end_must_follow_now(office: Office) -> None:
    """An end in the past is refused where the window opens now."""
    assert office.refused(INVALID_INPUT, expires_on="2020-01-01T00:00:00Z").startswith("expires_on: ")
