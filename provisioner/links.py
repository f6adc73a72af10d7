"""Builds what stands in the place of the gate when the settings say so; one function for each kind of link."""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from provisioner.account_brokers.mosquitto_passwords import LoginFiles, Reload
from provisioner.config import Settings
from provisioner.link.mosquitto import Handler, LinkOptions, MosquittoLink
from provisioner.link.probe import door_of
from provisioner.link.topics import LinkTopics
from provisioner.link_front import LinkFront
from provisioner.link_settings import MosquittoLinkSettings
from provisioner.model.errors import InvalidInput, Problem
from provisioner.model.ports import Dialect, Store
from provisioner.model.secret import Secret
from provisioner.services.instead_of_gate import InsteadOfGate
from provisioner.services.link_logins import LinkLogins
from provisioner.services.platform import Platform
from provisioner.services.provisioning import Provisioning
from provisioner.services.stand_ins import StandIns

SECRET_CHARACTERS_MAX = 1_024


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """Everything about the link that can be wrong, found out before anything is opened."""

    url: str
    topics: LinkTopics
    options: LinkOptions
    write: Callable[[str, str], None]

    def logins(self, store: Store) -> LinkLogins:
        return LinkLogins(store, self.topics, (self.options.username, self.options.password), self.write)

    def front(self, platform: Platform, provisioning: Provisioning, stand_ins: StandIns) -> LinkFront:
        def connect(heard: Handler) -> MosquittoLink:
            return MosquittoLink(self.options, heard)

        return LinkFront(platform, provisioning, self.topics, connect, self.url, stand_ins)

    def instead_of_gate(self, platform: Platform, stand_ins: StandIns) -> InsteadOfGate:
        """What the self-test tries there. platform: with the logins that were made here."""
        logins = platform.link_logins
        assert isinstance(logins, LinkLogins)
        trusted = self.options.tls or ssl.create_default_context()
        return InsteadOfGate(logins, stand_ins, lambda: door_of(self.url, trusted))


def plan_link(settings: Settings, base: Path, dialects: Sequence[Dialect]) -> LinkPlan | None:
    """None: our own gate. Raises InvalidInput naming each setting, and each dialect that cannot be used so."""
    link = settings.provision_link
    if not isinstance(link, MosquittoLinkSettings):
        return None
    topics = LinkTopics(dialects)
    host, port = link.address
    options = LinkOptions(
        host=host,
        port=port,
        tls=link_context(link, base),
        client_id=link.client_id,
        username=link.username,
        password=_secret(base / link.password_file),
        filters=topics.filters,
        share_group=link.share_group,
        window=link.window,
    )
    pid_file = link.reload.pid_file
    files = LoginFiles(
        password_file=base / link.password_file_path,
        acl_file=base / link.acl_file_path,
        reload=Reload(pid_file=base / pid_file if pid_file else None, command=link.reload.command),
        group=link.group,
    )
    return LinkPlan(link.url, topics, options, files)


def link_context(link: MosquittoLinkSettings, base: Path) -> ssl.SSLContext | None:
    """The name in that broker's certificate is verified; None for plain TCP."""
    if not link.is_secure:
        return None
    try:
        context = ssl.create_default_context(cafile=base / link.ca if link.ca else None)
    except OSError as error:
        rule = "must name a PEM file of certificates to trust"
        raise InvalidInput([Problem("provision_link.ca", rule, type(error).__name__)]) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _secret(path: Path) -> Secret:
    field = "provision_link.password_file"
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            [Problem(field, "must name a readable file with one password", type(error).__name__)]
        ) from None
    if not text or len(text) > SECRET_CHARACTERS_MAX or not text.isprintable():
        raise InvalidInput([Problem(field, "must hold one password on one line", f"{len(text)} characters")])
    return Secret(text)
