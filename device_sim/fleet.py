"""Runs a scenario: makes the devices, lets them arrive, waits for the end or the deadline, reports."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from paho.mqtt.enums import MQTTProtocolVersion

from device_sim.actions import Log
from device_sim.dialogue import Identity
from device_sim.factory import arrival_times_s, make_dialogue, make_identities, new_state
from device_sim.faults import Faults
from device_sim.gateway import Gateway
from device_sim.link import LinkOptions
from device_sim.memory import Memory
from device_sim.report import FleetReport, Report, percentiles
from device_sim.runner import DeviceRunner, RunnerOptions, Slots
from device_sim.scenario import FleetSettings, Scenario
from device_sim.state import DeviceState
from device_sim.trust import Trust

POOL_THREADS = 32
_PROTOCOLS = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}

Observer = Callable[[str, Log], None]


class Fleet:
    """All devices of one scenario.

    folder: what its paths are relative to. observe: hears every event of every device, by client id. Raises
    InvalidInput or OSError when the scenario's files are not what they should be.
    """

    def __init__(self, scenario: Scenario, folder: Path = Path(), observe: Observer = lambda who, log: None) -> None:
        self._scenario = scenario
        self._folder = folder
        self._observe = observe
        self._identities = [make_identities(scenario, fleet, folder) for fleet in scenario.fleets]
        self._trust = Trust(folder / scenario.tls.ca if scenario.tls.ca else None)
        self.runners: list[list[DeviceRunner]] = []

    async def run(self) -> Report:
        """Once. Devices that are not done at the deadline are switched off where they are. Raises OSError when a
        device could not remember what it became."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="device-connect") as pool:
            slots = Slots(self._scenario.in_flight_max)
            self.runners = [self._make(at, pool, slots) for at in range(len(self._scenario.fleets))]
            everyone = [runner for runners in self.runners for runner in runners]
            arrivals = [
                loop.call_at(began_s + in_s, each.start) for each, in_s in zip(everyone, self._times(), strict=True)
            ]
            try:
                async with asyncio.timeout(self._scenario.deadline_s):
                    for runner in everyone:
                        await runner.finished.wait()
            except TimeoutError:
                pass
            elapsed_s = loop.time() - began_s
            for arrival in arrivals:
                arrival.cancel()
            is_late = not all(runner.finished.is_set() for runner in everyone)
            await asyncio.gather(*(runner.close() for runner in everyone))
        for failure in (runner.failure for runner in everyone):
            if failure is not None:
                raise failure
        reports = tuple(self._report(at) for at in range(len(self._scenario.fleets)))
        return Report(seed=self._scenario.seed, elapsed_s=round(elapsed_s, 3), deadline_passed=is_late, fleets=reports)

    def _times(self) -> list[float]:
        times: list[float] = []
        for at, fleet in enumerate(self._scenario.fleets):
            random = Random(f"{self._scenario.seed}/{self._scenario.name_of(at)}")
            times += arrival_times_s(fleet.arrival, len(self._identities[at]), random)
        return times

    def _make(self, at: int, pool: ThreadPoolExecutor, slots: Slots) -> list[DeviceRunner]:
        settings, name, folder = self._scenario.fleets[at], self._scenario.name_of(at), self._scenario.state_dir
        memory = Memory(self._folder / folder / name) if folder else None
        link = LinkOptions(
            pool=pool, trust=self._trust, timeouts=settings.timeouts, protocol=_PROTOCOLS[settings.protocol]
        )
        options = RunnerOptions(
            link=link,
            slots=slots,
            expect=settings.expect,
            stay_s=settings.stay_s,
            save=memory.save if memory else lambda state: None,
            observe=self._observe,
        )
        return [self._device(settings, name, each, memory, options) for each in self._identities[at]]

    def _device(
        self, settings: FleetSettings, fleet: str, identity: Identity, memory: Memory | None, options: RunnerOptions
    ) -> DeviceRunner:
        random = Random(f"{self._scenario.seed}/{fleet}/{identity.client_id}")
        faults = Faults(settings.faults, random)
        now_s = asyncio.get_running_loop().time()
        device = Gateway(
            identity,
            self._state(settings, identity, memory),
            make_dialogue(settings, identity),
            settings.timeouts,
            random.random,
            faults.clock_offset_s(now_s, time.time() - now_s),
        )
        return DeviceRunner(device, options, faults)

    def _state(self, settings: FleetSettings, identity: Identity, memory: Memory | None) -> DeviceState:
        remembered = memory.load(identity.client_id) if memory else None
        return remembered or new_state(identity, csr=settings.csr)

    def _report(self, at: int) -> FleetReport:
        settings, runners = self._scenario.fleets[at], self.runners[at]
        return FleetReport(
            name=self._scenario.name_of(at),
            kind=settings.kind,
            devices=len(runners),
            expect=settings.expect,
            as_expected=sum(runner.device.outcome in settings.expect for runner in runners),
            phases=dict(Counter(runner.device.state.phase for runner in runners)),
            outcomes=dict(Counter(runner.device.outcome for runner in runners)),
            attempts=sum(runner.device.attempts for runner in runners),
            answers=dict(sum((runner.record.answers for runner in runners), Counter())),
            latency_s=percentiles(s for runner in runners if (s := runner.record.walk_s) is not None),
            faults=dict(sum((runner.faults.injected for runner in runners), Counter())),
        )
