"""Where devices connect: MQTTS on 8883 unless told otherwise, plain MQTT and WebSocket only where they are set."""

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from provisioner.config import GateSettings
from tests.support.device import Address, Wire
from tests.support.fleet import fleet_of, run_fleet
from tests.support.installation import Installation, run_cli
from tests.support.ports import free_ports

FreshId = Callable[[], str]


def test_ec_37_a_new_installation_listens_with_tls_on_8883(tmp_path: Path) -> None:
    """`init` sets one listener, 8883 with TLS, and no plain one; so do the settings without a file."""
    run_cli("init", str(tmp_path / "site"))
    settings = yaml.safe_load((tmp_path / "site/fleetgate.yaml").read_text())
    assert [(each["port"], each["tls"]) for each in settings["gate"]["listeners"]] == [(8883, True)]
    assert [(each.port, each.tls) for each in GateSettings().listeners] == [(8883, True)]


class AsMade(Installation):
    """As ``init`` wrote it but for the ports, so that several can run on one machine."""

    def __init__(self, folder: Path) -> None:
        gate, broker, admin, self.metrics_port = free_ports(4)
        ports = {"gate": gate, "broker": broker, "admin": admin, "metrics": self.metrics_port}
        run_cli("init", str(folder), *(word for name, port in ports.items() for word in (f"--{name}-port", str(port))))
        self.folder, self.log, self.process, self.admin_port = folder, folder / "serve.log", None, admin
        self.secure = Address(gate, self.ca)
        self.account_brokers = {"embedded": Address(broker, self.ca)}

    def listening(self) -> set[int]:
        assert self.process is not None
        found = psutil.Process(self.process.pid).net_connections("tcp")
        return {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}


@pytest.fixture
def as_made(tmp_path: Path) -> Iterator[AsMade]:
    site = AsMade(tmp_path / "site")
    with site.running():
        site.account()
        yield site


def test_ec_37_plain_is_off_by_default(as_made: AsMade) -> None:
    """The service opens its four ports and no other; at the gate plain MQTT gets nowhere, MQTTS does."""
    site = as_made
    accounts = site.account_brokers["embedded"].port
    assert site.listening() == {site.secure.port, accounts, site.admin_port, site.metrics_port}
    credentials = site.request("dev1")
    with Wire(Address(site.secure.port)) as wire:
        assert wire.connect("dev1", credentials.username, credentials.password) == -1
    with Wire(site.secure) as wire:
        assert wire.connect("dev1", credentials.username, credentials.password) == 0


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws"])
def test_ec_37_all_listeners_serve_where_they_are_set(
    shared_installation: Installation, fresh_id: FreshId, scheme: str
) -> None:
    """Plain, TLS and WebSocket are up at once on the ports of the settings, and a device walks through each."""
    site = shared_installation
    ports = {"plain": site.plain.port, "secure": site.secure.port, "ws": site.websocket_port}
    assert site.ask("status")["gate_ports"] == ports
    credentials = site.request(fresh_id())
    report, _ = run_fleet(site, fleet_of(credentials), scheme=scheme)
    assert report.is_met, report
    site.await_state(credentials.client_id, "confirmed")


def test_ec_37_websocket_over_tls(make_installation: Callable[..., Installation]) -> None:
    """A WebSocket listener with TLS takes devices behind a web proxy, by wss."""
    (port,) = free_ports(1)
    listeners = [{"name": "wss", "kind": "websocket", "host": "127.0.0.1", "port": port, "tls": True}]
    site = make_installation(gate={"listeners": listeners})
    with site.running():
        site.account()
        report, _ = run_fleet(site, fleet_of(site.request()), gate=f"wss://localhost:{port}")
        assert report.is_met, report
        site.await_state("dev1", "confirmed")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_ec_37_tls_is_modern_and_for_the_right_name(shared_installation: Installation, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3 are spoken; who trusts another authority, or asks for another name, breaks off."""
    site = shared_installation
    trusting = ssl.create_default_context(cafile=site.ca)
    trusting.minimum_version = trusting.maximum_version = version
    assert _handshake(site, trusting, "localhost") in ("TLSv1.2", "TLSv1.3")
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(site, trusting, "gate.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(site, ssl.create_default_context(), "localhost")


def _handshake(site: Installation, context: ssl.SSLContext, name: str) -> str | None:
    address = (site.secure.host, site.secure.port)
    with socket.create_connection(address, 5) as raw, context.wrap_socket(raw, server_hostname=name) as secured:
        return secured.version()
