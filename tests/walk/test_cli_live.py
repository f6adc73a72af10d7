"""The command line against a service that runs: every example of every help, terminals, TLS, refusals, large files."""

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from provisioner.doors.cli import cli
from provisioner.doors.cli_frame import Command
from provisioner.doors.control_client import TIMEOUT_S
from tests.support.installation import CLI, ROOT, Installation
from tests.support.mosquitto import MosquittoServer, mosquitto_settings
from tests.support.ports import free_ports

DEADLINE_S = 20.0
CREATE = ("request", "create", "--account", "acme", "--username")


def leaves(command: click.Command, *path: str) -> Iterator[tuple[str, Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from leaves(below, *path, name)
    else:
        assert isinstance(command, Command)
        yield " ".join(path), command


# These need a service that is not running; test_backup.py types the examples of the last two.
WITHOUT_SERVICE = ("serve", "restore", "store migrate")
EXAMPLES = [example for path, command in leaves(cli) if path not in WITHOUT_SERVICE for example in command.examples]


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A service with what the examples speak of: accounts, requests, devices, files."""
    made = Installation(tmp_path_factory.mktemp("plant"))
    with made.running():
        for name in ("acme", "hooli"):
            made.account(name)
        for number in (15, 16):
            made.provision(made.request(f"press-{number}", username=f"press{number}"))
        made.provision(made.request("press-17", username="press"))
        made.ask("device.disable", id="press-16")
        for number in (20, 21, 22):
            made.request(f"press-{number}")
        made.request("press-23", require_approval=True)
        (made.folder / "password.txt").write_text("Factory-Pass-word\n")
        (made.folder / "fleet.csv").write_text("account,client_id,username\nacme,fleet1,fleet1\nacme,fleet2,fleet2\n")
        (made.folder / "template.yaml").write_text("{activation_key: true, expires_on: 2099-01-01T00:00:00Z}\n")
        yield made


@pytest.fixture(scope="module")
def mosquitto_plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A service with the brokers that the examples of ``fleetgate broker`` speak of; the mosquitto runs."""
    south = mosquitto_settings("mosquitto-files", "south")
    (asked,) = free_ports(1)
    cluster = {"name": "cluster", "kind": "http-callback", "product": "rabbitmq", "callback_port": asked}
    made = Installation(tmp_path_factory.mktemp("mosquitto-plant"), account_brokers=[south, cluster])
    with MosquittoServer(south, made.folder), made.running():
        yield made


@pytest.fixture
def there(plant: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """In the installation's folder."""
    return stand_in(plant, monkeypatch)


def stand_in(plant: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.chdir(plant.folder)
    for name in ("FLEETGATE_CONFIG", "FLEETGATE_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    return plant


def run(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(cli, arguments, prog_name="fleetgate")
    assert result.exit_code == status, (arguments, result.output, result.exception)
    return result


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_of_a_help_works(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, example: str) -> None:
    """EC-42: what a help shows can be typed as it stands, and everything can be done without a person looking on."""
    words = shlex.split(example)
    where = "mosquitto_plant" if words[1] == "broker" else "plant"
    stand_in(request.getfixturevalue(where), monkeypatch)
    target = words[words.index(">") + 1] if ">" in words else None
    result = run(*(words[1:] if target is None else words[1 : words.index(">")]))
    if target is not None:
        assert len(result.stdout) > 100, "there is something to redirect"


def test_examples_of_serve_run_until_sigterm(tmp_path: Path) -> None:
    """Each way to call serve says ready once the doors are open, and ends with status 0 on SIGTERM."""
    Installation(tmp_path)
    Installation(tmp_path / "plant-1")
    (serve,) = (command for path, command in leaves(cli) if path == "serve")
    for example in serve.examples:
        words = shlex.split(example)
        with subprocess.Popen(
            [*CLI, *words[1:]],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as process:
            assert process.stderr is not None
            try:
                assert "ready\n" in iter(process.stderr.readline, ""), example
                process.send_signal(signal.SIGTERM)
                assert process.wait(DEADLINE_S) == 0
            finally:
                process.kill()


def test_ec31_account_user_is_shown_with_exactly_connect(there: Installation) -> None:
    """EC-31: the user that press-17 left with may broker:connect, and nothing else."""
    user = json.loads(run("device", "show", "press-17").stdout)["user"]
    shown = json.loads(run("user", "show", user, "--account", "acme").stdout)
    assert shown["permissions"] == ["broker:connect"]


def test_exit_3_when_the_credential_is_not_the_services(there: Installation, tmp_path: Path) -> None:
    """A credential of another installation is refused at the login: status 3, and nothing of it is told."""
    assert CliRunner().invoke(cli, ["init", str(tmp_path / "other")]).exit_code == 0
    config = tmp_path / "other" / "fleetgate.yaml"
    config.write_text(config.read_text().replace("port: 8885", f"port: {there.admin_port}"))
    result = run("status", "-c", str(config), status=3)
    assert "refused the login" in result.stderr
    assert "admin-credential.json beside the settings must be the one" in result.stderr
    assert json.loads((tmp_path / "other/admin-credential.json").read_text())["credential"] not in result.output


def test_exit_8_when_something_else_listens_there(there: Installation, tmp_path: Path) -> None:
    """A port where no MQTT is spoken to plain clients is unreachable, within the time-out and without a traceback."""
    text = there.config.read_text().replace(f"port: {there.admin_port}", f"port: {there.secure.port}")
    (tmp_path / "fleetgate.yaml").write_text(text)
    (tmp_path / "admin-credential.json").write_text((there.folder / "admin-credential.json").read_text())
    (tmp_path / "admin-credential.json").chmod(0o600)
    assert f"127.0.0.1:{there.secure.port}" in run("status", "-c", str(tmp_path / "fleetgate.yaml"), status=8).stderr


def test_admin_listener_with_tls(tmp_path: Path) -> None:
    """With admin.tls the client wants a certificate of the installation's own authority, and no other."""
    made = Installation(tmp_path / "a", admin={"tls": True})
    stranger = Installation(tmp_path / "b")
    process = subprocess.Popen([*CLI, "serve", "-c", str(made.config)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "ready\n" in iter(process.stderr.readline, "")
        assert json.loads(run("status", "-c", str(made.config)).stdout)["accounts"] == 0
        (made.folder / "ca/ca.pem").write_text((stranger.folder / "ca/ca.pem").read_text())
        assert "certificate verify failed" in run("status", "-c", str(made.config), status=8).stderr.lower()
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


def test_ec41_thousand_rows_in_one_call(there: Installation) -> None:
    """EC-41: a template and a file of 1,000 rows are 1,000 requests, listed again page by page."""
    rows = "".join(f"bulk{n},bulk{n}\n" for n in range(1_000))
    (there.folder / "bulk.csv").write_text(f"client_id,username\n{rows}")
    (there.folder / "bulk.yaml").write_text("{account: hooli2}\n")
    run("account", "create", "hooli2")
    results = there.folder / "bulk-secrets.csv"
    result = run("request", "import", "bulk.csv", "--template", "bulk.yaml", "--results", str(results), "-q")
    assert len(set(result.stdout.split())) == 1_000
    assert len(results.read_text().splitlines()) == 1_001
    assert len(run("request", "list", "--account", "hooli2", "-q").stdout.split()) == 1_000


def test_listing_larger_than_any_packet(there: Installation) -> None:
    """Requests with large configurations are exported whole, in answers that each pass the connection."""
    text = "x" * 30_000
    rows = [
        {"account": "acme", "client_id": f"big{n}", "username": f"big{n}", "configuration": {"p": {"text": text}}}
        for n in range(24)
    ]
    (there.folder / "big.json").write_text(json.dumps(rows))
    run("request", "import", "big.json")
    exported = json.loads(run("request", "export", "--account", "acme").stdout)
    big = [row for row in exported if row["client_id"].startswith("big")]
    assert len(big) == 24
    assert all(row["configuration"]["p"]["text"] == text for row in big)


def test_watch_shows_an_event_when_it_happens(there: Installation) -> None:
    """watch tells of what happens after its start, within seconds, and leaves after --count."""
    with subprocess.Popen(
        [*CLI, "watch", "--count", "1", "-c", str(there.config)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        until_s = time.monotonic() + DEADLINE_S
        number = 0
        while process.poll() is None:
            assert time.monotonic() < until_s, "no event was shown"
            there.ask("request.update", id="press-20", fields={"max_attempts": number % 9 + 1})
            number += 1
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["action"] == "request.update"


def test_watch_ends_when_the_service_does(tmp_path: Path) -> None:
    """Status 8 when the service goes away under a watch."""
    made = Installation(tmp_path)
    with made.running():
        made.account()
        watching = [*CLI, "watch", "--after", "0", "-c", str(made.config)]
        with subprocess.Popen(watching, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["action"] == "account.create"
            made.kill()
            assert process.wait(DEADLINE_S) == 8
            assert process.stderr is not None
            assert "ended the connection" in process.stderr.read()


class Terminal:
    """A command at a pseudo-terminal of 200 columns. seen: everything that it showed."""

    def __init__(self, *arguments: str, folder: Path, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self.seen = ""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FLEETGATE")}
        self._process = subprocess.Popen(
            [*CLI, *arguments],
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**clean, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "TERM": "xterm-256color", **environment},
        )
        os.close(slave)

    def await_text(self, text: str) -> None:
        until_s = time.monotonic() + DEADLINE_S
        while text not in self.seen:
            assert self._read(until_s - time.monotonic()), f"{text!r} was not shown: {self.seen!r}"

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Its exit status, once everything was read."""
        until_s = time.monotonic() + DEADLINE_S
        while self._read(until_s - time.monotonic()):
            pass
        status = self._process.wait(DEADLINE_S)
        os.close(self._master)
        return status

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._master], [], [], max(0.0, timeout_s))[0]:
            return False
        try:
            data = os.read(self._master, 65_536)
        except OSError:
            return False  # the other end is closed
        self.seen += data.decode()
        return bool(data)


def at_terminal(folder: Path, *arguments: str, **environment: str) -> str:
    terminal = Terminal(*arguments, folder=folder, **environment)
    assert terminal.end() == 0, terminal.seen
    return terminal.seen


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}], ids=["color", "no-color"])
def test_table_at_a_terminal(there: Installation, environment: dict[str, str]) -> None:
    """At a terminal a listing is a table without being asked for, and has no escape sequence in it."""
    seen = at_terminal(there.folder, "request", "list", "--client-id", "press-17", **environment)
    row = next(line for line in seen.splitlines() if "press-17" in line)
    assert {"acme", "press-17", "press", "confirmed"} <= set(row.split())
    assert "client id" in seen
    assert "\x1b" not in seen


def test_destructive_verb_asks_at_a_terminal(there: Installation) -> None:
    """The question names the record; no leaves it as it is with status 1, yes does it."""
    run(*CREATE, "ask-1", "--client-id", "ask-1")
    for answer, status, left in (("n", 1, "pending"), ("y", 0, "revoked")):
        terminal = Terminal("request", "revoke", "ask-1", folder=there.folder)
        terminal.await_text("revoke request ask-1?")
        terminal.type(f"{answer}\n")
        assert terminal.end() == status
        assert there.state("ask-1") == left


def test_import_shows_a_bar_at_a_terminal(there: Installation) -> None:
    """Long work shows how far it is."""
    (there.folder / "bar.csv").write_text(
        "account,client_id,username\n" + "".join(f"acme,bar{n},bar{n}\n" for n in range(40))
    )
    seen = at_terminal(there.folder, "request", "import", "bar.csv", "-q")
    assert re.search(r"rows\s+\[#+\]\s+100%", seen), seen


def test_f39_no_secret_in_the_log_of_the_service(there: Installation) -> None:
    """F-39: neither the administrator's credential nor what commands brought or generated is in the DEBUG log."""
    made = json.loads(
        run(*CREATE, "quiet", "--client-id", "quiet1", "--activation-key", "--password-file", "password.txt").stdout
    )
    generated = json.loads(run(*CREATE, "quiet2", "--client-id", "quiet2", "--activation-key").stdout)
    credential = json.loads((there.folder / "admin-credential.json").read_text())["credential"]
    secrets: Sequence[str] = (
        credential,
        "Factory-Pass-word",
        *made["secrets"].values(),
        *generated["secrets"].values(),
    )
    log = there.log.read_text()
    assert len(secrets) == 5
    assert [secret for secret in secrets if secret in log] == []


def test_service_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    """A closed port is not waited for, as one would be that says nothing."""
    (port,) = free_ports(1)
    assert CliRunner().invoke(cli, ["init", str(tmp_path), "--admin-port", str(port)]).exit_code == 0
    started_s = time.monotonic()
    run("status", "-c", str(tmp_path / "fleetgate.yaml"), status=8)
    assert time.monotonic() - started_s < TIMEOUT_S / 2
