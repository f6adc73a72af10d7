"""A mosquitto that the settings name as an account broker: its adapter, its configuration, and a look at it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from broker.mosquitto import MosquittoListener, MosquittoPlan, dynsec_state, render
from provisioner.account_brokers.certificate import REVOKED, CertificateBroker, CertificatePlace
from provisioner.account_brokers.mosquitto_check import Check, look_at
from provisioner.account_brokers.mosquitto_dynsec import MosquittoDynsec
from provisioner.account_brokers.mosquitto_files import FilesPlace, MosquittoFiles
from provisioner.account_brokers.mosquitto_link import ControlAddress
from provisioner.account_brokers.mosquitto_passwords import Reload, password_digest, replace_file
from provisioner.account_brokers.mosquitto_user_files import UserFiles, read_or_make_secret
from provisioner.authority.local_ca import LocalAuthority, RevocationLists
from provisioner.broker_settings import (
    BrokerSettings,
    CertificateSettings,
    MosquittoDynsecSettings,
    MosquittoFilesSettings,
    MosquittoSettings,
)
from provisioner.model.errors import InvalidInput, Problem, Unavailable
from provisioner.model.ports import AccountBroker
from provisioner.vault import generate

_USERS: Mapping[str, Literal["files", "dynsec", "certificates"]] = {
    "mosquitto-files": "files",
    "mosquitto-dynsec": "dynsec",
    "certificate": "certificates",
}
CONFIGURATION, STATE, SECRET = "mosquitto.conf", "dynamic-security.json", "secret"


def mosquitto_broker(each: MosquittoSettings, base: Path, control_prefix: str) -> AccountBroker:
    """The adapter. Makes the service's own password when there is none. Raises Unavailable or InvalidInput."""
    if isinstance(each, CertificateSettings):
        return _by_certificate(each, base, control_prefix)
    if isinstance(each, MosquittoDynsecSettings):
        return MosquittoDynsec(each.name, _control(each, base), users_max=each.users_max, control_prefix=control_prefix)
    place = FilesPlace(
        folder=base / each.own_folder, group=each.group, users_max=each.users_max, control_prefix=control_prefix
    )
    return MosquittoFiles(each.name, place, _control(each, base), _reload(each, base))


def chosen(each: BrokerSettings) -> MosquittoSettings:
    """The settings as those of a mosquitto. Raises InvalidInput when they are of something else."""
    if isinstance(each, MosquittoSettings):
        return each
    raise InvalidInput([Problem(f"account_brokers.{each.name}.kind", "must be one of mosquitto", repr(each.kind))])


def configuration(each: MosquittoSettings, base: Path) -> str:
    """The text of mosquitto.conf, with absolute paths. Raises InvalidInput for what cannot stand in it."""
    base = base.absolute()
    tls = {"certificate": base / each.certificate, "key": base / each.key}
    plan = MosquittoPlan(
        name=each.name,
        users=_USERS[each.kind],
        authority=base / each.authority if isinstance(each, CertificateSettings) else None,
        folder=base / each.own_folder,
        devices=MosquittoListener(host=each.host, port=each.port, **(tls if each.tls else {})),
        control=MosquittoListener(
            host=each.control_host, port=each.control_port, **(tls if each.control_ca is not None else {})
        ),
        pid_file=base / each.pid_file if each.pid_file is not None else None,
        system_user=each.system_user,
        **({"plugin": each.plugin} if isinstance(each, MosquittoDynsecSettings) else {}),
    )
    try:
        return render(plan)
    except ValueError as error:
        raise InvalidInput([Problem(f"account_brokers.{each.name}", str(error), "a text")]) from None


def write_configuration(each: MosquittoSettings, base: Path, control_prefix: str) -> list[Path]:
    """Everything that mosquitto needs to be started, in the broker's folder; users that are there stay.

    The files that were written. Raises Unavailable."""
    folder = base / each.own_folder
    control = _control(each, base)
    written = [folder / CONFIGURATION]
    try:
        replace_file(folder / CONFIGURATION, configuration(each, base))
        if isinstance(each, MosquittoFilesSettings):
            files = UserFiles(folder, control_prefix, each.group)
            files.prepare(control.username, control.password)
            written += files.paths
        elif isinstance(each, CertificateSettings):
            written += _by_certificate(each, base, control_prefix).prepare()
        elif not (folder / STATE).exists():
            digest = password_digest(control.password)
            replace_file(folder / STATE, dynsec_state(control.username, digest), mode=0o600)
            written.append(folder / STATE)
    except OSError as error:
        raise Unavailable(f"{folder} cannot be written: {type(error).__name__}") from None
    return written


async def check_mosquitto(each: MosquittoSettings, base: Path) -> list[Check]:
    """What a look at the running mosquitto says of it, one after another."""
    reload = None if isinstance(each, MosquittoDynsecSettings) else _reload(each, base)
    return await look_at(_control(each, base), reload)


def _control(each: MosquittoSettings, base: Path) -> ControlAddress:
    return ControlAddress(
        host=each.control_host,
        port=each.control_port,
        username=each.username,
        password=read_or_make_secret(base / each.own_folder / SECRET, generate.password()),
        client_id=f"fleetgate {each.name}",
        ca=base / each.control_ca if each.control_ca is not None else None,
    )


def _by_certificate(each: CertificateSettings, base: Path, control_prefix: str) -> CertificateBroker:
    place = CertificatePlace(folder=base / each.own_folder, group=each.group, control_prefix=control_prefix)
    authority = LocalAuthority.read(base / each.authority, base / each.authority_key)
    lists = RevocationLists(authority, lambda: datetime.now(UTC), place.folder / REVOKED)
    return CertificateBroker(each.name, place, _control(each, base), _reload(each, base), lists.signed)


def _reload(each: MosquittoFilesSettings | CertificateSettings, base: Path) -> Reload:
    if each.reload_command:
        return Reload(command=each.reload_command)
    return Reload(pid_file=base / each.pid_file if each.pid_file is not None else None)
