"""The command line: what each verb takes, sends and prints."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rules.direct_cli import DirectCli, direct_cli

CREATE = ("request", "create", "--account", "acme", "--username", "lobby", "--client-id")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DirectCli]:
    with direct_cli(tmp_path, monkeypatch) as made:
        yield made


def test_ec06_ec29_create_takes_every_field(bench: DirectCli) -> None:
    """EC-06 to EC-29: every field of a request has its option."""
    bench.run(
        *(
            *CREATE,
            "gw1",
            "--activation-key",
            "--endpoint",
            "mqtts://b.example:8883",
            "--reserve-user",
            "--coupling",
            "loose",
        ),
        *("--activates-on", "2030-01-01T00:00:00+01:00", "--expires-on", "2031-01-01T00:00:00Z", "--max-attempts", "3"),
        *("--configuration", bench.write("c.json", '{"pid": {"interval": 5}}'), "--require-approval"),
        *("--packages", bench.write("p.yaml", "- {name: heater, version: 1.2.0, url: https://x.example/heater.dp}")),
    )
    shown = bench.json("request", "show", "gw1")
    assert {
        name: shown[name] for name in ("activation_key", "endpoint", "reserve_user", "coupling", "max_attempts")
    } == {
        "activation_key": True,
        "endpoint": "mqtts://b.example:8883",
        "reserve_user": True,
        "coupling": "LOOSE",
        "max_attempts": 3,
    }
    assert (shown["activates_on"], shown["expires_on"]) == ("2029-12-31T23:00:00+00:00", "2031-01-01T00:00:00+00:00")
    assert shown["configuration"] == {"pid": {"interval": 5}}
    assert [package["name"] for package in shown["packages"]] == ["heater"]
    assert shown["approval"] == "awaiting"


@pytest.mark.parametrize("time", ["2030-01-01", "2030-01-01T00:00:00", "2030-13-01T00:00:00Z", "2030-06-30T23:59:60Z"])
def test_f33_time_without_offset_is_refused(bench: DirectCli, time: str) -> None:
    """F-33: only RFC 3339 with an offset is a time."""
    assert "RFC 3339" in bench.run(*CREATE, "gw1", "--expires-on", time, status=6).stderr
    bench.run(*CREATE, "gw1")
    assert "RFC 3339" in bench.run("request", "explain", "gw1", "--at", time, status=6).stderr


def test_update_sends_named_fields_only(bench: DirectCli) -> None:
    """What is not named is not sent; --unset takes a field away; a flag can be turned off."""
    bench.run(*CREATE, "gw1", "--expires-on", "2099-01-01T00:00:00Z", "--reserve-user", "--max-attempts", "4")
    bench.run("request", "update", "gw1", "--no-reserve-user", "--unset", "expires_on")
    assert bench.sent[-1][1]["fields"] == {"reserve_user": False, "expires_on": None}
    shown = bench.json("request", "show", "gw1")
    assert (shown["reserve_user"], shown["expires_on"], shown["max_attempts"]) == (False, None, 4)
    bench.run("account", "update", "acme", "--coupling", "loose")
    assert bench.json("account", "show", "acme")["coupling"] == "LOOSE"


def test_explain_prints_each_check_and_which_one_refuses(bench: DirectCli) -> None:
    """EC-20: the table has a line for each check; the message says why and what the device is told."""
    bench.run(*CREATE, "gw1", "--activates-on", "2090-01-01T00:00:00Z")
    result = bench.run("request", "explain", "gw1", "-o", "table")
    refusing = [line for line in result.stdout.splitlines() if line.split()[:1] == ["no"]]
    assert len(refusing) == 1
    assert "window has opened" in refusing[0]
    assert "it would be refused (not_yet_active; told not_yet_active, retry after" in result.stderr
    assert "it would be granted" in bench.run("request", "explain", "gw1", "--at", "2090-01-01T00:00:00Z").stderr


def test_ec29_preview_warns_of_what_is_overridden(bench: DirectCli) -> None:
    """EC-29: the preview shows what would be delivered, and a warning for what was tried in vain."""
    pid = "org.eclipse.kura.core.data.transport.mqtt.MqttDataTransport"
    bench.run(*CREATE, "gw1", "--configuration", bench.write("c.json", json.dumps({pid: {"broker-url": "evil"}})))
    result = bench.run("request", "preview", "gw1")
    assert f"warning: configuration: {pid}/broker-url is overridden" in result.stderr
    assert json.loads(result.stdout)["configuration"][pid]["broker-url"] == "mqtts://broker.example:8883"


def test_account_broker_is_taken_from_the_settings_when_there_is_one(bench: DirectCli) -> None:
    """With several account brokers, --broker is asked for by their names."""
    assert bench.json("account", "create", "globex")["broker"] == "local"
    bench.write("fleetgate.yaml", "account_brokers: [{name: one}, {name: two}]\n")
    assert "one, two" in bench.run("account", "create", "hooli", status=2).stderr


def test_audit_list_shows_the_last_rows_that_match(bench: DirectCli) -> None:
    """The newest rows, oldest of them first; with --after from there on; filters look at the whole log."""
    for number in range(4):
        bench.run(*CREATE, f"gw{number}", "--activation-key")

    def seqs(*arguments: str) -> list[int]:
        return [row["seq"] for row in bench.json("audit", "list", *arguments)]

    assert seqs("--limit", "2") == [4, 5]
    assert bench.sent[-1][1]["after"] == 3, "a long log is not read from its beginning"
    assert seqs("--after", "1", "--limit", "2") == [2, 3]
    assert seqs("--action", "account") == [1]
    assert seqs("--client-id", "gw1") == [3]
    assert seqs("--action", "request", "--limit", "1") == [5]


def test_watch_shows_what_happened_behind_a_row_and_leaves(bench: DirectCli) -> None:
    """--after and --count make a watch that ends; at a pipe each event is a line of JSON."""
    bench.run(*CREATE, "gw1")
    events = [json.loads(line) for line in bench.run("watch", "--after", "0", "--count", "2").stdout.splitlines()]
    assert [event["action"] for event in events] == ["account.create", "request.create"]
    text = bench.run("watch", "--after", "0", "--count", "2", "-o", "table").stdout
    assert "request.create outcome=ok account=acme client_id=gw1" in text
    assert bench.run("watch", "--for", "0.5").stdout == ""
