"""Key pairs that a device makes for itself, and whether a certificate belongs to one."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from provisioner.model.secret import Secret

COMMON_NAME_CHARACTERS_MAX = 64  # X.520 ub-common-name


def new_key_and_csr(client_id: str) -> tuple[Secret, str]:
    """A P-256 key (PKCS#8 PEM, unencrypted) and the CSR (PEM) for it, with the client id as common name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, client_id[:COMMON_NAME_CHARACTERS_MAX])])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return Secret(pem), csr.public_bytes(serialization.Encoding.PEM).decode()


def certifies(certificate_pem: str, key: Secret) -> bool:
    """True when the (first) certificate is for this private key; False also when it is no certificate."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        own = serialization.load_pem_private_key(key.reveal().encode(), password=None)
        return certificate.public_key() == own.public_key()
    except ValueError:
        return False
