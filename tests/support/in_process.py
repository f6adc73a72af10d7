"""An installation that runs inside the test's process, so that the test can give it account brokers and plant leaks."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.embedded import EmbeddedBroker
from provisioner import app, config
from provisioner.account_brokers.embedded import DeviceLogin, EmbeddedAccountBroker
from provisioner.model.ports import AccountBroker
from provisioner.services.isolation import Report
from provisioner.services.platform import USER_PURPOSE
from provisioner.vault.keyring import KeyRing
from tests.contracts.account_broker_stage import LoopThread
from tests.support.device import Address
from tests.support.installation import Installation

READING = {"read-other", "read-neighbours", "read-all", "read-broker-state", "shared-subscription", "read-retained"}
WRITING = {"write-other", "write-retained", "will", "will-retained"}


class InProcess(Installation):
    """``serve`` it once. Devices and administrators come over sockets, as ever; account brokers are without TLS."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.account_brokers = {name: Address(each.port) for name, each in self.account_brokers.items()}
        self.loop = LoopThread()
        self.service: app.Service | None = None

    def embedded(self, name: str, kind: type[EmbeddedAccountBroker] = EmbeddedAccountBroker) -> EmbeddedAccountBroker:
        """A broker of the evaluation mode at the address that the settings have for that name."""
        ring = KeyRing.read(self.folder / "keys/ring.json")
        server: EmbeddedBroker[DeviceLogin] = EmbeddedBroker(port=self.account_brokers[name].port)
        return kind(name, server, lambda stored, secret, id: ring.verify(stored, secret, USER_PURPOSE, id))

    def serve(self, monkeypatch: pytest.MonkeyPatch, brokers: Mapping[str, AccountBroker] | None = None) -> app.Service:
        """brokers: in the place of those of the settings."""
        monkeypatch.setattr(app, "_spare_the_collector", lambda: None)  # it belongs to the test run here

        values = yaml.safe_load(self.config.read_text())
        values["account_brokers"] = [
            {"name": name, "kind": "embedded", "port": address.port, "tls": False}
            for name, address in self.account_brokers.items()
        ]
        self.config.write_text(yaml.safe_dump(values))

        async def started() -> app.Service:
            service = await app.build(config.read(self.config), self.folder, brokers)
            self.service = service
            await service.start()
            return service

        return self.loop.run(started())

    def prove(self) -> dict[str, Report]:
        """A proof of isolation; its reports by target."""
        assert self.service is not None
        reports = asyncio.run_coroutine_threadsafe(self.service.proving.prove(), self.loop.loop).result(60)
        return {report.target: report for report in reports}

    def close(self) -> None:
        try:
            if self.service is not None:
                self.loop.run(self.service.stop())
        finally:
            self.loop.close()


def explained(report: Report) -> bool:
    """Every leaked rule says what was seen and what to do."""
    failed = [verdict.detail for verdict in report.verdicts if verdict.held is False]
    return all(detail.startswith("LEAK: ") and "To do: " in detail for detail in failed)
