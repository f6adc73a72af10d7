"""Scenarios: what may stand in the file, which devices come out of it, when they arrive, and what goes wrong."""

import asyncio
import errno
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from device_sim import demo
from device_sim.cli import cli
from device_sim.factory import arrival_times_s, make_identities, new_state
from device_sim.faults import Chance, Cut, Faults, FaultSettings, LostAnswer, SkewedClock
from device_sim.fleet import Fleet
from device_sim.memory import Memory
from device_sim.report import percentiles
from device_sim.runner import Slots
from device_sim.scenario import Arrival, Scenario, load, parse
from device_sim.state import DeviceState, Move, Outcome
from device_sim.trust import Trust
from provisioner.model.errors import InvalidInput
from provisioner.model.secret import Secret

LOGIN = {"username": "meters", "password": "Factory-pass-1"}


def scenario(*fleets: dict[str, Any], **settings: Any) -> Scenario:
    return parse({"gate": "mqtts://gate:8883", "fleets": list(fleets), **settings})


def test_a_scenario_file_is_read_whole(tmp_path: Path) -> None:
    """Everything that a scenario can say, from YAML; 5 without quotes is the protocol 5."""
    (tmp_path / "fleet.yaml").write_text(
        """
gate: wss://gate.example/mqtt
tls: {ca: ca.pem}
seed: 4
deadline_s: 60
state_dir: devices
fleets:
  - name: meters
    count: 1000
    client_id: "meter-{n:04d}"
    username: meters
    password_file: secret.txt
    protocol: 5
    arrival: {pattern: burst, over_s: 10}
    timeouts: {reply_s: 3, fall_back_after: 5}
    faults: {lost_answer: {probability: 0.1, how: cut}, skewed_clock: {offset_s: -3600}}
  - {kind: kura, client_id: intruder, username: meters, password: Wrong-pass-1, expect: [login_refused, refused]}
"""
    )
    read = load(tmp_path / "fleet.yaml")
    meters, intruder = read.fleets
    assert (read.name_of(0), read.name_of(1), meters.protocol) == ("meters", "kura-2", "5")
    assert (meters.timeouts.reply_s, meters.timeouts.fall_back_after, meters.timeouts.ack_s) == (3, 5, 5)
    assert meters.faults.lost_answer == LostAnswer(probability=0.1, how="cut")
    assert intruder.expect == (Outcome.LOGIN_REFUSED, Outcome.REFUSED)
    assert "Wrong-pass-1" not in repr(read)


@pytest.mark.parametrize(
    ("fleet", "named"),
    [
        ({"client_id": "m-{n}"}, "username"),
        (LOGIN | {"count": 2, "client_id": "same"}, "{n}"),
        (LOGIN | {"client_id": "{x}"}, "client_id"),
        (LOGIN | {"password_file": "p"}, "password_file"),
        (LOGIN | {"colour": "red"}, "colour"),
        (LOGIN | {"kind": "toaster"}, "kind"),
        (LOGIN | {"protocol": 4}, "protocol"),
        (LOGIN | {"expect": "happiness"}, "expect"),
        (LOGIN | {"gate": "http://gate"}, "gate"),
        (LOGIN | {"timeouts": {"reply_s": 0}}, "reply_s"),
        (LOGIN | {"timeouts": {"patience": 1}}, "patience"),
        (LOGIN | {"faults": {"cut": {"probability": 2}}}, "probability"),
        (LOGIN | {"faults": {"fire": {}}}, "fire"),
        (LOGIN | {"arrival": {"pattern": "late"}}, "pattern"),
    ],
)
def test_a_broken_rule_is_named_and_no_secret_shown(fleet: dict[str, Any], named: str) -> None:
    """The message names the field; the password beside it stays hidden."""
    with pytest.raises(InvalidInput) as refused:
        scenario(fleet)
    assert named in str(refused.value)
    assert "Factory-pass-1" not in str(refused.value)


def test_devices_come_from_a_pattern() -> None:
    """Numbered from `first`, with the common login and metadata."""
    read = scenario(LOGIN | {"count": 3, "first": 8, "client_id": "m-{n:03d}", "metadata": {"model_id": 7}})
    made = make_identities(read, read.fleets[0], Path())
    assert [each.client_id for each in made] == ["m-008", "m-009", "m-010"]
    assert {(each.username, each.password) for each in made} == {("meters", Secret("Factory-pass-1"))}
    assert made[0].metadata == {"model_id": "7"}


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_devices_come_from_a_file(tmp_path: Path, suffix: str) -> None:
    """Own login and key where the row has them, the fleet's otherwise; other columns are metadata."""
    rows = [
        {
            "client_id": "a",
            "username": "own",
            "password": "Own-password-1",
            "activation_key": "k1",
            "serial_number": "1",
        },
        {"client_id": "b", "username": "", "password": "", "activation_key": "", "serial_number": ""},
    ]
    text = json.dumps({"devices": rows})
    if suffix == "csv":
        text = "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)])
    (tmp_path / f"devices.{suffix}").write_text(text)
    (tmp_path / "keys.csv").write_text("client_id,activation_key\nb,k2\n")
    (tmp_path / "password").write_text("Common-password-1\n")
    files = {"devices_file": f"devices.{suffix}", "password_file": "password", "activation_keys_file": "keys.csv"}
    read = scenario({"username": "meters", **files})
    first, second = make_identities(read, read.fleets[0], tmp_path)
    assert (first.username, first.password, first.activation_key) == ("own", Secret("Own-password-1"), Secret("k1"))
    assert (second.username, second.password, second.activation_key) == (
        "meters",
        Secret("Common-password-1"),
        Secret("k2"),
    )
    assert (first.metadata, second.metadata) == ({"serial_number": "1"}, {})


@pytest.mark.parametrize("content", ["client_id\na\na\n", "name\nx\n", "client_id\n\n"])
def test_a_devices_file_that_cannot_be_is_refused(tmp_path: Path, content: str) -> None:
    """Twice the same device, a row without one, or no device at all."""
    (tmp_path / "devices.csv").write_text(content)
    read = scenario({"devices_file": "devices.csv", "username": "meters", "password": "p"})
    with pytest.raises(InvalidInput):
        make_identities(read, read.fleets[0], tmp_path)


@given(
    pattern=st.sampled_from(["at_once", "uniform", "poisson", "burst"]),
    over_s=st.floats(0, 1000),
    bursts=st.integers(1, 20),
    count=st.integers(1, 200),
    seed=st.integers(),
)
def test_arrivals_lie_within_their_time(pattern: Any, over_s: float, bursts: int, count: int, seed: int) -> None:
    """One time per device, ascending, from 0 to over_s, and the same again for the same seed."""
    arrival = Arrival(pattern=pattern, over_s=over_s, bursts=bursts)
    times = arrival_times_s(arrival, count, Random(seed))
    assert (len(times), times) == (count, sorted(times))
    assert min(times) >= 0
    assert max(times) <= over_s
    assert times == arrival_times_s(arrival, count, Random(seed))
    if pattern == "burst":
        assert len(set(times)) <= bursts


def test_faults_strike_by_count_and_by_chance() -> None:
    """count bounds the strikes of a device, probability 0 never strikes, and a seed repeats itself."""
    settings = FaultSettings(lost_answer=LostAnswer(count=2, how="cut"), duplicate=Chance(probability=0.0))
    faults = Faults(settings, Random(1))
    assert [faults.lost_answer() for _ in range(4)] == ["cut", "cut", None, None]
    assert not any(faults.duplicate() for _ in range(50))
    assert faults.injected == {"lost_answer": 2}
    often = FaultSettings(cut=Cut(probability=0.5))
    first, second = (
        [each.cut_at_byte() for _ in range(50)] for each in (Faults(often, Random(3)), Faults(often, Random(3)))
    )
    assert first == second
    assert None in first
    assert any(first)


def test_a_skewed_clock_starts_in_1970_unless_told() -> None:
    """Without an offset the device was just powered on in 1970; with one it is that far off."""
    at_start = Faults(FaultSettings(skewed_clock=SkewedClock()), Random(1))
    behind = Faults(FaultSettings(skewed_clock=SkewedClock(offset_s=-3600.0)), Random(1))
    right = Faults(FaultSettings(), Random(1))
    assert [each.clock_offset_s(50.0, 1e9) + 50.0 for each in (at_start, behind, right)] == [
        0.0,
        1e9 - 3550.0,
        1e9 + 50.0,
    ]


@pytest.mark.parametrize("client_id", ["m-1", "a:b", "ä b", "..", "x" * 255, "a/../b"])
def test_a_device_is_remembered_by_its_client_id(tmp_path: Path, client_id: str) -> None:
    """One file in the fleet's folder, whatever the name, readable by the owner only, without left-overs."""
    memory = Memory(tmp_path / "fleet")
    read = scenario(LOGIN | {"client_id": client_id.replace("{", "{{")})
    (identity,) = make_identities(read, read.fleets[0], Path())
    state = new_state(identity, csr=False).moved(Move.START)
    assert memory.load(client_id) is None
    memory.save(state)
    assert memory.load(client_id) == state
    (file,) = (tmp_path / "fleet").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": 2}', b"\xff"])
def test_a_damaged_memory_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no state is named, never overwritten in silence."""
    (tmp_path / "m-1.json").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"m-1\.json"):
        Memory(tmp_path).load("m-1")


@given(st.lists(st.floats(0, 1000), max_size=300))
def test_percentiles_are_values_that_were_seen(values: list[float]) -> None:
    """Ascending, and the largest one is the maximum."""
    shown = percentiles(values)
    assert list(shown.values()) == sorted(shown.values())
    assert shown == {} if not values else shown["max"] == round(max(values), 3)


@pytest.mark.parametrize("content", ["fleets: []", "gate: [", "just text", "gate: mqtt://x\nfleets: [{client_id: a}]"])
def test_invalid_input_is_exit_status_6(tmp_path: Path, content: str) -> None:
    """An invalid scenario is status 6 with the reason on stderr and nothing on stdout."""
    path = tmp_path / "fleet.yaml"
    path.write_text(content)
    result = CliRunner().invoke(cli, ["run", str(path)])
    assert (result.exit_code, result.stdout) == (6, "")
    assert "device-sim:" in result.stderr


def test_usage_is_exit_status_2() -> None:
    """A missing file, an unknown option and a password on the command line are usage errors."""
    for arguments in (["run", "/nonexistent.yaml"], ["run", "--fast"], ["one", "--password", "x"]):
        assert CliRunner().invoke(cli, arguments).exit_code == 2


@pytest.mark.parametrize("command", [[], ["run"], ["one"]])
def test_every_help_has_two_examples(command: list[str]) -> None:
    """Two examples stand in each help."""
    text = CliRunner().invoke(cli, [*command, "--help"], prog_name="device-sim").stdout
    assert text.partition("Examples:")[2].count("  device-sim ") >= 2


@pytest.mark.parametrize("text", ["deadline_s: 2026-99-99", "gate: [", "[" * 5_000])
def test_a_file_that_is_no_yaml_is_told_as_that(tmp_path: Path, text: str) -> None:
    """What the parser stumbles over is invalid input, whichever way it stumbles."""
    (tmp_path / "fleet.yaml").write_text(text)
    with pytest.raises(InvalidInput, match="must be YAML in UTF-8"):
        load(tmp_path / "fleet.yaml")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_authority_that_is_none_is_told_by_its_name(tmp_path: Path, content: str | None) -> None:
    """The setting, the file and the rule; a bare "no such file" says nothing to whoever runs a scenario of many."""
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(InvalidInput, match=r"tls\.ca: must name a PEM file of authorities, .*ca\.pem is none"):
        Trust(tmp_path / "ca.pem")


def test_turns_pass_by_whoever_was_switched_off() -> None:
    """F-31: thousands that wait when the time is up, in whatever order: the turn goes to the next who wants it."""
    slots, took, off = Slots(1), list[int](), set[int]()

    def comer(number: int) -> Callable[[], bool]:
        def go() -> bool:
            took.extend({number} - off)
            return number not in off

        return go

    for number in range(5_000):
        slots.take(comer(number))
    off |= set(range(1, 4_999))
    slots.give()
    assert took == [0, 4_999]
    off.add(5_000)
    slots.give()
    slots.take(comer(5_000))
    slots.take(comer(5_001))
    assert took == [0, 4_999, 5_001]


def test_the_demo_deletes_what_a_demo_made_and_nothing_else(tmp_path: Path) -> None:
    """Its folder is emptied before each run; that of somebody who named the wrong one stays as it is."""
    precious = tmp_path / "plant" / "fleetgate.yaml"
    precious.parent.mkdir()
    precious.write_text("precious")
    with pytest.raises(SystemExit, match="was not made by the demo"):
        demo.clear(precious.parent)
    assert precious.read_text() == "precious"
    own = tmp_path / "demo-run"
    for _ in range(2):
        demo.clear(own)
        assert [path.name for path in own.iterdir()] == [demo.MARK]
        (own / "serve.log").touch()


def test_a_device_that_cannot_remember_ends_the_run_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is told as that, before the device does what it could not remember; it waited for the deadline."""

    def full(memory: Memory, state: DeviceState) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "device-1.json")

    monkeypatch.setattr(Memory, "save", full)
    plan = scenario({"client_id": "device-{n}", **LOGIN}, state_dir="devices", deadline_s=60)
    heard = list[str]()
    fleet = Fleet(plan, tmp_path, lambda client_id, log: heard.append(log.event))
    with pytest.raises(OSError, match="No space left on device"):
        asyncio.run(asyncio.wait_for(fleet.run(), 20))
    assert heard == []
