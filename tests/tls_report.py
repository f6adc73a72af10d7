"""Writes docs/tls-report.md: what testssl.sh finds at the gate and at a mosquitto that we rendered.

``scripts/tls-report`` runs it; both servers are started on the loopback interface, and none is left. Left out are
client simulation and each cipher on its own, which take minutes and say nothing that the categories do not, and HTTP.
"""

import datetime
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.installation import Installation
from tests.support.mosquitto import MosquittoServer, mosquitto_settings
from tests.support.testssl import Finding, findings, version

PAGE = Path(__file__).parents[1] / "docs/tls-report.md"
WITHIN_S = 240.0
CHECKS: Mapping[str, Sequence[str]] = {
    "protocols": ("--protocols",),
    "cipher categories": ("--std",),
    "forward secrecy": ("--pfs",),
    "server preference": ("--server-preference",),
    "server defaults and certificate": ("--server-defaults",),
    "vulnerabilities": ("--vulnerable",),
}
EXPLAINED: Mapping[str, str] = {
    "cert_revocation": "The certificate is of the installation's own authority, which devices trust for this alone: "
    "it is replaced, not revoked, and a stolen key ends with the authority. Where devices ask for revocation, put a "
    "certificate of your own with OCSP or a CRL into `tls/server.pem`."
}
SHOWN = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "OK")


def main() -> int:
    """The exit status: 1 when there is a finding of severity MEDIUM or worse."""
    found: dict[str, dict[str, list[Finding]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        settings = mosquitto_settings("mosquitto-files", "south", tls=True)
        installation = Installation(base / "plant", brokers=("unused",), account_brokers=[settings])
        installation.cli("broker", "render", "mosquitto", "--write")
        with MosquittoServer(settings, base / "plant") as mosquitto, installation.running():
            ports = {"gate": installation.secure.port, "mosquitto": mosquitto.settings.port}
            for server, port in ports.items():
                found[server] = {}
                for name, options in CHECKS.items():
                    print(f"{server}: {name}", file=sys.stderr, flush=True)
                    found[server][name] = findings(port, installation.ca, options, WITHIN_S)
    PAGE.write_text("\n".join(page(found)) + "\n")
    return int(any(is_open(each) for checks in found.values() for many in checks.values() for each in many))


def page(found: Mapping[str, Mapping[str, Sequence[Finding]]]) -> Iterator[str]:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    yield "# TLS as others see it"
    yield ""
    yield f"What testssl.sh {version()} found on {today} at the gate and at the devices' listener of a mosquitto that"
    yield "`fleetgate broker render` configured, both with the certificate that `fleetgate init` makes, on the loopback"
    yield "interface. `scripts/tls-report` makes this page anew in a few minutes, and fails when a finding is MEDIUM or"
    yield "worse that is not explained here."
    for server, checks in found.items():
        yield from ("", f"## {'The gate' if server == 'gate' else 'mosquitto'}", "")
        yield f"| check | {' | '.join(each.lower() for each in SHOWN)} |"
        yield f"|---|{'---|' * len(SHOWN)}"
        for name, many in checks.items():
            counted = Counter(each.severity for each in many)
            yield f"| {name} | {' | '.join(str(counted[each]) for each in SHOWN)} |"
        yield ""
        notable = [each for many in checks.values() for each in many if each.severity in SHOWN[:-1]]
        count = sum(map(is_open, notable)) or "none"
        yield f"Findings of severity MEDIUM or worse: {count}, but for what is explained."
        for each in notable:
            why = EXPLAINED.get(each.id)
            yield from ("", f"- {each.severity} `{each.id}`: {each.finding}.{f' {why}' if why else ''}")


def is_open(each: Finding) -> bool:
    """Serious, and not to be lived with."""
    return each.is_serious and each.id not in EXPLAINED


if __name__ == "__main__":
    sys.exit(main())
