"""The command line: forms of output, passwords, and questions before destruction."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from provisioner.doors import cli_desk
from provisioner.doors.cli import cli
from tests.rules.direct_cli import DirectCli, direct_cli

CANARY = "Canary-Pass-word1"
CREATE = ("request", "create", "--account", "acme", "--username", "lobby", "--client-id")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DirectCli]:
    with direct_cli(tmp_path, monkeypatch) as made:
        yield made


def test_output_forms_carry_the_same(bench: DirectCli) -> None:
    """json, jsonl, yaml and csv of a listing hold the same records; a table names them."""
    for client_id in ("gw1", "gw2"):
        bench.run(*CREATE, client_id, "--activation-key")
    listed = bench.json("request", "list")
    assert {request["client_id"] for request in listed} == {"gw1", "gw2"}
    lines = bench.run("request", "list", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == listed
    assert yaml.safe_load(bench.run("request", "list", "-o", "yaml").stdout) == listed
    rows = list(csv.DictReader(io.StringIO(bench.run("request", "list", "-o", "csv").stdout)))
    assert [row["id"] for row in rows] == [request["id"] for request in listed]
    assert list(rows[0]) == list(listed[0])
    table = bench.run("request", "list", "-o", "table").stdout
    assert all(request["id"] in table for request in listed)
    assert bench.run("request", "list", "-q").stdout.split() == [request["id"] for request in listed]


def test_output_of_one_record(bench: DirectCli) -> None:
    """One record is an object in json, one line in jsonl, a line a field in a table, its id with --quiet."""
    shown = bench.json("account", "show", "acme")
    assert json.loads(bench.run("account", "show", "acme", "-o", "jsonl").stdout) == shown
    assert yaml.safe_load(bench.run("account", "show", "acme", "-o", "yaml").stdout) in (shown, [shown])
    table = bench.run("account", "show", "acme", "-o", "table").stdout
    assert {line.split()[0] for line in table.splitlines() if line.strip()} >= {"id", "broker", "coupling"}
    assert bench.run("account", "show", "acme", "-q").stdout == "acme\n"


def test_messages_are_kept_off_stdout(bench: DirectCli) -> None:
    """An empty listing is valid JSON on stdout; that it is empty is said on stderr. Warnings go there too."""
    result = bench.run("device", "list")
    assert json.loads(result.stdout) == []
    assert result.stderr == "there are none yet\n"
    assert "nothing matches" in bench.run("request", "list", "--client-id", "x").stderr
    made = bench.run(*CREATE, "gw-1")
    assert "warning: client_id" in made.stderr
    assert json.loads(made.stdout)["client_id"] == "gw-1"


def test_nothing_printed_can_drive_a_terminal(bench: DirectCli) -> None:
    """Control characters that a device or a file brought are shown as escapes, in tables and in messages."""
    bench.run(*CREATE, "gw1", "--configuration", bench.write("c.yaml", 'pid: {text: "\\e[31m\\u009b2J"}'))
    for form in ("table", "json", "jsonl", "yaml"):
        text = bench.run("request", "show", "gw1", "-o", form).stdout
        assert "\x1b" not in text, form
        assert "\x9b" not in text, form
    bench.wait(bench.desk.grant(bench.wait(bench.desk.request("gw2")), serial_number="\x1b[31m\x9b2J"))
    table = bench.run("device", "show", "gw2", "-o", "table").stdout
    assert "metadata.serial_number" in table
    assert "\\x1b[31m\\x9b2J" in table
    file = bench.write("fleet.json", '[{"client_id": "\\u001b[31m"}, {"\\u001b[2J": 1}]')
    assert "\x1b" not in bench.run("request", "import", file, status=7).stderr
    assert bench.json("request", "show", "gw1")["configuration"] == {"pid": {"text": "\x1b[31m\x9b2J"}}


def test_listing_follows_pages_up_to_the_limit(bench: DirectCli) -> None:
    """All pages are followed; --limit stops in the middle of one and asks for no more than it needs."""
    for number in range(7):
        bench.run(*CREATE, f"gw{number}", "--activation-key")
    assert len(bench.json("request", "list", "--limit", "3")) == 3
    assert bench.sent[-1] == ("request.page", {"limit": 3})
    client = cli_desk.connect(Path("fleetgate.yaml"))
    assert len(list(client.pages("request.page"))) == 7


def test_filters_reach_the_service(bench: DirectCli) -> None:
    """--account, --state and --client-id are the service's filters, not the client's."""
    bench.run("request", "list", "--account", "acme", "--state", "active", "--client-id", "gw1", "--username", "lobby")
    assert bench.sent[-1][1] == {
        "account": "acme",
        "state": "active",
        "client_id": "gw1",
        "username": "lobby",
        "limit": 500,
    }


# passwords and questions


@pytest.mark.parametrize("typed", [("--password", CANARY), (f"--password={CANARY}",), ("--password",)])
def test_password_on_the_command_line_is_refused(bench: DirectCli, typed: tuple[str, ...]) -> None:
    """F-39: typing a password is usage, whatever form; the message names the ways and does not repeat it."""
    result = bench.run(*CREATE, "gw1", *typed, status=2)
    assert "--password-file" in result.stderr
    assert "FLEETGATE_PASSWORD" in result.stderr
    assert CANARY not in result.output
    assert "--password-file" in bench.run("request", "create", *typed, status=2).stderr, (
        "before anything else is missed"
    )
    assert bench.sent == []


def test_password_comes_from_file_stdin_or_environment(bench: DirectCli) -> None:
    """One line of a file, of stdin, or a variable; the file wins; without any, one is generated and shown once."""
    file = bench.write("password.txt", f"{CANARY}\r\n")
    for number, (arguments, options) in enumerate(
        (
            (("--password-file", file), {"FLEETGATE_PASSWORD": "Ignored-Pass1"}),
            (("--password-file", "-"), {"stdin": f"{CANARY}\n"}),
            ((), {"FLEETGATE_PASSWORD": CANARY}),
        )
    ):
        made = bench.json(*CREATE, f"gw{number}", "--activation-key", *arguments, **options)
        assert bench.sent[-1][1]["fields"]["password"] == CANARY
        assert CANARY not in json.dumps(made)
    made = bench.json("request", "create", "--account", "acme", "--username", "other", "--client-id", "gw9")
    assert made["secrets"]["password"].startswith("Fg-")


def test_password_file_of_two_lines_is_refused(bench: DirectCli) -> None:
    """A file that holds more than a password is most likely the wrong file."""
    assert "one line" in bench.run(*CREATE, "gw1", "--password-file", bench.write("p", "a\nb\n"), status=2).stderr
    assert "one line" in bench.run(*CREATE, "gw1", "--password-file", bench.write("p", "\n"), status=2).stderr
    bench.run(*CREATE, "gw1", "--password-file", str(bench.folder / "absent"), status=6)


DESTRUCTIVE = (
    ("request", "delete", "gw1"),
    ("request", "revoke", "gw1"),
    ("request", "rearm", "gw1"),
    ("device", "disable", "gw1"),
    ("device", "revoke", "gw1"),
    ("account", "delete", "acme"),
    ("account", "update", "acme", "--disabled"),
)


@pytest.mark.parametrize("arguments", DESTRUCTIVE, ids=" ".join)
def test_destructive_verb_wants_a_person_or_yes(bench: DirectCli, arguments: tuple[str, ...]) -> None:
    """Without a terminal it is refused rather than guessed, even if stdin says y; with --yes it is sent."""
    assert "--yes" in bench.run(*arguments, status=2, stdin="y\n").stderr
    assert bench.sent == []
    CliRunner().invoke(cli, [*arguments, "--yes"])
    assert len(bench.sent) == 1
