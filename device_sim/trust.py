"""TLS of a device: whom it trusts and what it shows of itself. The host name is always verified."""

import ssl
import tempfile
from pathlib import Path

from device_sim.actions import Target
from provisioner.model.errors import InvalidInput, Problem


class Trust:
    """ca_file: PEM file of the authorities to trust; None takes those of the system. Thread-safe."""

    def __init__(self, ca_file: Path | None = None) -> None:
        """Raises InvalidInput for a file that holds none."""
        self._ca_file = ca_file
        try:
            self._common = self._fresh()
        except OSError as error:
            rule = f"must name a PEM file of authorities, {ca_file} is none"
            raise InvalidInput([Problem("tls.ca", rule, type(error).__name__)]) from None

    def context(self, target: Target) -> ssl.SSLContext:
        """Shared by all devices unless the target brings an authority or a certificate. Raises ssl.SSLError on PEM
        texts that are none, or a key that does not fit."""
        if target.ca is None and target.certificate is None:
            return self._common
        context = self._fresh()
        if target.ca is not None:
            context.load_verify_locations(cadata=target.ca)
        if target.certificate is not None and target.private_key is not None:
            # The ssl module takes a key from a file only.
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "chain.pem")
                path.touch(mode=0o600)
                path.write_text(f"{target.private_key.reveal()}\n{target.certificate}")
                context.load_cert_chain(path)
        return context

    def _fresh(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context
