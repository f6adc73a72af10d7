"""A small certificate authority on files: the server certificates of an installation and, for accounts that
want them, device certificates. Its life cycle (rotation, revocation lists) is not here.

Only the public key of a CSR is taken, never its names or extensions: the platform says who a device is.
"""

import hashlib
import ipaddress
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provisioner.model.errors import InvalidInput, Problem
from provisioner.model.secret import Secret

AUTHORITY_DAYS = 3650
SERVER_DAYS = 730
DEVICE_DAYS = 90
BACKDATED = timedelta(minutes=5)  # a device clock that is a little late must not refuse a fresh certificate (F-32)
RSA_BITS_MIN = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1)

R = TypeVar("R")
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCertificate:
    """PEM texts; serial in lower-case hex; key_digest: SHA-256 of the public key; renew_after: half of its life.

    ends_at: the first instant at which it is no longer good."""

    certificate: str
    ca: str
    serial: str
    key_digest: str
    renew_after: datetime
    ends_at: datetime
    private_key: Secret | None = None


@dataclass(frozen=True, slots=True)
class LocalAuthority:
    """Signs with one P-256 key. Instants are UTC and given by the caller."""

    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls, name: str, now: datetime) -> Self:
        """A new self-signed authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, subject, key.public_key(), now, AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def read(cls, certificate: Path, key: Path) -> Self:
        """Open the authority's two PEM files. Raises InvalidInput when they are not a pair."""
        own = _read(certificate, x509.load_pem_x509_certificate, "a PEM certificate")
        private = _read(key, _private_key, "a PEM private key without a pass phrase")
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise InvalidInput([Problem("ca key", "must be an elliptic curve key", type(private).__name__)])
        if private.public_key() != own.public_key():
            raise InvalidInput([Problem("ca key", f"{key} must be the key of {certificate}", "another key")])
        return cls(own, private)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def key_pem(self) -> Secret:
        return _private_pem(self._key)

    def server(self, hosts: list[str], now: datetime) -> tuple[str, Secret]:
        """Certificate and key, PEM, for a listener that is reached under these host names or addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        certificate = self._leaf(subject, key.public_key(), now, SERVER_DAYS, names, ExtendedKeyUsageOID.SERVER_AUTH)
        return certificate.public_bytes(serialization.Encoding.PEM).decode(), _private_pem(key)

    def for_csr(
        self, csr: str, device_id: str, account: str, now: datetime, name: str | None = None
    ) -> DeviceCertificate:
        """Certify the CSR's public key for this device. Raises InvalidInput naming the rule that it breaks.

        name: the common name, of at most 64 characters; the device's id when not given."""
        return self._device(_public_key(csr), device_id, account, now, None, name)

    def with_new_key(self, device_id: str, account: str, now: datetime, name: str | None = None) -> DeviceCertificate:
        """Make the key here, for accounts that allow it; it leaves in the answer and is kept nowhere in clear."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._device(key.public_key(), device_id, account, now, _private_pem(key), name)

    def crl(self, revoked: Iterable[str], now: datetime) -> str:
        """The revocation list, PEM. revoked: serials in hex. It is good as long as the authority is, since a list that
        has run out would refuse every device. Of two lists the one with the later ``now`` counts, by the second."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(now).next_update(self.certificate.not_valid_after_utc)
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def _device(
        self,
        public: PublicKey,
        device_id: str,
        account: str,
        now: datetime,
        private: Secret | None,
        name: str | None,
    ) -> DeviceCertificate:
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, account),
                x509.NameAttribute(NameOID.COMMON_NAME, name or device_id),
            ]
        )
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:fleetgate:{account}:{device_id}")])
        made = self._leaf(subject, public, now, DEVICE_DAYS, names, ExtendedKeyUsageOID.CLIENT_AUTH)
        return DeviceCertificate(
            certificate=made.public_bytes(serialization.Encoding.PEM).decode(),
            ca=self.pem,
            serial=f"{made.serial_number:x}",
            key_digest=_key_digest(public),
            renew_after=now + timedelta(days=DEVICE_DAYS) / 2,
            ends_at=now + timedelta(days=DEVICE_DAYS),
            private_key=private,
        )

    def _leaf(
        self,
        subject: x509.Name,
        public: PublicKey,
        now: datetime,
        days: int,
        names: x509.SubjectAlternativeName,
        usage: x509.ObjectIdentifier,
    ) -> x509.Certificate:
        issuer_id = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = _builder(subject, self.certificate.subject, public, now, days)
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(signs_certificates=False), True),
            (x509.ExtendedKeyUsage([usage]), False),
            (names, False),
            (x509.SubjectKeyIdentifier.from_public_key(public), False),
            (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256())


class RevocationLists:
    """Signs one list after the other. By its date the newer one counts, and a date has no fractions of a second: so
    each is a second later than the one before, beginning a while ago."""

    def __init__(self, authority: LocalAuthority, now: Callable[[], datetime], former: Path) -> None:
        """former: the list that was signed last, where there is one. Raises InvalidInput when it is none."""
        self._authority, self._now = authority, now
        self._last = _date_of(former) if former.exists() else now() - BACKDATED
        self._signing = threading.Lock()

    def signed(self, revoked: Iterable[str]) -> str:
        """PEM."""
        with self._signing:
            self._last = max(self._now() - BACKDATED, self._last + timedelta(seconds=1))
            return self._authority.crl(revoked, self._last)


def _private_key(pem: bytes) -> PrivateKeyTypes:
    return serialization.load_pem_private_key(pem, None)


def _read(path: Path, load: Callable[[bytes], R], what: str) -> R:
    try:
        return load(path.read_bytes())
    except OSError as error:
        problem = Problem(str(path), f"must be a readable file: {error.strerror}", type(error).__name__)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a pass phrase
        problem = Problem(str(path), f"must be {what}", "something else")
    raise InvalidInput([problem]) from None


def _date_of(former: Path) -> datetime:
    try:
        return x509.load_pem_x509_crl(former.read_bytes()).last_update_utc
    except ValueError:
        raise InvalidInput([Problem(str(former), "must be a revocation list", "something else")]) from None


def csr_key_digest(csr: str) -> str:
    """SHA-256 of the CSR's public key, in hex; InvalidInput when it cannot be certified."""
    return _key_digest(_public_key(csr))


def _public_key(csr: str) -> PublicKey:
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        genuine = request.is_signature_valid
        public = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        raise _bad_csr("must be a PEM PKCS#10 request") from None
    if not genuine:
        raise _bad_csr("must be signed with its own key")
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, _CURVES):
        return public
    if isinstance(public, rsa.RSAPublicKey) and RSA_BITS_MIN <= public.key_size <= 2 * 4096:
        return public
    raise _bad_csr(f"must hold a P-256 or P-384 key, or RSA of at least {RSA_BITS_MIN} bits")


def _bad_csr(rule: str) -> InvalidInput:
    return InvalidInput([Problem("csr", rule, "something else")])


def _key_digest(public: PublicKey) -> str:
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _private_pem(key: ec.EllipticCurvePrivateKey) -> Secret:
    clear = serialization.NoEncryption()
    return Secret(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, clear).decode())


def _builder(
    subject: x509.Name, issuer: x509.Name, public: PublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - BACKDATED).not_valid_after(now + timedelta(days=days))


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
