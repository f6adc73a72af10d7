"""Renewed certificates: SIGHUP has every server of the service show them, and unfit files change nothing."""

import json
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.doors.control_client import ControlClient
from provisioner.model.secret import Secret
from tests.support.installation import Installation
from tests.support.papers import Paper
from tests.support.ports import free_ports

DEADLINE_S = 15.0
REFUSED = "the certificate is not renewed, the former one stays: "


class TlsEverywhere(Installation):
    """Each kind of server that shows the certificate. servers: their ports."""

    def __init__(self, folder: Path) -> None:
        callback, embedded, rabbit = free_ports(3)
        brokers = [
            {"name": "embedded", "kind": "embedded", "port": embedded},
            {"name": "rabbit", "kind": "http-callback", "product": "rabbitmq", "url_host": "127.0.0.1", "port": rabbit}
            | {"callback_port": callback, "callback_tls": True},
        ]
        super().__init__(folder, account_brokers=brokers, admin={"tls": True})
        self.servers = {
            "gate": self.secure.port,
            "admin": self.admin_port,
            "account broker": embedded,
            "callback": callback,
        }

    def client(self) -> ControlClient:
        said = json.loads((self.folder / "admin-credential.json").read_text())
        return ControlClient("127.0.0.1", self.admin_port, said["name"], Secret(said["credential"]), ca=self.ca)

    def reload(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def shown(self) -> dict[str, bytes]:
        """What each server shows to who connects now, DER."""
        return {name: _shown(port) for name, port in self.servers.items()}

    def await_log(self, text: str, count: int = 1) -> list[str]:
        until_s = time.monotonic() + DEADLINE_S
        while len(found := [line for line in self.log.read_text().splitlines() if text in line]) < count:
            assert time.monotonic() < until_s, f"never logged: {text}"
            time.sleep(0.02)
        return found


def _shown(port: int) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 5.0) as line, context.wrap_socket(line) as secure:
        return secure.getpeercert(binary_form=True) or b""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TlsEverywhere]:
    made = TlsEverywhere(tmp_path / "site")
    with made.running():
        yield made


def _renew(site: TlsEverywhere) -> bytes:
    """A new pair of the same authority in the files; the certificate, DER."""
    authority = Paper.read(site.ca, site.folder / "ca/ca.key")
    paper = authority.issue("renewed", hosts=("localhost", "127.0.0.1"))
    (site.folder / "tls/server.pem").write_text(paper.pem)
    (site.folder / "tls/server.key").write_text(paper.key_pem)
    return ssl.PEM_cert_to_DER_cert(paper.pem)


def test_every_server_shows_a_renewed_certificate_after_sighup(site: TlsEverywhere) -> None:
    """The gate, the administrators' listener, the endpoint that brokers ask and the broker of the evaluation mode:
    none of them goes on with a certificate that runs out."""
    former = site.shown()
    assert len(set(former.values())) == 1
    renewed = _renew(site)
    assert site.shown() == former
    site.reload()
    site.await_log("the certificate was read again")
    assert site.shown() == dict.fromkeys(site.servers, renewed)
    assert site.ask("status")["admin_port"] == site.admin_port


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("tls/server.pem", None, "gate.tls.certificate: must name a readable file, {path} is none"),
        ("tls/server.key", None, "gate.tls.key: must name a readable file, {path} is none"),
        ("tls/server.pem", "Canary-Pass-word1", "gate.tls.certificate: {path} must be a PEM certificate"),
        ("tls/server.key", "Canary-Pass-word1", "gate.tls.key: {path} must be a PEM private key"),
        ("tls/server.key", "another key", "gate.tls.key: {path} must be the key of "),
    ],
)
def test_unfit_files_leave_the_former_certificate(site: TlsEverywhere, file: str, text: str | None, told: str) -> None:
    """One line names the setting and the file, no traceback and nothing of the text; files that are mended and
    signalled again are taken."""
    former, path = site.shown(), site.folder / file
    path.unlink()
    if text is not None:
        path.write_text(Paper.authority().key_pem if text == "another key" else text)
    site.reload()
    (line,) = site.await_log(REFUSED)
    assert told.format(path=path) in line
    assert site.shown() == former
    renewed = _renew(site)
    site.reload()
    site.await_log("the certificate was read again")
    assert site.shown() == dict.fromkeys(site.servers, renewed)
    log = site.log.read_text()
    assert "Traceback" not in log and "Canary" not in log and log.count(REFUSED) == 1
