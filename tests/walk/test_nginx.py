"""A gate behind a real nginx, with the configuration that docs/many-gates.md shows (D12)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.device import Address, Wire
from tests.support.installation import Installation
from tests.support.many_gates import nginx_example
from tests.support.nginx import Nginx
from tests.support.ports import free_ports

FAILURES = 3  # of one username and address, before it is throttled
DEVICES = 4  # more than the page has gates, so that each of these has its turn
FreshId = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Site:
    """An installation that runs, with three listeners for proxies; ``far`` takes them from elsewhere alone."""

    folder: Path
    installation: Installation
    secure: int
    plain: int
    far: int

    def behind_nginx(self, gate: int, front: int, *, alone: bool = True, leave_out: str = "") -> Nginx:
        """As the page sets it up, with these ports. alone: nobody listens where the page has its other gates."""
        others = free_ports(1)[0] if alone else gate
        text = nginx_example().replace("10.0.0.10:8883", f"127.0.0.1:{front}")
        for host, port in (("10.0.0.11", others), ("10.0.0.12", others), ("10.0.0.13", gate)):
            assert f"{host}:8883" in text
            text = text.replace(f"{host}:8883", f"127.0.0.1:{port}")
        assert leave_out in text
        return Nginx(self.folder, text.replace(leave_out, "") if leave_out else text, name=f"nginx-{front}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    secure, plain, far = free_ports(3)
    common: dict[str, Any] = {"host": "127.0.0.1", "proxy_protocol": True}
    listeners = [
        {"name": "secure", "port": secure, "tls": True, "trusted_proxies": ["127.0.0.1"], **common},
        {"name": "plain", "port": plain, "tls": False, "trusted_proxies": ["127.0.0.1"], **common},
        {"name": "far", "port": far, "tls": False, "trusted_proxies": ["192.0.2.0/24"], **common},
    ]
    limits = {"username_failures_burst": FAILURES, "username_failures_per_s": 0.01}
    gate = {"listeners": listeners, "limits": limits}
    made = Installation(folder / "installation", store="sqlite", gate=gate)
    with made.running():
        made.account()
        yield Site(folder, made, secure, plain, far)


def test_f_19_behind_nginx_limits_and_audit_count_devices_not_the_proxy(site: Site, fresh_id: FreshId) -> None:
    """A guesser is locked out by its own address while a device provisions through the same nginx, by TLS; the audit
    names both by the addresses that they come from."""
    (front,) = free_ports(1)
    name = fresh_id()
    credentials = site.installation.request(name)
    with site.behind_nginx(site.secure, front, alone=False):
        for _ in range(FAILURES + 2):
            with Wire(Address(front, site.installation.ca, source="127.0.0.66")) as wire:
                assert wire.connect(name, credentials.username, "Wrong-password-1") != 0
        site.installation.plain = Address(front, site.installation.ca, source="127.0.0.7")
        site.installation.provision(credentials)
        throttled = site.installation.await_audit("connect.refused", reason="username_throttled")
    assert {row["address"] for row in throttled} == {"127.0.0.66"}
    assert [row["address"] for row in site.installation.audit("provision.granted", client_id=name)] == ["127.0.0.7"]


def test_d12_behind_nginx_gates_that_are_away_are_not_noticed(site: Site, fresh_id: FreshId) -> None:
    """Two of three gates are not there: every device gets to the third, and is known there by its own address."""
    (front,) = free_ports(1)
    with site.behind_nginx(site.plain, front) as nginx:
        for number in range(DEVICES):
            site.installation.plain = Address(front, source=f"127.0.0.{20 + number}")
            credentials = site.installation.request(fresh_id())
            site.installation.provision(credentials)
            (granted,) = site.installation.audit("provision.granted", client_id=credentials.client_id)
            assert granted["address"] == f"127.0.0.{20 + number}"
    assert "connect() failed" in nginx.log.read_text()  # the others had their turn


@pytest.mark.parametrize(
    ("listener", "leave_out", "why"),
    [("far", "", "proxy_untrusted"), ("plain", "proxy_protocol on;", "proxy_header_missing")],
    ids=["untrusted", "nameless"],
)
def test_f_38_an_nginx_that_may_not_speak_for_others_or_does_not_is_cut(
    site: Site, fresh_id: FreshId, listener: str, leave_out: str, why: str
) -> None:
    """Where the listener names other networks, or ``proxy_protocol on`` was forgotten, a device with the right login
    gets no answer at all, and the audit tells the reason and the address of nginx."""
    (front,) = free_ports(1)
    credentials = site.installation.request(fresh_id())
    source = "127.0.0.8"
    with (
        site.behind_nginx(getattr(site, listener), front, alone=False, leave_out=leave_out),
        Wire(Address(front, source=source)) as wire,
    ):
        assert wire.connect(credentials.client_id, credentials.username, credentials.password) == -1
        rows = site.installation.await_audit("packet.violation", reason=why)
    assert {row["address"] for row in rows} == {"127.0.0.1"}
    assert site.installation.audit(address=source) == []
