"""mosquitto that trusts our authority: the common contract against the real server, where a device's password is its
certificate, and what is its own."""

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioner.account_brokers.certificate import CertificateBroker
from provisioner.authority.local_ca import LocalAuthority
from provisioner.model.errors import Conflict, Unavailable
from provisioner.model.ports import BrokerUser, Gap, Sighting
from provisioner.model.secret import Secret
from provisioner.mosquitto_setup import write_configuration
from tests.contracts.account_broker_contract import AccountBrokerContract
from tests.contracts.account_broker_stage import CUT_S, REFUSED, LoopThread, Stage, closing_devices, digest, user
from tests.contracts.mqtt_device import ACCEPTED, Device, until
from tests.support.mosquitto import MosquittoServer, mosquitto_settings


@dataclass
class CertificateStage(Stage):
    """A password stands for a certificate: the same one for the same user and password."""

    authority: LocalAuthority = field(kw_only=True)
    folder: Path = field(kw_only=True)
    serials: dict[str, list[str]] = field(default_factory=dict)
    files: dict[tuple[str, str], tuple[Path, Path]] = field(default_factory=dict)

    def put(self, user: BrokerUser) -> BrokerUser:
        return super().put(self.signed(user))

    def signed(self, user: BrokerUser) -> BrokerUser:
        """With the serials of all that this user was ever given."""
        if user.password is not None and (user.username, user.password.reveal()) not in self.files:
            self._sign(user, user.password)
        return replace(user, certificates=tuple(self.serials[user.username]))

    def device(self, client_id: str, username: str | None, password: str | None, **more: Any) -> Device:
        certificate = self.files.get((username or "", password or ""))
        return super().device(client_id, username, password, certificate=certificate, **more)

    def _sign(self, user: BrokerUser, password: Secret) -> None:
        home = f"{user.account}/{user.client_id}"
        made = self.authority.with_new_key("dev-1", user.account, datetime.now(UTC), home)
        assert made.private_key is not None
        self.serials.setdefault(user.username, []).append(made.serial)
        number = len(self.files)
        pair = self.folder / f"device-{number}.pem", self.folder / f"device-{number}-key.pem"
        pair[0].write_text(made.certificate)
        pair[1].write_text(made.private_key.reveal())
        self.files[user.username, password.reveal()] = pair


@pytest.fixture(scope="module")
def authority() -> LocalAuthority:
    return LocalAuthority.create("test", datetime.now(UTC))


@pytest.fixture
def server(authority: LocalAuthority, tmp_path: Path) -> Iterator[MosquittoServer]:
    certificate, key = authority.server(["localhost", "127.0.0.1"], datetime.now(UTC))
    for name, text in (
        ("ca/ca.pem", authority.pem),
        ("ca/ca.key", authority.key_pem().reveal()),
        ("tls/server.pem", certificate),
        ("tls/server.key", key.reveal()),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with MosquittoServer(mosquitto_settings("certificate", tls=True), tmp_path) as running:
        yield running


@pytest.fixture
def stage(server: MosquittoServer, authority: LocalAuthority, tmp_path: Path) -> Iterator[CertificateStage]:
    loop, sightings = LoopThread(), list[Sighting]()
    broker = server.adapter()
    ca = tmp_path / "ca/ca.pem"
    try:
        gaps: list[Gap] = []
        loop.run(broker.start(sightings.append, gaps.append))
        made = CertificateStage(
            broker, server.address, loop, sightings, ca_file=ca, authority=authority, folder=tmp_path, gaps=gaps
        )
        with closing_devices(made):
            yield made
        loop.run(broker.stop())
    finally:
        loop.close()


class TestCertificateBroker(AccountBrokerContract):
    pass


def test_it_says_what_it_is(stage: CertificateStage) -> None:
    """The certificate is the login, and its name is short: both are told before a device is made."""
    can = stage.broker.capabilities()
    assert (can.kicks, can.certificate_logins, can.checks_client_id, can.mqtt5) == (True, True, False, True)
    assert can.refuses("acme", "g" * 59) is None
    assert can.refuses("acme", "g" * 60) == "must be at most 59 characters"
    with pytest.raises(Conflict):
        stage.loop.run(stage.broker.put_user(user(1, client_id="g" * 60)))


def test_nothing_is_written_at_mosquitto_for_a_device(stage: CertificateStage, server: MosquittoServer) -> None:
    """D10: a new user changes no file that mosquitto reads."""
    read = [path for path in sorted(server.folder.iterdir()) if path.suffix != ".jsonl"]
    before = [path.read_bytes() for path in read]
    for number in (1, 2, 3):
        stage.put(user(number))
    assert [path.read_bytes() for path in read] == before
    assert stage.of(user(3)).connect() == ACCEPTED


def test_another_authority_makes_nobody(stage: CertificateStage, tmp_path: Path) -> None:
    """F-05: a certificate with the right name that another authority signed gets nothing."""
    stage.put(user(1))
    stranger = LocalAuthority.create("test", datetime.now(UTC))
    made = stranger.with_new_key("dev-1", "acme", datetime.now(UTC), "acme/gw1")
    assert made.private_key is not None
    pair = tmp_path / "stranger.pem", tmp_path / "stranger-key.pem"
    pair[0].write_text(made.certificate)
    pair[1].write_text(made.private_key.reveal())
    stage.files["user-1", "Stranger"] = pair
    assert stage.device("gw1", "user-1", "Stranger").connect() in REFUSED


def test_two_accounts_may_use_one_client_id(stage: CertificateStage) -> None:
    """esf 4.7: identity is account and client id; neither disturbs the other, nor hears it."""
    ours, theirs = stage.put(user(1)), stage.put(user(2, account="other", client_id="gw1"))
    first, second = stage.of(ours).admitted(), stage.of(theirs).admitted()
    assert first.subscribe("#")
    assert second.subscribe("#")
    second.publish("other/gw1/data", b"theirs")
    first.publish("acme/gw1/data", b"ours")
    assert first.got("acme/gw1/data", b"ours")
    assert second.got("other/gw1/data", b"theirs")
    assert len(first.received) == len(second.received) == 1


def test_a_second_grant_ends_the_first_ones_certificate(stage: CertificateStage) -> None:
    """D7: a device that was granted again counts as seen by its new certificate alone, so that the former one ends;
    it holds again when the second grant is taken back."""
    former = stage.put(user(1))
    device = stage.of(former).admitted()
    latter = stage.put(user(2, client_id="gw1"))
    assert device.left.wait(CUT_S)
    assert stage.of(former).connect() in REFUSED
    assert stage.of(latter).connect() == ACCEPTED
    assert until(lambda: [s.username for s in stage.sightings if s.connected] == ["user-1", "user-2"])
    stage.loop.run(stage.broker.remove_user("acme", "user-2"))
    assert stage.of(latter).connect() in REFUSED
    assert stage.of(former).connect() == ACCEPTED


@pytest.mark.parametrize("client_id", ["gw 1", "gw(1)", "gw'1'", "gätewäy", "p2, c1, k60, u'x'"])
def test_any_client_id_is_sighted_by_its_name(stage: CertificateStage, client_id: str) -> None:
    """F-09: a name with all that a log line is made of is told apart, and its topics are its own."""
    made = stage.put(user(1, client_id=client_id.replace(",", "")))
    device = stage.of(made).admitted()
    assert device.subscribe(f"acme/{made.client_id}/#")
    device.publish(f"acme/{made.client_id}/data", b"mine")
    assert device.got(f"acme/{made.client_id}/data", b"mine")
    assert until(lambda: stage.seen(made.client_id) == [True])


def test_what_was_refused_stays_refused_after_a_restart(
    stage: CertificateStage, server: MosquittoServer, authority: LocalAuthority
) -> None:
    """F-08: a service that was killed knows a removed user's certificates though its store has forgotten the user."""
    gone, disabled, there = (stage.put(user(number)) for number in (1, 2, 3))
    stage.loop.run(stage.broker.remove_user("acme", "user-1"))
    stage.put(replace(disabled, enabled=False))
    stage.loop.run(stage.broker.stop())
    again = server.adapter()
    stage.loop.run(again.start(stage.sightings.append))
    stage.broker = again
    for each in (disabled, there):
        stage.put(replace(each, password=None, enabled=each is there))
    assert [stage.of(each).connect() in REFUSED for each in (gone, disabled, there)] == [True, True, False]
    stage.put(disabled)
    assert stage.of(disabled).connect() == ACCEPTED


def test_a_list_that_mosquitto_could_not_be_told_of_is_told_later(
    stage: CertificateStage, server: MosquittoServer
) -> None:
    """F-08: while mosquitto is away nothing is claimed; the same call succeeds once it is back."""
    made = stage.put(user(1))
    server.kill()
    assert until(lambda: _is_away(stage, made))
    server.start()
    assert until(lambda: not _is_away(stage, made))
    assert stage.of(made).connect() in REFUSED


def test_what_it_was_not_heard_of_is_told(stage: CertificateStage, server: MosquittoServer) -> None:
    """Case 3: nobody is called connected, nor missing, on the word of a mosquitto that has forgotten it."""
    gap = Gap(stage.broker.name, all_left=False)
    stage.of(stage.put(user(1))).admitted()
    assert until(lambda: stage.seen("gw1") == [True])
    assert stage.gaps == [gap]
    server.kill()
    server.start()
    assert until(lambda: stage.gaps == [gap, gap], within_s=10)
    assert until(lambda: stage.seen("gw1") == [True, False])
    assert stage.sightings[-1].unheard is True


def test_f_43_who_renders_leaves_the_record_to_the_service(stage: CertificateStage, server: MosquittoServer) -> None:
    """F-43: `broker render` beside a running service puts no file in the place of the one that it writes to."""
    stage.put(user(1))
    record = server.folder / "certificates.jsonl"
    before = record.stat().st_ino
    write_configuration(server.settings, server.base, "$EDC")
    stage.put(user(2))
    assert record.stat().st_ino == before
    assert len(record.read_text().splitlines()) == 2


@pytest.mark.parametrize("how", ["removed", "disabled"])
def test_f_23_a_crash_before_the_cut_leaves_nobody_connected(
    stage: CertificateStage, server: MosquittoServer, how: str
) -> None:
    """F-23, F-08: killed when it was written whose certificate is refused, and the device was not cut yet: the effect
    that is left over cuts it."""
    made = stage.put(user(1))
    device = stage.of(made).admitted()
    stage.loop.run(stage.broker.stop())
    record = server.folder / "certificates.jsonl"
    *values, certificates = json.loads(record.read_text())
    account, username, client_id, _, turn, _ = values
    gone = [account, username, client_id, how == "removed", turn, time.time() if how == "removed" else None]
    record.write_text(json.dumps([*gone, certificates]) + "\n")
    stage.broker = server.adapter()
    stage.loop.run(stage.broker.start(stage.sightings.append))
    assert not device.left.is_set()
    if how == "removed":
        stage.loop.run(stage.broker.remove_user("acme", "user-1"))
    else:
        stage.put(replace(made, enabled=False))
    assert device.left.wait(CUT_S)


def _is_away(stage: CertificateStage, made: BrokerUser) -> bool:
    try:
        stage.put(replace(made, enabled=False))
    except Unavailable:
        return True
    return False


def test_certificates_that_have_run_out_are_forgotten(server: MosquittoServer) -> None:
    """The list is bounded: who was removed before any certificate that still holds was signed is left out of it."""
    clock = itertools.count(0, 100 * 86_400)
    broker = server.adapter()
    assert isinstance(broker, CertificateBroker)
    broker._now_s = lambda: float(next(clock))
    loop = LoopThread()
    try:
        loop.run(broker.start(lambda sighting: None))
        loop.run(broker.put_user(user(1, certificates=("0a",), verifier=digest("x"))))
        loop.run(broker.remove_user("acme", "user-1"))
        records = server.folder / "certificates.jsonl"
        assert json.loads(records.read_text().splitlines()[-1])[-1] == ["0a"]
        loop.run(broker.stop())
        loop.run(broker.start(lambda sighting: None))
        assert records.read_text() == ""
        loop.run(broker.stop())
    finally:
        loop.close()
