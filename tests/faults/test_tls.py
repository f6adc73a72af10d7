"""F-45 at every server that devices meet, the gate and each mosquitto as it is rendered: old versions, weak ciphers,
and certificates that are nobody's to use. What is believed of a server is in test_tls_clients.py."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from provisioner.authority.local_ca import LocalAuthority
from tests.support.device import Address, Wire
from tests.support.hello import GOOD_SUITE, TLS_1_0, TLS_1_1, TLS_1_2, Agreed, offer
from tests.support.installation import Installation
from tests.support.mosquitto import MosquittoServer, mosquitto_settings
from tests.support.mosquitto_gate import MosquittoGate
from tests.support.papers import CLIENT, DAY, SERVER, Paper
from tests.support.ports import free_ports

FreshId = Callable[[], str]
KINDS = {"files": "mosquitto-files", "dynsec": "mosquitto-dynsec", "papers": "certificate"}
SERVERS = ("gate", "embedded", *KINDS, "instead")  # instead: the mosquitto in the place of the gate
# Numbers of the IANA registry; those for ECDSA fit the certificate, so that nothing but their weakness speaks against.
WEAK = {
    "RC4": (0xC007, 0xC011, 0x0005, 0x0004),
    "3DES": (0xC008, 0xC012, 0x000A),
    "DES and export": (0x0009, 0x0003, 0x0008, 0x0014),
    "no encryption": (0xC006, 0xC010, 0x0001, 0x0002, 0x003B),
    "nobody authenticated": (0xC018, 0xC016, 0x0034, 0x006C, 0x00A6),
}
# With nothing weak about them but the version that is asked for.
OF_THEIR_TIME = (0xC009, 0xC00A, 0xC013, 0xC014, 0x002F, 0x0035)


@dataclass(frozen=True)
class Site:
    """installation: running, an account on ``papers``. servers: the TLS listeners, by name."""

    installation: Installation
    servers: dict[str, Address]
    authority: Paper

    @property
    def papers(self) -> Address:
        return self.servers["papers"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("tls") / "installation"
    settings = {name: mosquitto_settings(kind, name, tls=True) for name, kind in KINDS.items()}
    settings["embedded"] = {"name": "embedded", "kind": "embedded", "port": free_ports(1)[0]}
    installation = Installation(folder, brokers=(), account_brokers=list(settings.values()))
    for name in KINDS:
        installation.cli("broker", "render", "mosquitto", "--broker", name, "--write")
    instead = MosquittoGate(tmp_path_factory.mktemp("instead") / "installation")
    instead.installation()
    servers = {name: Address(each["port"], installation.ca) for name, each in settings.items()}
    servers |= {"gate": installation.secure, "instead": instead.secure}
    with ExitStack() as stack:
        for name in KINDS:
            stack.enter_context(MosquittoServer(settings[name], folder))
        stack.enter_context(instead)
        stack.enter_context(installation.running())
        installation.account("acme", "papers", certificates="server-key")
        with installation.device(installation.request("gw1")) as device:  # else its certificates are a stranger's
            assert device.ask()["status"] == "provisioned"
        yield Site(installation, servers, Paper.read(installation.ca, folder / "ca/ca.key"))


@pytest.mark.parametrize("server", SERVERS)
def test_f_45_versions_before_1_2_are_not_spoken(site: Site, server: str) -> None:
    """F-45: who knows nothing newer than TLS 1.0 or 1.1 is refused; the same offer in TLS 1.2 is taken."""
    address = site.servers[server]
    for version in (TLS_1_0, TLS_1_1):
        assert offer(address, version, (*OF_THEIR_TIME, GOOD_SUITE)) is None, version
    assert offer(address, TLS_1_2, (GOOD_SUITE,)) == Agreed(TLS_1_2, GOOD_SUITE)


@pytest.mark.parametrize("server", SERVERS)
def test_f_45_weak_ciphers_are_not_spoken(site: Site, server: str) -> None:
    """F-45: RC4, 3DES and worse are refused, one by one and together, whatever else would fit."""
    address = site.servers[server]
    for name, suites in WEAK.items():
        for suite in suites:
            assert offer(address, TLS_1_2, (suite,)) is None, f"{name}: {suite:#06x}"
    everything = [suite for suites in WEAK.values() for suite in suites]
    assert offer(address, TLS_1_2, (*everything, GOOD_SUITE)) == Agreed(TLS_1_2, GOOD_SUITE)


def lets_in(site: Site, paper: Path | None, client_id: str = "gw1") -> bool:
    """Whether a device with this certificate, and nothing else, is let in and may speak."""
    try:
        wire = Wire(replace(site.papers, certificate=paper))
    except OSError:
        return False
    with wire:
        try:
            return wire.connect(client_id, None, None) == 0 and wire.subscribe("acme/gw1/#") == (1,)
        except OSError:
            return False


def test_f_45_a_device_certificate_of_ours_opens(site: Site, tmp_path: Path) -> None:
    """The measure of the tests below: the same name, signed by our authority for a client, within its life."""
    assert lets_in(site, site.authority.issue("acme/gw1", usage=CLIENT).write(tmp_path / "good.pem"))


@pytest.mark.parametrize(
    "fault",
    ["none", "another CA", "our CA's name", "self-signed", "expired", "not yet valid", "for servers", "by a device"],
)
def test_f_45_no_other_certificate_opens(site: Site, tmp_path: Path, fault: str) -> None:
    """F-45: what another authority signed, or one that calls itself ours; what is out of date, or for another purpose;
    what a device signed with its own certificate."""
    ours = site.authority
    name = str(next(iter(ours.certificate.subject)).value)
    forger = Paper.authority(name)
    papers: dict[str, Callable[[], Paper | None]] = {
        "none": lambda: None,
        "another CA": lambda: Paper.authority("Somebody").issue("acme/gw1", usage=CLIENT),
        "our CA's name": lambda: forger.issue("acme/gw1", usage=CLIENT),
        "self-signed": lambda: ours.issue("acme/gw1", usage=CLIENT).self_signed(),
        "expired": lambda: ours.issue("acme/gw1", usage=CLIENT, life=(-2 * DAY, -timedelta(minutes=1))),
        "not yet valid": lambda: ours.issue("acme/gw1", usage=CLIENT, life=(timedelta(hours=1), DAY)),
        "for servers": lambda: ours.issue("acme/gw1", hosts=("localhost",)),
        "by a device": lambda: ours.issue("acme/gw2", usage=CLIENT).issue("acme/gw1", usage=CLIENT),
    }
    paper = papers[fault]()
    assert not lets_in(site, paper and paper.write(tmp_path / "bad.pem"))


def test_f_45_a_revoked_serial_is_refused(site: Site, fresh_id: FreshId, tmp_path: Path) -> None:
    """F-45: the certificate of a device that was revoked opens nothing any more; that of its neighbour does."""
    papers = {}
    for client_id in (fresh_id(), fresh_id()):
        with site.installation.device(site.installation.request(client_id)) as device:
            answer = device.ask()
        papers[client_id] = tmp_path / f"{client_id}.pem"
        papers[client_id].write_text(answer["certificate"] + answer["private_key"])
    revoked, neighbour = papers
    with Wire(replace(site.papers, certificate=papers[revoked])) as wire:
        assert wire.connect(revoked, None, None) == 0
        site.installation.ask("device.revoke", id=revoked)
        assert wire.is_cut()
    assert not lets_in(site, papers[revoked])
    with Wire(replace(site.papers, certificate=papers[neighbour])) as wire:
        assert wire.connect(neighbour, None, None) == 0


def test_f_45_what_the_authority_signs_for_devices_is_for_clients_alone(site: Site) -> None:
    """F-45: no certificate that a device was given is taken for a server's, nor a server's for a device's."""
    folder = site.installation.folder / "ca"
    authority = LocalAuthority.read(folder / "ca.pem", folder / "ca.key")
    now = authority.certificate.not_valid_before_utc + DAY
    device = x509.load_pem_x509_certificate(authority.with_new_key("dev-1", "acme", now).certificate.encode())
    server = x509.load_pem_x509_certificate(authority.server(["localhost"], now)[0].encode())
    usages = [list(each.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) for each in (device, server)]
    assert usages == [[CLIENT], [SERVER]]
