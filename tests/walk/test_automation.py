"""The whole process by programs alone: over the MQTT interface for administrators, and by scripted commands."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from broker.packets import V5
from tests.support.device import Address, Credentials, Wire
from tests.support.fleet import gate_url
from tests.support.installation import ROOT, Installation

DEVICE = (sys.executable, "-c", "from device_sim.cli import main; main()")


class Program:
    """A program that knows MQTT, JSON and the credential of an administrator, and nothing else of the product."""

    def __init__(self, site: Installation) -> None:
        credential = json.loads((site.folder / "admin-credential.json").read_text())
        self._wire = Wire(Address(site.admin_port), V5)
        assert self._wire.connect("erp-1", credential["name"], credential["credential"]) == 0
        assert self._wire.subscribe("ctl/v1/erp-1/response") == (1,)
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._wire.leave()

    def call(self, verb: str, **params: Any) -> Any:
        """The result of one verb."""
        answer = self._exchange(verb, params)
        assert answer["ok"], answer
        return answer["result"]

    def fails(self, verb: str, **params: Any) -> str:
        """The kind of the refusal."""
        answer = self._exchange(verb, params)
        assert not answer["ok"], answer
        return str(answer["error"]["kind"])

    def _exchange(self, verb: str, params: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        envelope = {"id": f"call-{self._count}", "verb": verb, "params": params}
        self._wire.publish("ctl/v1/erp-1/request", json.dumps(envelope).encode())
        message = self._wire.message()
        assert message is not None
        answer: dict[str, Any] = json.loads(message.payload)
        assert answer["id"] == envelope["id"]
        return answer


def test_ec_42_a_program_does_everything_over_mqtt(make_installation: Callable[..., Installation]) -> None:
    """From an empty service to a device in its account, and back to nothing: envelopes of JSON, no other interface."""
    site = make_installation()
    with site.running(), Program(site) as program:
        program.call("account.create", fields={"name": "acme", "broker": "embedded"})
        fields = {"account": "acme", "client_id": "dev1", "username": "press"}
        made = program.call("request.create", fields={**fields, "activation_key": True, "require_approval": True})
        program.call("request.update", id="dev1", fields={"max_attempts": 9})
        credentials = Credentials(client_id="dev1", username="press", **made["secrets"])
        with site.device(credentials) as device:
            assert device.ask()["status"] == "waiting"
            program.call("request.approve", id="dev1")
            answer = device.ask()
            device.acknowledge()
        with site.account_wire(answer) as home:
            site.await_state("dev1", "confirmed")
            assert program.call("device.show", id="dev1")["state"] == "connected"
            program.call("device.disable", id="dev1")
            assert home.is_cut()
        program.call("device.enable", id="dev1")
        with site.account_wire(answer) as home:
            assert program.call("device.kick", id="dev1")["cut"] is True
            assert home.is_cut()
        assert program.call("user.show", account="acme", username=answer["username"])["client_id"] == "dev1"
        assert program.fails("account.delete", id="acme") == "conflict"
        _watches_over(program, made["id"])


def _watches_over(program: Program, request: str) -> None:
    """Look at everything there is, then end the request."""
    assert program.call("request.show", id="dev1")["id"] == request
    assert [item["id"] for item in program.call("request.page", state="confirmed")["items"]] == [request]
    assert program.call("status")["requests"]["confirmed"] == 1
    assert program.call("selftest")["ok"] is True
    assert program.call("fsck")["findings"] == []
    actions = [row["action"] for row in program.call("audit.page", client_id="dev1")["items"]]
    assert actions[0] == "request.create" and "provision.confirmed" in actions
    program.call("request.rearm", id="dev1")
    assert program.call("request.explain", id="dev1")["granted"] is True
    program.call("request.reject", id="dev1")
    assert program.call("request.explain", id="dev1")["refusal"]["reason"] == "rejected"
    program.call("request.revoke", id="dev1")
    program.call("request.delete", id="dev1")
    assert program.fails("request.show", id="dev1") == "not_found"


def test_ec_42_a_script_does_everything_by_commands(
    make_installation: Callable[..., Installation], tmp_path: Path
) -> None:
    """Commands without a terminal, glued by exit status and JSON: account, file of requests, device, proof, end."""
    site = make_installation()
    with site.running():
        site.cli("account", "create", "acme", "--broker", "embedded")
        rows = "account,client_id,username,activation_key\nacme,dev1,press,true\n"
        (made,) = json.loads(site.cli("request", "import", "-", "--format", "csv", stdin=rows).stdout)
        assert json.loads(site.cli("request", "explain", "dev1").stdout)["granted"] is True
        _run_device(site, made, tmp_path)
        site.await_state("dev1", "confirmed")
        assert site.cli("request", "list", "--state", "confirmed", "-q").stdout.split() == [made["id"]]
        assert json.loads(site.cli("device", "show", "dev1").stdout)["account"] == "acme"
        events = site.cli("watch", "--after", "0", "--count", "4", "-o", "jsonl").stdout.splitlines()
        assert [json.loads(event)["action"] for event in events[:2]] == ["account.create", "request.create"]
        site.cli("selftest")
        site.cli("fsck")
        # Without a terminal nobody is asked: what destroys needs the word for it.
        site.cli("request", "revoke", "dev1", status=2)
        site.cli("request", "revoke", "dev1", "--yes")
        site.cli("request", "show", "dev2", status=4)
    assert site.process is not None and site.process.returncode == 0
    site.cli("status", status=8)


def _run_device(site: Installation, made: dict[str, Any], folder: Path) -> None:
    """The simulated device as a program of its own; its secrets come in files."""
    for name in ("password", "activation_key"):
        (folder / name).write_text(made[name])
    given = (
        "--gate", gate_url(site, "mqtts"), "--ca", str(site.ca), "--client-id", made["client_id"],
        "--username", made["username"], "--password-file", str(folder / "password"),
        "--activation-key-file", str(folder / "activation_key"),
    )  # fmt: skip
    done = subprocess.run([*DEVICE, "one", *given], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
