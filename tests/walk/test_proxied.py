"""Gates behind a load balancer: the PROXY header in front of every kind of listener, with a real HAProxy (D12)."""

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.limits import GateLimits
from broker.listener import Listener
from broker.session_settings import SessionSettings
from broker.tls import TlsFiles
from provisioner.config import Settings
from tests.support.device import Address, Wire
from tests.support.haproxy import PROGRAM, Haproxy, passing
from tests.support.installation import Installation
from tests.support.many_gates import haproxy_example
from tests.support.ports import free_ports
from tests.walk.gate_house import House, Peer, dial, running_gate, trusting, until, write_certificate

V1 = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 8883\r\n"
LOOPBACK = ("127.0.0.1/32",)
CONNECT_S = 5.0
CONNECT_S_SHORT = 0.6  # for who is too slow


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return write_certificate(tmp_path)


@pytest.fixture
def house(request: pytest.FixtureRequest, files: TlsFiles) -> Iterator[House]:
    """Every kind of listener, each for proxies of this host; ``far`` is for others.

    Parameter: the time for a CONNECT."""
    listeners = (
        Listener(name="plain", proxies=LOOPBACK),
        Listener(name="tls", tls=files, proxies=LOOPBACK),
        Listener(name="ws", websocket=True, proxies=LOOPBACK),
        Listener(name="wss", tls=files, websocket=True, proxies=LOOPBACK),
        Listener(name="far", proxies=("192.0.2.0/24",)),
    )
    session = SessionSettings(connect_deadline_s=getattr(request, "param", CONNECT_S))
    with running_gate(GateLimits(session=session), listeners) as running:
        yield running


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("listener", ["plain", "tls", "ws", "wss"])
def test_d12_the_device_behind_haproxy_is_known_by_its_address(
    house: House, files: TlsFiles, tmp_path: Path, listener: str, option: str
) -> None:
    """Both versions, plain, TLS and WebSocket: the application sees where the device comes from, the proxy's health
    checks disturb nobody and are no incident."""
    (front,) = free_ports(1)
    behind = [(house.gate.ports[listener], f"{option} check inter 50")]
    ca = files.certificate if "tls" in listener or listener == "wss" else None
    with Haproxy(tmp_path, passing({front: behind}), [front]):
        for client_id, source in (("gw7", "127.0.0.7"), ("gw8", "127.0.0.8")):
            with Wire(Address(front, ca, source=source, websocket=listener.startswith("ws"))) as wire:
                assert wire.connect(client_id, "fleet", "right-password") == 0
            assert house.application.logins[-1].address == source
    assert house.application.incidents == []


def test_f_38_incidents_tell_the_devices_address(house: House, files: TlsFiles) -> None:
    """What a device does wrong is told of its own address: a wrong login, broken MQTT, broken TLS right behind the
    header in one segment."""
    wrong = dial(house.gate.ports["plain"])
    wrong.sendall(V1 + b"\xff\xff\xff\xff\xff\xff")
    broken = dial(house.gate.ports["tls"])
    broken.sendall(V1 + b"this is no handshake at all")
    for each in (wrong, broken):
        while each.recv(1_000):
            pass
    until(lambda: len(house.application.incidents) == 2, "both are told")
    assert {one.address for one in house.application.incidents} == {"203.0.113.9"}


@pytest.mark.parametrize("listener", ["plain", "tls", "ws"])
@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"\x10\x10\x00\x04MQTT", "proxy_header_missing"),
        (b"\x16\x03\x01\x00\xa5", "proxy_header_missing"),
        (b"PROXY TCP4 nobody 192.0.2.1 1 2\r\n", "proxy_header_malformed"),
        (b"PROXY TCP4 " + b"1" * 200, "proxy_header_too_long"),
    ],
    ids=["mqtt", "tls", "malformed", "endless"],
)
def test_f_38_without_a_right_header_nothing_is_said(house: House, listener: str, sent: bytes, why: str) -> None:
    """A missing, malformed or endless header is cut without one byte of an answer, and told with its reason."""
    peer = dial(house.gate.ports[listener])
    peer.sendall(sent)
    assert peer.recv(1_000) == b""
    until(lambda: house.application.reasons("packet.violation") == [why], "the reason is told")
    assert house.application.incidents[0].address == "127.0.0.1"


def test_f_38_who_is_no_proxy_cannot_name_an_address(house: House) -> None:
    """A right header from a network that is not named is cut, and told of where it really came from."""
    stranger = dial(house.gate.ports["far"])
    stranger.sendall(V1)
    assert stranger.recv(1_000) == b""
    until(lambda: house.application.reasons("packet.violation") == ["proxy_untrusted"], "it is told")
    assert house.application.incidents[0].address == "127.0.0.1"


@pytest.mark.parametrize("house", [CONNECT_S_SHORT], indirect=True)
@pytest.mark.parametrize("listener", ["plain", "tls"])
@pytest.mark.parametrize("sent", [b"", V1[:-1]], ids=["silent", "slow"])
def test_f_34_a_slow_header_obeys_the_deadline_of_the_connect(house: House, listener: str, sent: bytes) -> None:
    """Whoever does not finish its header in the time of a CONNECT is cut, and told as one that sent none."""
    peer = dial(house.gate.ports[listener])
    peer.sendall(sent)
    assert peer.recv(1_000) == b""
    until(lambda: house.application.reasons("connect.timeout") == ["no_connect"], "it is told")


def test_d12_a_header_in_pieces_is_put_together(house: House, files: TlsFiles) -> None:
    """The header may come byte by byte, and the TLS handshake follows behind it."""
    raw = dial(house.gate.ports["tls"])
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in V1:
        raw.sendall(bytes((byte,)))
    peer = Peer.__new__(Peer)
    peer.socket = trusting(files).wrap_socket(raw, server_hostname="127.0.0.1")
    with peer.socket as secured:
        assert isinstance(secured, ssl.SSLSocket)
        assert secured.version() is not None


def test_f_19_behind_haproxy_limits_and_audit_count_devices_not_the_proxy(
    make_installation: Callable[..., Installation], tmp_path: Path
) -> None:
    """EC-37: a guesser behind the balancer is locked out by its own address while a device behind the same balancer
    provisions; the audit names both; the self-test still looks at the listener."""
    front, gate = free_ports(2)
    listener = {"name": "gate", "host": "127.0.0.1", "port": gate, "tls": True}
    listener |= {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]}
    limits = {"username_failures_burst": 3, "username_failures_per_s": 0.01}
    site = make_installation(gate={"listeners": [listener], "limits": limits})
    with site.running(), Haproxy(tmp_path, passing({front: [(gate, "send-proxy-v2 check inter 100")]}), [front]):
        site.account()
        credentials = site.request("dev1")
        guesser = Address(front, site.ca, source="127.0.0.66")
        for _ in range(5):
            with Wire(guesser) as wire:
                assert wire.connect("dev1", credentials.username, "Wrong-password-1") != 0
        site.plain = Address(front, site.ca, source="127.0.0.7")
        site.provision(credentials)
        throttled = site.await_audit("connect.refused", reason="username_throttled")
        assert {row["address"] for row in throttled} == {"127.0.0.66"}
        assert {row["address"] for row in site.audit("provision.granted")} == {"127.0.0.7"}
        result = site.ask("selftest", patience_s=60)
        assert "gate gate" in {each["target"] for each in result["isolation"]}
        assert [check for check in result["checks"] if not check["passed"]] == [], site.audit("packet.violation")


@pytest.mark.parametrize(
    "listener",
    [
        {"port": 1, "proxy_protocol": True},
        {"port": 1, "trusted_proxies": ["10.0.0.0/24"]},
        {"port": 1, "proxy_protocol": True, "trusted_proxies": ["10.0.0.1/24"]},
    ],
)
def test_d12_settings_of_a_proxied_listener_are_whole(listener: dict[str, object]) -> None:
    """Proxies without networks, networks without proxies and networks that are none are refused by name."""
    with pytest.raises(ValueError, match="trusted_proxies"):
        Settings.model_validate({"gate": {"listeners": [listener]}})


def test_d12_the_whole_example_is_a_configuration(files: TlsFiles, tmp_path: Path) -> None:
    """HAProxy takes what docs/many-gates.md shows as it stands there, with TLS in front of what account brokers ask."""
    both = tmp_path / "questions.pem"
    both.write_bytes(files.certificate.read_bytes() + files.private_key.read_bytes())
    text = haproxy_example().replace("/etc/haproxy/questions.pem", str(both))
    configuration = tmp_path / "whole.cfg"
    configuration.write_text(text.replace("/etc/haproxy/ca.pem", str(files.certificate)))
    judged = subprocess.run([PROGRAM, "-c", "-f", str(configuration)], capture_output=True, text=True, timeout=20)
    assert (judged.returncode, "WARNING" in judged.stderr) == (0, False), judged.stderr
