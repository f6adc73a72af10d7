"""kill -9 at every named point of the service, again and again: no device is lost, nothing is there twice."""

import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from provisioner.services.crashpoints import POINTS
from tests.support.device import Wire
from tests.support.installation import Installation, ServiceDied
from tests.support.walker import PASSWORD, Walker, killed_while_they_walk

KILLS = 20
SITES = 2
DEVICES_AT_ONCE = 3
LATEST_S = 0.06
ROUNDS_MAX = 10  # of new devices until a point was reached often enough
# The user of a former grant is taken away: nothing else in a walk leaves anything to be done at the account broker.
LIVES = {"before_effect_done": 2}


class Site:
    """One installation that is killed over and over, and the devices that walk through it meanwhile."""

    def __init__(self, installation: Installation, number: int) -> None:
        self.installation, self.number = installation, number
        self.kills = 0
        self._devices = 0
        with installation.running():
            installation.account()

    def survive(self, point: str, kills: int, chance: random.Random) -> None:
        """That many kills at the point, each followed by a restart; then everybody finishes and all is compared."""
        walkers: list[Walker] = []
        for _ in range(kills):
            self._die_at(point, chance.randint(1, 3), walkers)
            assert self.installation.process is not None
            assert self.installation.process.poll() == -signal.SIGKILL, f"{point} was not reached"
            self.kills += 1
        with self.installation.running():
            assert self.installation.ask("fsck") == {"findings": []}
            for walker in walkers:
                assert walker.is_done or walker.walk(), walker.client_id
            self._compare(walkers)

    def _die_at(self, point: str, count: int, walkers: list[Walker]) -> None:
        try:
            self.installation.start(FLEETGATE_CRASH_AT=f"{point}:{count}")
        except ServiceDied:
            return  # at the point already, while it finished what the kill before had left
        assert self._has_no_findings()
        for _ in range(ROUNDS_MAX):
            waiting = [each for each in walkers if not each.is_done]
            new = [self._new(point) for _ in range(max(1, DEVICES_AT_ONCE - len(waiting)))]
            walkers += new
            with ThreadPoolExecutor(DEVICES_AT_ONCE) as pool:
                list(pool.map(Walker.walk, waiting + new))
            with suppress(subprocess.TimeoutExpired):
                assert self.installation.process is not None
                self.installation.process.wait(0.1)
                return

    def _has_no_findings(self) -> bool:
        findings = self.installation.ask("fsck")["findings"]
        assert not findings, findings
        return True

    def _new(self, point: str) -> Walker:
        self._devices += 1
        return Walker(self.installation, f"{point}-{self.number}-{self._devices}", lives=LIVES.get(point, 1))

    def _compare(self, walkers: list[Walker]) -> None:
        """One account user a device, the one that its only answer carried, and it still opens the door."""
        assert self.installation.ask("fsck") == {"findings": []}
        own = {walker.client_id for walker in walkers}
        users = [user for user in self.installation.listed("user.page", account="acme") if user["client_id"] in own]
        assert sorted((user["client_id"], user["username"]) for user in users) == sorted(
            (walker.client_id, walker.answer["username"]) for walker in walkers
        )
        granted = Counter(row["client_id"] for row in self.installation.audit("provision.granted"))
        assert {client_id: granted[client_id] for client_id in own} == {each.client_id: each.lives for each in walkers}
        assert not [row for row in self.installation.audit("provision.regranted") if row["client_id"] in own]
        for walker in walkers:
            assert self.installation.state(walker.client_id) == "confirmed"
            self.installation.account_wire(walker.answer).leave()


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Site]]:
    installations = [Installation(tmp_path_factory.mktemp("site") / "installation") for _ in range(SITES)]
    yield [Site(installation, number) for number, installation in enumerate(installations)]
    for installation in installations:
        if installation.process is not None and installation.process.poll() is None:
            installation.kill()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", POINTS)
def test_f_23_nothing_is_lost_or_doubled_at(sites: list[Site], point: str, seed: int) -> None:
    """F-23, F-25: after 20 kills there each device, asking with one message id, ends confirmed with one credential."""
    before = sum(site.kills for site in sites)
    with ThreadPoolExecutor(SITES) as pool:
        done = [
            pool.submit(site.survive, point, KILLS // SITES, random.Random(f"{seed}/{point}/{site.number}"))
            for site in sites
        ]
        for each in done:
            each.result()
    assert sum(site.kills for site in sites) - before == KILLS


@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
def test_f_24_no_word_leaves_before_the_commit(sites: list[Site], point: str) -> None:
    """F-24: a service that dies on either side of its commit has told the device nothing at all yet."""
    installation, client_id = sites[0].installation, f"silent-{point}"
    with installation.running():
        installation.request(client_id, password=PASSWORD)
    installation.start(FLEETGATE_CRASH_AT=point)
    with Wire(installation.plain) as wire:
        assert wire.connect(client_id, f"user-{client_id}", PASSWORD) == 0
        assert wire.subscribe(f"prov/v1/{client_id}/response") == (1,)
        wire.publish(f"prov/v1/{client_id}/request", b'{"request_id":"m-1"}', wait=False)
        assert wire.next() is None, "neither an answer nor a PUBACK"
    installation.wait_for_death()
    is_durable = point == "after_commit"
    with installation.running():
        assert installation.state(client_id) == ("granted" if is_durable else "pending")
        assert len(installation.audit("provision.granted", client_id=client_id)) == int(is_durable)
        assert len(installation.users_of(client_id)) == int(is_durable)
        walker = Walker(installation, client_id)
        walker.is_created, walker.message_id = True, "m-1"
        assert walker.walk()
        assert walker.answer["request_id"] == "m-1"


def test_f_24_every_answer_that_was_heard_was_durable(sites: list[Site], seed: int) -> None:
    """F-24: killed from outside at random moments, the service has never said what it does not know after restart."""
    hear_until_killed(sites[1], KILLS // 2, random.Random(f"{seed}/heard"))


def hear_until_killed(site: Site, kills: int, chance: random.Random) -> None:
    """So many kills in the midst of walks, and more until a device was answered before one of them: they come later and
    later while none was, for a busy machine takes its time."""
    heard, turn, latest_s = 0, 0, LATEST_S
    while turn < kills or not heard:
        assert turn < kills + KILLS, "no device was answered before a kill"
        walkers = [Walker(site.installation, f"heard-{kills}-{turn}-{number}") for number in range(DEVICES_AT_ONCE)]
        heard += killed_while_they_walk(site.installation, walkers, chance.uniform(0.005, latest_s))
        turn, latest_s = turn + 1, latest_s if heard else 1.5 * latest_s


def test_f_25_a_user_made_for_a_device_is_its_own(sites: list[Site]) -> None:
    """F-25: killed between making the account user and answering, there is one user, known to both sides."""
    installation = sites[0].installation
    walker = Walker(installation, "orphan")
    installation.start(FLEETGATE_CRASH_AT="after_apply")
    assert not walker.walk()
    installation.wait_for_death()
    with installation.running():
        assert installation.ask("fsck") == {"findings": []}
        assert walker.walk()
        assert installation.users_of("orphan") == [walker.answer["username"]]
        assert "consistent" in installation.cli("fsck").stderr
