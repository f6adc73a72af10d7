"""F-39: recognisable secrets go through a whole run at DEBUG, refusals and failures included, and are looked for."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from broker.packets import V5, V311
from tests.support.canary import ProcessWatch, Search, forms
from tests.support.device import Credentials, JsonDevice, Wire
from tests.support.fleet import fleet_of, gate_url, run_fleet
from tests.support.gateway import EsfGateway
from tests.support.installation import ROOT, Installation

CHOSEN = "Canary-Chosen-Pa55word-4711"
WRONG = "Canary-Wrong-Pa55word-4712"
WRONG_KEY = "CANARY-WRONGK-EYWRON-GKEY47-134713"
MISPLACED = "Canary-Misplaced-Pa55word-4714"
MEANT_FOR_SECRETS = frozenset(("admin-credential.json", "keys/ring.json", "ca/ca.key", "tls/server.key"))
JSON_COMMANDS = (
    ("status",),
    ("selftest",),
    ("fsck",),
    ("account", "list"),
    ("account", "show", "acme"),
    ("request", "list"),
    ("request", "export"),
    ("request", "show", "canary"),
    ("request", "explain", "canary"),
    ("request", "preview", "canary"),
    ("request", "show", "granted"),
    ("request", "preview", "granted"),
    ("device", "list"),
    ("device", "show", "canary"),
    ("user", "list", "--account", "acme"),
    ("audit", "list"),
    ("config", "show"),
)


@pytest.fixture
def installation(make_installation: Callable[..., Installation]) -> Iterator[Installation]:
    made = make_installation(log_level="DEBUG")
    with made.running(PYTHONASYNCIODEBUG="1", PYTHONFAULTHANDLER="1"):
        made.account(certificates="server-key")
        made.account("plain")
        yield made


def create_by_command_line(installation: Installation, folder: Path, search: Search) -> Credentials:
    """As people do it: the password in a file, the key shown once."""
    password_file = folder / "password.txt"
    password_file.write_text(CHOSEN + "\n")
    names = ("--account", "acme", "--client-id", "canary", "--username", "canary-user")
    options = ("--password-file", str(password_file), "--activation-key", "-o", "json")
    shown = json.loads(installation.cli("request", "create", *names, *options).stdout)
    search.plant("chosen password", CHOSEN)
    search.plant("activation key", shown["secrets"]["activation_key"])
    return Credentials(
        client_id="canary", username="canary-user", password=CHOSEN, activation_key=shown["secrets"]["activation_key"]
    )


def be_refused(installation: Installation, own: Credentials) -> None:
    """Every kind of refusal that has a secret in what it refuses."""
    for version in (V311, V5):
        with Wire(installation.plain, version) as wire:
            assert wire.connect(own.client_id, own.username, WRONG) not in (0, -1)
        with Wire(installation.plain, version) as wire:
            assert wire.connect("another", own.username, own.password) not in (0, -1)
        with Wire(installation.secure, version) as wire:
            assert wire.connect(own.client_id, "nobody", own.password) not in (0, -1)
    with installation.device(own) as device:
        assert device.ask("m-1", activation_key=WRONG_KEY)["status"] == "refused"
        cut = device.payload("m-2")[:-3]
        twice = device.payload("m-3")[:-1] + b',"activation_key":"' + (own.activation_key or "").encode() + b'"}'
        for payload in (cut, twice, device.payload("m-4", device=own.password), device.payload(own.password * 4)):
            assert json.loads(device.ask_raw(payload))["status"] == "malformed"
        device.wire.publish(f"prov/v1/{own.client_id}/other", device.payload("m-5"))
        device.wire.publish(f"{device.base}/ack", device.payload("m-6"))
    with EsfGateway(installation.plain, own) as gateway:
        assert gateway.ask(gateway.question("a/b")).text("prov.status") == "malformed"
        assert gateway.ask(gateway.question()[:-1]).text("prov.status") == "malformed"


def misplace(installation: Installation, folder: Path) -> str:
    """Secrets where they do not belong: what administrators' commands say of them. Nothing of it is stored."""
    said = ""
    names = ("--account", "acme", "--client-id", "misplaced", "--username", "u")
    said += installation.cli("request", "create", *names, "--password", status=2).stderr
    (folder / "two-lines.txt").write_text(f"{MISPLACED}\n{MISPLACED}\n")
    two_lines = ("--password-file", str(folder / "two-lines.txt"))
    said += installation.cli("request", "create", *names, *two_lines, status=2).stderr
    (folder / "rows.csv").write_text(f"account,client_id,username,password\nacme,bad#id,u,{MISPLACED}\nacme,x,u,weak\n")
    said += _both(installation.cli("request", "import", str(folder / "rows.csv"), status=7))
    (folder / "rows.json").write_text(f'[{{"account": "acme", "password": "{MISPLACED}", "password": "{MISPLACED}"}}]')
    said += _both(installation.cli("request", "import", str(folder / "rows.json"), status=6))
    broken = folder / "fleetgate.yaml"
    broken.write_text(f"log_level: {MISPLACED}\ngate: {{listeners: {MISPLACED}}}\npassword: {MISPLACED}\n")
    return said + _both(run_command("config", "check", "-c", str(broken)))


def run_command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "provisioner.doors.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def _both(done: "subprocess.CompletedProcess[str]") -> str:
    return done.stdout + done.stderr


def fail_inside(installation: Installation, own: Credentials, search: Search) -> None:
    """The disk refuses every write while a device is granted and an administrator creates: both are told so."""
    assert installation.process is not None
    process = psutil.Process(installation.process.pid)
    journal = max(path.stat().st_size for path in (installation.folder / "data").iterdir())
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (min(journal, 64), before[1]))
    try:
        with installation.device(own) as device:
            answer = device.ask("m-9")
        assert answer["status"] == "busy", answer["status"]
        made = run_command(
            *("request", "create", "--account", "plain", "--client-id", "full", "--username", "full-user"),
            *("--password-file", str(installation.folder.parent / "password.txt"), "-c", str(installation.config)),
        )
        assert made.returncode == 8, made.stderr
        assert not search.in_text("the command line at a full disk", _both(made))
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, before)


def walk(installation: Installation, own: Credentials, search: Search) -> None:
    answer = installation.provision(own)
    search.plant("account password", answer["password"])
    search.plant("private key", "".join(answer["private_key"].split("-----")[2].split()))
    for line in answer["private_key"].splitlines()[1:-1]:
        search.plant(f"private key, {line[:2]}", line)
    with Wire(installation.account_brokers["embedded"]) as wire:
        assert wire.connect("canary", answer["username"], answer["password"][:-1] + "x") != 0
    granted = installation.request("granted", activation_key=True)
    with JsonDevice(installation.plain, granted) as device:
        held = device.ask()
    search.plant("generated password", granted.password)
    search.plant("granted key", granted.activation_key or "")
    search.plant("granted account password", held["password"])


def test_f_39_no_secret_is_found_anywhere(installation: Installation, tmp_path: Path) -> None:
    """F-39: logs at DEBUG, audit, store, process list, messages and `-o json`, after refusals and a failing disk."""
    search = Search()
    credential = json.loads((installation.folder / "admin-credential.json").read_text())["credential"]
    search.plant("administrator's credential", credential)
    search.plant("key of the ring", json.loads((installation.folder / "keys/ring.json").read_text())[0]["key"])
    for name, secret in (("wrong password", WRONG), ("wrong key", WRONG_KEY), ("misplaced", MISPLACED)):
        search.plant(name, secret)
    found = []
    with ProcessWatch().watching() as processes:
        own = create_by_command_line(installation, installation.folder.parent, search)
        be_refused(installation, own)
        fail_inside(installation, own, search)
        found += search.in_text("messages of the command line", misplace(installation, tmp_path))
        walk(installation, own, search)
        for command in JSON_COMMANDS:
            found += search.in_text(" ".join(command), _both(installation.cli(*command, "-o", "json")))
        installation.kill()
        installation.start()
    found += search.in_text("process list", b"\n".join(processes.seen))
    found += search.in_text("audit", json.dumps(installation.audit()))
    found += search.in_text("log", installation.log.read_bytes())
    found += search.in_files(installation.folder, but=MEANT_FOR_SECRETS)
    installation.stop()
    found += search.in_files(installation.folder, but=MEANT_FOR_SECRETS)
    assert not found
    assert search.looked_at > 50_000
    log = installation.log.read_text()
    assert " DEBUG " in log
    assert "Traceback" not in log
    assert any(b"provisioner.doors.cli" in line for line in processes.seen), "the process list was not looked at"


def test_f_39_the_simulated_device_is_as_discreet(installation: Installation, tmp_path: Path) -> None:
    """F-39: neither the events of a fleet nor `device-sim one` shows the password, the key or what was answered."""
    search, said = Search(), []
    own = installation.request("simulated", password=CHOSEN, activation_key=True)
    search.plant("chosen password", CHOSEN)
    search.plant("activation key", own.activation_key or "")
    for kind in ("json", "esf"):
        installation.ask("request.rearm", id="simulated")
        _, fleet = run_fleet(
            installation,
            fleet_of(own, kind=kind),
            observe=lambda who, log: said.append(f"{who} {log}"),
        )
        settings = fleet.runners[0][0].device.state.settings
        assert settings is not None
        search.plant(f"account password {kind}", settings.password.reveal())
    installation.ask("request.rearm", id="simulated")
    for name, secret in (("password", CHOSEN), ("key", own.activation_key or "")):
        (tmp_path / name).write_text(secret)
    options = {
        "--gate": gate_url(installation),
        "--ca": str(installation.ca),
        "--client-id": own.client_id,
        "--username": own.username,
        "--password-file": str(tmp_path / "password"),
        "--activation-key-file": str(tmp_path / "key"),
    }
    command = [
        sys.executable,
        "-c",
        "from device_sim.cli import cli; cli()",
        "one",
        *(word for pair in options.items() for word in pair),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "CONNECTED" in done.stderr
    assert not search.in_text("events", "\n".join(said)) + search.in_text("device-sim", _both(done))


def test_f_39_the_service_leaves_no_core_file(make_installation: Callable[..., Installation]) -> None:
    """F-39: started where core files are allowed, the process whose memory holds the keys still leaves none."""
    installation, (soft, hard) = make_installation(), resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        with installation.running():
            assert installation.process is not None
            assert psutil.Process(installation.process.pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """A secret is found in every form, at every alignment, and in no text without it."""
    search = Search()
    search.plant("canary", CHOSEN)
    for form in forms(CHOSEN):
        (tmp_path / "file").write_bytes(os.urandom(64) + form + os.urandom(64))
        assert search.in_files(tmp_path, but=frozenset()) == ["canary in file"]
        assert search.in_files(tmp_path, but=frozenset(("file",))) == []
    assert search.in_text("elsewhere", CHOSEN[:-2] + CHOSEN[2:]) == []
