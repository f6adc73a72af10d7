"""The certificate of this host: what every server of ours shows, and what they show after it was renewed."""

import logging
import ssl
from collections.abc import Callable
from pathlib import Path

from broker.tls import TlsFiles, reload_context, server_context
from provisioner.config import Settings
from provisioner.model.errors import InvalidInput
from provisioner.named_files import judge_certificate

log = logging.getLogger(__name__)


class OwnCertificate:
    """The gate's certificate serves for all that runs beside it. Relative paths are relative to ``base``."""

    def __init__(self, settings: Settings, base: Path) -> None:
        self._settings, self._base = settings, base
        tls = settings.gate.tls
        self._files = TlsFiles(base / tls.certificate, base / tls.key)
        self._shown: list[ssl.SSLContext] = []

    def context(self) -> ssl.SSLContext:
        """A new one for one server, which is the server's own to change otherwise. Raises OSError."""
        context = server_context(self._files)
        self._shown.append(context)
        return context

    def renew(self, *others: Callable[[], None]) -> None:
        """New connections are shown what the files hold now. Where that is no certificate with its key, all keep what
        they have, and one line of the log says which file of which setting it is. others: read the same files."""
        try:
            judge_certificate(self._settings, self._base)
        except (InvalidInput, OSError) as error:
            log.error("the certificate is not renewed, the former one stays: %s", error)
            return
        told: set[str] = set()
        for renew in (self._renew_shown, *others):
            try:
                renew()
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                told.add(getattr(error, "strerror", None) or type(error).__name__)
        if told:  # they were whole a moment ago
            log.error("gate.tls: the files changed while they were read, signal it again: %s", ", ".join(sorted(told)))
        else:
            log.info("the certificate was read again")

    def _renew_shown(self) -> None:
        for context in self._shown:
            reload_context(context, self._files)
