"""The walk through the gate to a mosquitto that knows a device by its certificate alone."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.device import Address, Credentials, Wire
from tests.support.fleet import fleet_of, run_fleet
from tests.support.installation import Installation
from tests.support.mosquitto import MosquittoServer, mosquitto_settings

FreshId = Callable[[], str]
CUT_S = 2.0
BROKER = "trusting"


@dataclass
class Site:
    """Accounts acme, which certifies a device's own key, and bolt, whose devices are given a key."""

    installation: Installation
    port: int

    @contextmanager
    def wire(self, answer: Mapping[str, Any]) -> Iterator[Wire]:
        """A connection by the certificate of this answer. Raises OSError when it is refused."""
        paper = self.installation.folder / f"{answer['client_id']}.pem"
        paper.write_text(answer["certificate"] + answer["private_key"])
        with Wire(Address(self.port, self.installation.ca, certificate=paper)) as wire:
            if wire.connect(str(answer["client_id"]), None, None) != 0:
                raise ConnectionRefusedError
            yield wire

    def is_refused(self, answer: Mapping[str, Any]) -> bool:
        try:
            with self.wire(answer):
                return False
        except OSError:
            return True


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = mosquitto_settings("certificate", BROKER, tls=True)
    folder = tmp_path_factory.mktemp("certificate") / "installation"
    installation = Installation(folder, brokers=(), account_brokers=[settings])
    installation.cli("broker", "render", "mosquitto", "--write")
    with MosquittoServer(settings, folder), installation.running():
        installation.account("acme", BROKER, certificates="csr")
        installation.account("bolt", BROKER, certificates="server-key")
        yield Site(installation, settings["port"])


def provisioned(site: Site, credentials: Credentials) -> dict[str, Any]:
    """Of account bolt, whose devices are given a key: granted and confirmed."""
    with site.installation.device(credentials) as device:
        answer = device.ask()
        assert answer["status"] == "provisioned", answer
    with site.wire(answer):
        site.installation.await_state(credentials.client_id, "confirmed")
    return answer


@pytest.mark.parametrize(("account", "csr"), [("acme", True), ("bolt", False)])
def test_ec_31_a_device_arrives_by_its_certificate(site: Site, fresh_id: FreshId, account: str, csr: bool) -> None:
    """A simulated device, with a key of its own or one that it was given, ends on the broker and is confirmed there."""
    credentials = site.installation.request(fresh_id(), account)
    report, _ = run_fleet(site.installation, fleet_of(credentials, csr=csr), folder=Path(site.installation.folder))
    assert report.is_met, report.outcomes()
    site.installation.await_state(credentials.client_id, "confirmed")


def test_f_08_a_disabled_device_is_cut_and_its_certificate_refused(site: Site, fresh_id: FreshId) -> None:
    """Within two seconds; enabling lets the same certificate in again, and a re-armed and cut one ends for good."""
    ask = site.installation.ask
    answer = provisioned(site, site.installation.request(fresh_id(), "bolt"))
    with site.wire(answer) as wire:
        ask("device.disable", id=answer["client_id"])
        assert wire.is_cut(CUT_S)
    assert site.is_refused(answer)
    ask("device.enable", id=answer["client_id"])
    assert not site.is_refused(answer)
    ask("request.rearm", id=answer["client_id"], cut=True)
    assert site.is_refused(answer)


def test_d7_a_new_grant_brings_a_new_certificate(site: Site, fresh_id: FreshId) -> None:
    """A re-armed device keeps its certificate until it is given another one, by which alone it is confirmed."""
    credentials = site.installation.request(fresh_id(), "bolt")
    former = provisioned(site, credentials)
    site.installation.ask("request.rearm", id=credentials.client_id)
    assert not site.is_refused(former)
    with site.installation.device(credentials) as device:
        latter = device.ask("m-2")
    assert latter["certificate"] != former["certificate"]
    assert site.is_refused(former)
    assert site.installation.state(credentials.client_id) == "granted"
    with site.wire(latter):
        site.installation.await_state(credentials.client_id, "confirmed")
    assert site.is_refused(former)
    assert site.installation.ask("fsck")["findings"] == []


def test_a_device_without_a_csr_is_told_so(site: Site, fresh_id: FreshId) -> None:
    """Where the certificate is the login, a question that brings no key cannot be granted."""
    credentials = site.installation.request(fresh_id(), "acme")
    with site.installation.device(credentials) as device:
        answer = device.ask()
    assert answer["status"] == "malformed"
    assert site.installation.state(credentials.client_id) == "pending"


def test_what_cannot_be_is_refused_before_a_device_is_made(site: Site) -> None:
    """EC-06: an account without certificates, and a client id that does not fit in a certificate's name."""
    create = ("account", "create", "plain", "--broker", BROKER)
    assert "certificates" in site.installation.cli(*create, status=6).stderr
    request = ("request", "create", "--account", "acme", "--username", "user-long", "--client-id", "g" * 60)
    assert "at most 59 characters" in site.installation.cli(*request, status=6).stderr
