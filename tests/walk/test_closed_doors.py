"""Listeners that cannot be opened: the start ends with the name of the listener, its address and the reason."""

import socket
from pathlib import Path

import pytest
import yaml

from tests.support.installation import Installation, ServiceDied
from tests.support.ports import free_ports


def _start_fails(site: Installation, told: str) -> None:
    with pytest.raises(ServiceDied) as caught:
        site.start()
    assert f"error: {told}" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("which", "host", "reason"),
    [
        ("gate", "127.0.0.1", "Address already in use"),
        ("gate", "192.0.2.1", "Cannot assign requested address"),
        ("gate", "nowhere.invalid", "Name or service not known"),
        ("gate", "a..b", "no host has such a name"),
        ("admin", "nowhere.invalid", "Name or service not known"),
        ("endpoint", "127.0.0.1", "Address already in use"),
        ("endpoint", "a..b", "no host has such a name"),
    ],
)
def test_a_listener_that_cannot_be_opened_is_told_by_name(tmp_path: Path, which: str, host: str, reason: str) -> None:
    """Which one of them it is, the address that it was to have, and why not."""
    (callback,) = free_ports(1)
    site = Installation(tmp_path / "site")
    values = yaml.safe_load(site.config.read_text())
    asking = {"name": "rabbit", "kind": "http-callback", "product": "rabbitmq", "callback_port": callback}
    asking |= {"callback_host": host if which == "endpoint" else "127.0.0.1", "callback_tls": True}
    values["account_brokers"].append(asking)
    port = {"gate": site.secure.port, "admin": site.admin_port, "endpoint": callback}[which]
    values["gate"]["listeners"][1]["host"] = host if which == "gate" else "127.0.0.1"
    values["admin"] |= {"host": host if which == "admin" else "127.0.0.1", "tls": True}
    site.config.write_text(yaml.safe_dump(values))
    told = {
        "gate": f"listener secure cannot be opened on {host}:{port}: {reason}",
        "admin": f"listener admin cannot be opened on {host}:{port}: {reason}",
        "endpoint": f"account broker rabbit cannot listen on {host}:{port}: {reason}",
    }[which]
    with socket.create_server(("127.0.0.1", port)):
        _start_fails(site, told)


def test_the_broker_of_the_evaluation_mode_that_cannot_listen_is_told_by_name(tmp_path: Path) -> None:
    """Its port is taken by another program."""
    site = Installation(tmp_path / "site")
    port = site.account_brokers["embedded"].port
    with socket.create_server(("127.0.0.1", port)):
        _start_fails(site, f"account broker embedded cannot listen on 127.0.0.1:{port}: Address already in use")
