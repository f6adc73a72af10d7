"""The command line: exit statuses, help, completion and start-up."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from provisioner.doors import cli_desk
from provisioner.doors.cli import COMMANDS, cli
from provisioner.doors.cli_frame import Command
from provisioner.doors.control_client import LoginRefused
from provisioner.model.errors import NotAllowed
from tests.rules.direct_cli import DirectCli, direct_cli
from tests.support.ports import free_ports

CANARY = "Canary-Pass-word1"
CREATE = ("request", "create", "--account", "acme", "--username", "lobby", "--client-id")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DirectCli]:
    with direct_cli(tmp_path, monkeypatch) as made:
        yield made


def leaves(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that is no noun, with the words that lead to it."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from leaves(below, *path, name)
    else:
        yield path, command


LEAVES = list(leaves(cli))


# exit statuses, one test each


def test_exit_0_done(bench: DirectCli) -> None:
    """Status 0: it was done, and the data is on stdout."""
    assert [account["id"] for account in bench.json("account", "list")] == ["acme"]


def test_exit_1_failure(bench: DirectCli) -> None:
    """Status 1: it was tried and failed: here fsck has findings, which are still listed."""
    bench.desk.broker.reachable = False
    result = bench.run("fsck", status=1)
    assert [finding["kind"] for finding in json.loads(result.stdout)] == ["broker_unreachable"]
    assert "error: 1 finding" in result.stderr
    assert bench.run("selftest", status=1).stderr


USAGE = (
    ("request", "explode"),
    ("explode",),
    ("request", "list", "--no-such-option"),
    ("request", "list", "--state", "perhaps"),
    ("request", "list", "--limit", "0"),
    ("account", "update", "acme"),
    ("request", "update", "gw1"),
    ("request", "create", "--account", "acme"),
    ("completion", "tcsh"),
    ("account", "list", "-o", "xml"),
)


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_exit_2_usage(bench: DirectCli, arguments: tuple[str, ...]) -> None:
    """Status 2: the command was typed wrongly; nothing was asked of the service."""
    result = bench.run(*arguments, status=2)
    assert "Usage:" in result.stderr
    assert result.stdout == ""
    assert bench.sent == []


def test_exit_3_not_allowed(bench: DirectCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 3: the service does not take the administrator's credential, or does not let him."""
    for error in (LoginRefused("gate:8885 refused the login: Not authorized"), NotAllowed("no")):

        def refuse(config: Path, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(cli_desk, "connect", refuse)
        assert str(error) in bench.run("status", status=3).stderr


NOT_FOUND = (
    ("request", "show", "nobody"),
    ("request", "explain", "nobody"),
    ("device", "kick", "nobody"),
    ("account", "delete", "nobody", "--yes"),
    ("user", "show", "nobody", "--account", "acme"),
    ("user", "list", "--account", "nobody"),
)


@pytest.mark.parametrize("arguments", NOT_FOUND, ids=" ".join)
def test_exit_4_not_found(bench: DirectCli, arguments: tuple[str, ...]) -> None:
    """Status 4: there is no such record; the message names it and how to find those there are."""
    result = bench.run(*arguments, status=4)
    assert "nobody" in result.stderr
    assert "`list`" in result.stderr


def test_exit_5_conflict(bench: DirectCli) -> None:
    """Status 5: what is stored stands against it."""
    bench.run(*CREATE, "gw1")
    assert "already has this client_id" in bench.run(*CREATE, "gw1", status=5).stderr
    assert "still has 1 requests; delete them first" in bench.run("account", "delete", "acme", "--yes", status=5).stderr


def test_exit_6_invalid_input(bench: DirectCli) -> None:
    """Status 6: each broken rule is one line with field, rule and shape, all at once."""
    result = bench.run(*CREATE, "g/w", "--expires-on", "2001-01-01T00:00:00Z", "--endpoint", "http://x", status=6)
    assert result.stderr.splitlines() == [
        "client_id: must not contain any of # + / * & , ? > % \\ (got text of 3 characters)",
        "endpoint: must begin with mqtt://, mqtts://, ws:// or wss:// (got text of 8 characters)",
        "expires_on: must be later than activates_on (got an equal or earlier time)",
    ]


def test_exit_7_partly_done(bench: DirectCli) -> None:
    """Status 7: some rows of a file were not made; the others were."""
    file = bench.write("fleet.csv", "account,client_id,username\nacme,gw1,user1\nacme,g/w,user2\n")
    result = bench.run("request", "import", file, status=7)
    assert "line 3: client_id: must not contain" in result.stderr
    assert "1 made, 1 failed" in result.stderr
    assert [row["ok"] for row in json.loads(result.stdout)] == [True, False]


def test_exit_8_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 8: nobody listens where the settings say; the message says how to start the service."""
    monkeypatch.chdir(tmp_path)
    (port,) = free_ports(1)
    assert CliRunner().invoke(cli, ["init", "--admin-port", str(port)]).exit_code == 0
    result = CliRunner().invoke(cli, ["status"])
    assert result.exit_code == 8, result.output
    assert f"127.0.0.1:{port}" in result.stderr
    assert "fleetgate serve" in result.stderr


# help


def test_overview_knows_every_command() -> None:
    """``fleetgate --help`` names every noun with the line it has, without loading any of them."""
    words = " ".join(CliRunner().invoke(cli, ["--help"]).stdout.split())
    for name, (_, line) in COMMANDS.items():
        assert f"{name} {line}" in words


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=[" ".join(path) for path, _ in LEAVES])
def test_help_has_two_examples(path: tuple[str, ...], command: click.Command) -> None:
    """Every command's help shows at least two ways to call it, and each of them parses."""
    assert isinstance(command, Command)
    assert len(command.examples) >= 2
    shown = CliRunner().invoke(cli, [*path, "--help"]).stdout
    for example in command.examples:
        assert example in shown
        assert example.split()[: 1 + len(path)] == ["fleetgate", *path]


def test_p10_help_loads_nothing_heavy() -> None:
    """P10: neither MQTT nor pydantic nor cryptography nor any service is loaded to print the overview."""
    heavy = {"paho", "pydantic", "cryptography", "yaml", "rich", "asyncio", "broker", "orjson", "provisioner.services"}
    code = (
        "import sys, contextlib\nfrom provisioner.doors.cli import main\nsys.argv = ['fleetgate', '--help']\n"
        "with contextlib.suppress(SystemExit): main()\n"
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr.strip() == "[]"
    assert "Commands:" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_names_the_program(shell: str) -> None:
    """Each shell gets a script that completes ``fleetgate``."""
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert "_FLEETGATE_COMPLETE" in result.stdout


def test_completion_completes_nouns_and_verbs() -> None:
    """What the script calls answers with the verbs of a noun."""
    result = CliRunner().invoke(
        cli,
        prog_name="fleetgate",
        env={"_FLEETGATE_COMPLETE": "bash_complete", "COMP_WORDS": "fleetgate request re", "COMP_CWORD": "2"},
    )
    assert {line.split(",")[1] for line in result.stdout.split()} == {"rearm", "reject", "revoke"}


def test_every_writing_verb_takes_dry_run(bench: DirectCli) -> None:
    """--dry-run is on every verb that writes and reaches the service; it needs no --yes."""
    reading = {"list", "show", "export", "explain", "preview"}
    nouns = ("account", "request", "device")
    writing = {path: command for path, command in LEAVES if path[0] in nouns and path[1] not in reading}
    assert len(writing) == 15
    for path, command in writing.items():
        assert "--dry-run" in {option for param in command.params for option in param.opts}, path
    bench.run(*CREATE, "gw1")
    bench.run("request", "delete", "gw1", "--dry-run")
    assert bench.sent[-1] == ("request.delete", {"id": "gw1", "dry_run": True})
    assert bench.json("request", "show", "gw1")["state"] == "pending"
