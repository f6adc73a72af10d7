"""The gate's TLS as testssl.sh sees it: the quick part of docs/tls-report.md."""

from tests.support.installation import Installation
from tests.support.testssl import findings

WITHIN_S = 55.0


def test_testssl_finds_nothing_serious_at_the_gate(shared_installation: Installation) -> None:
    """EC-37: old protocols and weak ciphers are not offered, nor any that is not authenticated or has no forward
    secrecy; nothing is MEDIUM or worse."""
    gate = shared_installation.secure
    assert gate.ca is not None
    found = {each.id: each for each in findings(gate.port, gate.ca, ("--protocols", "--std"), WITHIN_S)}
    assert {"SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3"} <= found.keys()
    assert (found["TLS1_2"].severity, found["TLS1_3"].severity) == ("OK", "OK")
    assert found["cipherlist_STRONG"].severity == "OK"
    assert found["cipherlist_AVERAGE"].finding == "not offered"
    assert [each for each in found.values() if each.is_serious] == []
