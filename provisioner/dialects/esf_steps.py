"""What a gateway can be asked to take: key store entries, packages, configuration, each as one `Step`.

KEYS-V2    POST keystores/entries/certificate|privatekey   body: JSON
DEPLOY-V2  EXEC download                                   metrics dp.*
CONF-V1    PUT  configurations                             body: XML
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from provisioner.dialects.kura_payload import Metric, metric
from provisioner.dialects.kura_xml import Component, write
from provisioner.model.request import Package
from provisioner.model.secret import Secret

KEYSTORE_PID = "SSLKeystore"


class Phase(IntEnum):
    """Steps run in this order; the configuration comes last because it makes the gateway leave."""

    KEYS = 1
    PACKAGES = 2
    CONFIGURATION = 3


@dataclass(frozen=True, slots=True)
class Step:
    """One request, without the metrics that the dialogue adds. `package` is the name that an install step waits for."""

    phase: Phase
    app: str
    verb: str
    metrics: tuple[Metric, ...] = ()
    body: bytes | None = field(default=None, repr=False)
    package: str | None = None

    def __str__(self) -> str:
        return f"{self.app}/{self.verb}"


def certificate_step(alias: str, certificate_pem: str, *, keystore_pid: str = KEYSTORE_PID) -> Step:
    """Store a certificate that the gateway is to trust."""
    entry = {"keystoreServicePid": keystore_pid, "alias": alias, "certificate": certificate_pem}
    return _keys_step("certificate", entry)


def private_key_step(
    alias: str, private_key_pem: Secret, certificate_chain_pem: Sequence[str], *, keystore_pid: str = KEYSTORE_PID
) -> Step:
    """Store a private key with its certificate chain, own certificate first."""
    if not certificate_chain_pem:
        raise ValueError("a private key needs its certificate chain")
    entry = {
        "keystoreServicePid": keystore_pid,
        "alias": alias,
        "privateKey": private_key_pem.reveal(),
        "certificateChain": list(certificate_chain_pem),
    }
    return _keys_step("privatekey", entry)


def _keys_step(resource: str, entry: Mapping[str, object]) -> Step:
    return Step(Phase.KEYS, "KEYS-V2", f"POST/keystores/entries/{resource}", body=json.dumps(entry).encode())


def package_step(package: Package) -> Step:
    """Download and install. A gateway refuses a request without protocol and system.update with 400."""
    protocol = package.url.partition("://")[0].upper()
    if protocol not in ("HTTP", "HTTPS"):
        raise ValueError("a package url must begin with http:// or https://")
    metrics = [
        metric("dp.uri", package.url),
        metric("dp.name", package.name),
        metric("dp.version", package.version),
        metric("dp.download.protocol", protocol),
        metric("dp.install", True),
        metric("dp.install.system.update", False),
    ]
    if package.sha256 is not None:
        metrics.append(metric("dp.download.hash", f"SHA-256:{package.sha256.lower()}"))
    return Step(Phase.PACKAGES, "DEPLOY-V2", "EXEC/download", tuple(metrics), package=package.name)


def configuration_step(components: Sequence[Component]) -> Step:
    """Merge these components into the running configuration."""
    return Step(Phase.CONFIGURATION, "CONF-V1", "PUT/configurations", body=write(components))
