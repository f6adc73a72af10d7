"""The command line: many requests from a file, their secrets, and back into a file."""

import csv
import errno
import json
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.doors import cli_desk, cli_import, cli_output, control_client, control_verbs
from provisioner.doors.control_client import Unreachable
from provisioner.model.request import ProvisionRequest
from tests.rules.direct_cli import DirectCli, DirectClient, direct_cli

HEADER = "account,client_id,username\n"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DirectCli]:
    with direct_cli(tmp_path, monkeypatch) as made:
        yield made


def count(bench: DirectCli) -> int:
    return bench.wait(bench.desk.platform.store.count(ProvisionRequest))


def fleet(bench: DirectCli, rows: int) -> str:
    return bench.write("fleet.csv", HEADER + "".join(f"acme,gw{n},user{n}\n" for n in range(rows)))


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "yaml"])
def test_ec41_each_form_of_file_makes_the_same_requests(bench: DirectCli, ending: str) -> None:
    """EC-41: CSV, JSON, JSON lines and YAML with a template give the same fleet."""
    rows: list[dict[str, Any]] = [{"client_id": f"gw{n}", "max_attempts": n} for n in range(1, 4)]
    text = {
        "csv": "client_id,max_attempts\n" + "".join(f"{row['client_id']},{row['max_attempts']}\n" for row in rows),
        "json": json.dumps(rows),
        "jsonl": "\n".join(map(json.dumps, rows)),
        "yaml": yaml.safe_dump(rows),
    }[ending]
    template = bench.write(
        "t.yaml", "{account: acme, username: shared, activation_key: true, configuration: {p: {a: 1}}}"
    )
    told = bench.json("request", "import", bench.write(f"fleet.{ending}", text), "--template", template)
    assert [row["client_id"] for row in told] == ["gw1", "gw2", "gw3"]
    assert all(row["activation_key"] for row in told)
    shown = bench.json("request", "show", "gw2")
    assert (shown["username"], shown["max_attempts"], shown["configuration"]) == ("shared", 2, {"p": {"a": 1}})


def test_stdin_needs_its_format(bench: DirectCli) -> None:
    """``-`` reads stdin, and --format says what it is."""
    assert "--format" in bench.run("request", "import", "-", status=2, stdin=HEADER).stderr
    told = bench.run("request", "import", "-", "--format", "csv", stdin=f"{HEADER}acme,gw1,user1\n")
    assert json.loads(told.stdout)[0]["client_id"] == "gw1"


def test_results_file_takes_the_secrets_and_stdout_none(bench: DirectCli) -> None:
    """The file is 0600, has a line for each request that was made, and its secrets are nowhere else."""
    results = bench.folder / "secrets.csv"
    result = bench.run("request", "import", fleet(bench, 3), "--results", str(results))
    assert stat.S_IMODE(results.stat().st_mode) == 0o600
    with results.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["client_id"] for row in rows] == ["gw0", "gw1", "gw2"]
    assert all(row["password"].startswith("Fg-") for row in rows)
    assert not any(row["password"] in result.output for row in rows)
    assert "3 made, 0 failed" in result.stderr


def test_results_file_of_json_lines(bench: DirectCli) -> None:
    """By its ending the file has JSON lines instead."""
    results = bench.folder / "secrets.jsonl"
    bench.run("request", "import", fleet(bench, 2), "--results", str(results))
    assert [json.loads(line)["line"] for line in results.read_text().splitlines()] == [2, 3]


def test_results_file_is_never_overwritten(bench: DirectCli) -> None:
    """Status 5 before anything is made: the secrets of another import may be in it."""
    results = bench.write("secrets.csv", "precious")
    bench.run("request", "import", fleet(bench, 1), "--results", results, status=5)
    assert Path(results).read_text() == "precious"
    bench.run("request", "import", fleet(bench, 1), "--results", str(bench.folder / "no/such"), status=6)
    assert count(bench) == 0


def test_dry_run_makes_nothing_and_finds_collisions_within_the_file(
    bench: DirectCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that would collide with earlier rows are found over the borders of what is sent at once."""
    monkeypatch.setattr(control_client, "CHUNK_ROWS_MAX", 2)
    text = HEADER + "acme,gw1,user1\nacme,gw2,user2\nacme,gw3,user3\nacme,gw1,user4\n"
    results = bench.folder / "secrets.csv"
    file = bench.write("fleet.csv", text)
    result = bench.run("request", "import", file, "--dry-run", "--results", str(results), status=7)
    assert "line 5: an earlier row has this client_id" in result.stderr
    assert "3 would be made, 1 failed" in result.stderr
    assert "Fg-" not in result.output
    assert not results.exists()
    assert count(bench) == 0


def test_file_is_sent_in_parts_that_fit_a_packet(bench: DirectCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file goes in several questions, none larger than the service takes; no row is lost or sent twice."""
    monkeypatch.setattr(control_client, "CHUNK_BYTES_MAX", 2_000)
    bench.run("request", "import", fleet(bench, 90))
    sent = [params["rows"] for verb, params in bench.sent if verb == "request.import"]
    assert len(sent) > 3
    assert [line for part in sent for line, _ in part] == list(range(2, 92))
    assert count(bench) == 90


def test_rows_that_the_service_did_not_get_to_are_sent_again(bench: DirectCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that answers for a part of what it was sent gets the rest again, from where it stopped."""
    monkeypatch.setattr(control_verbs, "IMPORT_SLICE", 1)
    monkeypatch.setattr(control_verbs, "IMPORT_S_MAX", -1.0)  # it stops after each row
    told = bench.json("request", "import", fleet(bench, 4))
    assert [row["line"] for row in told] == [2, 3, 4, 5]
    sent = [params["rows"] for verb, params in bench.sent if verb == "request.import"]
    assert [[line for line, _ in rows] for rows in sent] == [[2, 3, 4, 5], [3, 4, 5], [4, 5], [5]]
    assert count(bench) == 4


def test_broken_connection_keeps_what_was_made(bench: DirectCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 8 when the service goes away in the middle; what it made before is printed with its secrets."""
    monkeypatch.setattr(control_client, "CHUNK_ROWS_MAX", 2)
    ask, asked = DirectClient.ask, []

    def failing(self: DirectClient, verb: str, **given: Any) -> Any:
        asked.append(verb)
        if len(asked) > 2:
            raise Unreachable("desk:0 ended the connection before it answered")
        return ask(self, verb, **given)

    monkeypatch.setattr(DirectClient, "ask", failing)
    results = bench.folder / "secrets.csv"
    result = bench.run("request", "import", fleet(bench, 6), "--results", str(results), status=8)
    assert len(json.loads(result.stdout)) == 4
    assert len(results.read_text().splitlines()) == 5
    assert "4 made, 0 failed, 2 not tried" in result.stderr


def test_empty_file_is_usage_and_a_broken_one_invalid(bench: DirectCli) -> None:
    """A file without rows is most likely the wrong one; a broken one is told by its line."""
    assert "no rows" in bench.run("request", "import", bench.write("f.csv", HEADER), status=2).stderr
    assert "line 2" in bench.run("request", "import", bench.write("f.json", "[\n7]"), status=6).stderr
    assert bench.sent == []


def test_row_larger_than_a_packet_is_told(bench: DirectCli) -> None:
    """A row that no packet can carry is reported by its line; the rows around it are made."""
    rows: list[dict[str, Any]] = [{"account": "acme", "client_id": f"gw{n}", "username": f"user{n}"} for n in range(3)]
    rows[1]["configuration"] = {"p": {"a": "x" * 61_000}}
    file = bench.write("f.jsonl", "\n".join(map(json.dumps, rows)))
    result = bench.run("request", "import", file, status=7)
    assert "line 2: the service takes rows of at most 58,976 bytes" in result.stderr
    assert "2 made, 1 failed" in result.stderr


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "yaml"])
def test_export_is_what_import_takes(bench: DirectCli, form: str) -> None:
    """Requests that were exported, deleted and imported are the same again, but for their secrets."""
    create = ("request", "create", "--account", "acme", "--username")
    bench.run(*create, "-dash", "--client-id", "@gw", "--activation-key", "--expires-on", "2099-01-01T00:00:00Z")
    configuration = bench.write("c.json", '{"p": {"a": [1, "=x"]}}')
    bench.run(*create, "other", "--client-id", "=gw", "--configuration", configuration, "--require-approval")
    exported = bench.run("request", "export", "-o", form).stdout
    before = bench.json("request", "export")
    for client_id in ("@gw", "=gw"):
        bench.run("request", "delete", client_id, "--yes")
    bench.run("request", "import", bench.write(f"fleet.{form}", exported))
    assert sorted(bench.json("request", "export"), key=by_client_id) == sorted(before, key=by_client_id)
    assert "password" not in exported


def by_client_id(row: dict[str, Any]) -> str:
    return str(row["client_id"])


def test_f48_export_is_safe_to_open_in_a_spreadsheet(bench: DirectCli) -> None:
    """F-48: a client id that reads as a formula is exported as text."""
    bench.run("request", "create", "--account", "acme", "--username", "lobby", "--client-id", "=cmd|' C'!A0")
    assert "acme,'=cmd|' C'!A0," in bench.run("request", "export", "-o", "csv").stdout


def test_no_results_are_begun_where_no_service_is(bench: DirectCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of results that were never asked for would be in the way of the second try, which overwrites nothing."""

    def unreachable(config: Path) -> DirectClient:
        raise Unreachable("no service at desk")

    file, results = fleet(bench, 2), bench.folder / "results.csv"
    with monkeypatch.context() as away:
        away.setattr(cli_desk, "connect", unreachable)
        bench.run("request", "import", file, "--results", str(results), status=8)
    assert not results.exists()
    bench.run("request", "import", file, "--results", str(results))
    assert len(results.read_text().splitlines()) == 3


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_secrets_are_kept_before_anything_is_printed(
    bench: DirectCli, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Whoever pages through what is printed and closes it has the secrets of every request that was made."""

    def closed(views: Iterable[Any]) -> None:
        next(iter(views))
        raise BrokenPipeError(errno.EPIPE, "closed")

    monkeypatch.setattr(cli_output, "_list", closed)
    results = bench.folder / f"results.{ending}"
    bench.run("request", "import", fleet(bench, 5), "--results", str(results), status=1)
    kept = results.read_text()
    assert count(bench) == 5
    assert [f"user{n}" in kept for n in range(5)] == [True] * 5


def test_a_full_disk_is_told_with_what_it_costs(bench: DirectCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets that could not be kept are named by their row: their requests have to be made again."""
    write = cli_output.csv_line

    def full(cells: Iterable[str]) -> str:
        if "gw1" in (kept := list(cells)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(kept)

    monkeypatch.setattr(cli_import, "csv_line", full)
    results = str(bench.folder / "results.csv")
    told = bench.run("request", "import", fleet(bench, 3), "--results", results, status=1).stderr
    assert "results.csv cannot be written: No space left on device" in told
    assert "the secrets of gw1 (line 3) and of what was made behind it are lost" in told
