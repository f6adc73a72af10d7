"""Certificates of every kind that must not be believed, and one that must."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True)
class Paper:
    """A certificate with its key, and those between it and an authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    between: tuple[x509.Certificate, ...] = ()

    @classmethod
    def authority(cls, name: str = "Authority") -> Self:
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_signed(name, name, key.public_key(), key, (-DAY, DAY), True, None, ()), key)

    @classmethod
    def read(cls, certificate: Path, key: Path) -> Self:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return cls(x509.load_pem_x509_certificate(certificate.read_bytes()), private)

    def issue(
        self,
        name: str,
        *,
        life: tuple[timedelta, timedelta] = (-DAY, DAY),
        usage: x509.ObjectIdentifier | None = SERVER,
        hosts: Sequence[str] = (),
    ) -> "Paper":
        """life: from and until, relative to now. hosts: names and addresses of a server."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        made = _signed(name, str(issuer), key.public_key(), self.key, life, False, usage, hosts)
        is_authority = self.certificate.subject == self.certificate.issuer
        return Paper(made, key, () if is_authority else (self.certificate, *self.between))

    def self_signed(self) -> "Paper":
        """The same words, vouched for by nobody."""
        names = [str(each.value) for each in self.certificate.subject]
        key = ec.generate_private_key(ec.SECP256R1())
        return Paper(_signed(names[0], names[0], key.public_key(), key, (-DAY, DAY), False, SERVER, names), key)

    @property
    def pem(self) -> str:
        return "".join(_pem(each) for each in (self.certificate, *self.between))

    def write(self, path: Path) -> Path:
        """Certificate, those between, and key, in one file."""
        path.write_text(self.pem + self.key_pem)
        return path

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _signed(
    subject: str,
    issuer: str,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    life: tuple[timedelta, timedelta],
    ca: bool,
    usage: x509.ObjectIdentifier | None,
    hosts: Sequence[str],
) -> x509.Certificate:
    now = datetime.now(UTC)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (subject, issuer)]
    builder = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now + life[0]).not_valid_after(now + life[1])
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([*map(_host, hosts)]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
