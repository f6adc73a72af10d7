"""The local authority: what it signs verifies as TLS verifies it, and only the platform says who a device is."""

import ipaddress
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from provisioner.authority.local_ca import LocalAuthority, csr_key_digest
from provisioner.model.errors import InvalidInput
from provisioner.model.secret import Secret

# Certificates tell whole seconds.
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
AUTHORITY = LocalAuthority.create("Acme provisioning", NOW)
IDENTITY = "urn:fleetgate:acme:dev-1"
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def csr(key: Any = EC_KEY, names: str = "somebody else", *extensions: x509.ExtensionType, digest: Any = None) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


def leaf(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def verify_client(pem: str, at: datetime, authority: LocalAuthority = AUTHORITY) -> list[str]:
    """The names that a TLS server accepts the client certificate for; VerificationError when it does not."""
    policy = PolicyBuilder().store(Store([authority.certificate])).time(at).build_client_verifier()
    subjects = policy.verify(leaf(pem), []).subjects
    assert subjects is not None
    return [str(subject.value) for subject in subjects]


def certified(request: str | None = None) -> Any:
    return AUTHORITY.for_csr(request or csr(), "dev-1", "acme", NOW)


# Device certificates.


@pytest.mark.parametrize(
    "make", [certified, lambda: AUTHORITY.with_new_key("dev-1", "acme", NOW)], ids=["csr", "new key"]
)
def test_a_device_certificate_verifies_as_a_tls_client(make: Callable[[], Any]) -> None:
    """ID-04, F-45: the chain verifies for client authentication, under the name that the platform gave."""
    assert verify_client(make().certificate, NOW) == [IDENTITY]


@pytest.mark.parametrize(
    ("at", "valid"),
    [
        (NOW - timedelta(minutes=5, seconds=1), False),
        (NOW - timedelta(minutes=5), True),
        (NOW + 90 * DAY, True),
        (NOW + 90 * DAY + timedelta(seconds=1), False),
    ],
)
def test_a_device_certificate_is_valid_from_five_minutes_ago_for_ninety_days(at: datetime, valid: bool) -> None:
    """F-32: a device clock that is a little late does not refuse a fresh certificate."""
    authority = LocalAuthority.create("older", NOW - DAY)
    made = authority.for_csr(csr(), "dev-1", "acme", NOW)
    if valid:
        assert verify_client(made.certificate, at, authority) == [IDENTITY]
    else:
        with pytest.raises(VerificationError):
            verify_client(made.certificate, at, authority)


def test_another_authority_with_the_same_name_is_not_believed() -> None:
    """F-45: the signature counts, not the name."""
    with pytest.raises(VerificationError):
        verify_client(certified().certificate, NOW, LocalAuthority.create("Acme provisioning", NOW))


def test_a_device_certificate_is_not_a_servers() -> None:
    """F-45, F-46: a stolen device certificate cannot play the broker."""
    builder = PolicyBuilder().store(Store([AUTHORITY.certificate])).time(NOW)
    with pytest.raises(VerificationError):
        builder.build_server_verifier(x509.DNSName("dev-1")).verify(leaf(certified().certificate), [])


def test_a_device_certificate_signs_no_other() -> None:
    """F-46: a chain through a device certificate does not verify."""
    device = AUTHORITY.with_new_key("dev-1", "acme", NOW)
    assert device.private_key is not None
    key = serialization.load_pem_private_key(device.private_key.reveal().encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    forged = LocalAuthority(leaf(device.certificate), key).for_csr(csr(), "dev-2", "acme", NOW)
    policy = PolicyBuilder().store(Store([AUTHORITY.certificate])).time(NOW).build_client_verifier()
    with pytest.raises(VerificationError):
        policy.verify(leaf(forged.certificate), [leaf(device.certificate)])


def test_what_the_csr_says_of_itself_is_ignored() -> None:
    """F-46, ID-09: of a CSR only the key is taken; subject, names and extensions are the platform's."""
    asked = csr(
        EC_KEY,
        "evil",
        x509.SubjectAlternativeName([x509.DNSName("broker.example")]),
        x509.BasicConstraints(ca=True, path_length=3),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    )
    made = leaf(certified(asked).certificate)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert made.subject.rfc4514_string() == "CN=dev-1,OU=acme"
    assert [str(name.value) for name in names] == [IDENTITY]
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert made.public_key() == EC_KEY.public_key()


def test_a_csr_keeps_the_private_key_on_the_device() -> None:
    """ID-08: no key of ours with a CSR; without one the key fits the certificate and is a secret."""
    assert certified().private_key is None
    made = AUTHORITY.with_new_key("dev-1", "acme", NOW)
    assert isinstance(made.private_key, Secret)
    key = serialization.load_pem_private_key(made.private_key.reveal().encode(), None)
    assert key.public_key() == leaf(made.certificate).public_key()
    assert "PRIVATE" not in repr(made)


def test_what_is_told_about_a_certificate_is_true() -> None:
    """ID-10: serial, key digest, authority and half of its life as the time to renew."""
    made = certified()
    assert int(made.serial, 16) == leaf(made.certificate).serial_number
    assert made.key_digest == csr_key_digest(csr())
    assert made.ca == AUTHORITY.pem
    assert made.renew_after == NOW + 45 * DAY


def test_serials_are_random() -> None:
    """F-46: no two alike, not even for one key, and too long to be counted."""
    serials = [leaf(certified().certificate).serial_number for _ in range(50)]
    assert len(set(serials)) == 50
    assert max(serials).bit_length() > 128
    assert sorted(serials) != serials


def test_the_key_digest_recognises_a_key_in_another_request() -> None:
    """D7: the same key in a fresh CSR is the same key; another key is another."""
    assert csr_key_digest(csr(EC_KEY, "a")) == csr_key_digest(csr(EC_KEY, "b"))
    assert csr_key_digest(csr(ec.generate_private_key(ec.SECP256R1()))) != csr_key_digest(csr())


# Requests that are not certified.


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa.generate_private_key(65_537, 2048),
    ],
    ids=["P-256", "P-384", "RSA 2048"],
)
def test_strong_keys_are_certified(make: Callable[[], Key]) -> None:
    """F-46: P-256, P-384 and RSA from 2,048 bits."""
    assert verify_client(certified(csr(make())).certificate, NOW) == [IDENTITY]


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65_537, 1024),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        lambda: ec.generate_private_key(ec.SECP224R1()),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["RSA 1024", "secp256k1", "P-224", "Ed25519"],
)
def test_weak_and_unusual_keys_are_not(make: Callable[[], Key]) -> None:
    """F-46: refused by the rule, before anything is signed."""
    asked = csr(make())
    for use in (certified, csr_key_digest):
        with pytest.raises(InvalidInput, match="RSA of at least 2048 bits"):
            use(asked)


def with_foreign_signature() -> str:
    """A request whose key did not sign it: nobody has shown to hold that key."""
    der = x509.load_pem_x509_csr(csr().encode()).public_bytes(serialization.Encoding.DER)
    spki = [
        key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        for key in (EC_KEY, ec.generate_private_key(ec.SECP256R1()))
    ]
    assert der.count(spki[0]) == 1
    changed = x509.load_der_x509_csr(der.replace(spki[0], spki[1]))
    return changed.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "PEM PKCS#10"),
        ("Canary-7f3a", "PEM PKCS#10"),
        ("\ud800", "PEM PKCS#10"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nCanary7f3a\n-----END CERTIFICATE REQUEST-----\n", "PEM PKCS#10"),
        (AUTHORITY.pem, "PEM PKCS#10"),
        (csr()[:200], "PEM PKCS#10"),
        (with_foreign_signature(), "signed with its own key"),
    ],
    ids=["empty", "text", "surrogate", "PEM of nothing", "certificate", "cut", "foreign signature"],
)
def test_what_is_no_request_is_refused_by_name(text: str, rule: str) -> None:
    """EC-34, F-46: the field is csr, the rule is told, and nothing of the text is."""
    for use in (certified_text, csr_key_digest):
        with pytest.raises(InvalidInput, match=rule) as refused:
            use(text)
        assert [problem.field for problem in refused.value.problems] == ["csr"]
        assert "Canary" not in repr(refused.value)


def certified_text(text: str) -> Any:
    return AUTHORITY.for_csr(text, "dev-1", "acme", NOW)


# Server certificates and the authority itself.


@pytest.mark.parametrize("host", ["gate.example", "10.0.0.7", "::1"])
def test_a_server_certificate_verifies_for_each_of_its_hosts(host: str) -> None:
    """F-45: names and addresses alike, and for no other host."""
    pem, private = AUTHORITY.server(["gate.example", "10.0.0.7", "::1"], NOW)
    name: x509.DNSName | x509.IPAddress
    try:
        name = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        name = x509.DNSName(host)
    builder = PolicyBuilder().store(Store([AUTHORITY.certificate])).time(NOW)
    assert builder.build_server_verifier(name).verify(leaf(pem), [])[0] == leaf(pem)
    with pytest.raises(VerificationError):
        builder.build_server_verifier(x509.DNSName("other.example")).verify(leaf(pem), [])
    key = serialization.load_pem_private_key(private.reveal().encode(), None)
    assert key.public_key() == leaf(pem).public_key()


def test_a_server_certificate_is_not_a_clients() -> None:
    """F-45: the gate's own certificate identifies no device."""
    pem, _ = AUTHORITY.server(["gate.example"], NOW)
    with pytest.raises(VerificationError):
        verify_client(pem, NOW)


def test_the_authority_is_read_back_from_its_files(tmp_path: Path) -> None:
    """What it signs after a restart verifies against what was handed out before."""
    certificate, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    certificate.write_text(AUTHORITY.pem)
    key.write_text(AUTHORITY.key_pem().reveal())
    made = LocalAuthority.read(certificate, key).for_csr(csr(), "dev-1", "acme", NOW)
    assert verify_client(made.certificate, NOW) == [IDENTITY]


def test_an_authority_of_another_kind_is_refused(tmp_path: Path) -> None:
    """The authority's key is an elliptic curve key."""
    private = rsa.generate_private_key(65_537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    certificate.write_text(AUTHORITY.pem)
    key.write_bytes(private)
    with pytest.raises(InvalidInput, match="elliptic curve"):
        LocalAuthority.read(certificate, key)


def test_the_authority_shows_no_key() -> None:
    """F-39: neither in its repr nor in what its repr contains."""
    assert "PrivateKey" not in repr(AUTHORITY)
