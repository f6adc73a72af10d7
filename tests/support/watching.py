"""Looks at a running service as Prometheus and a load balancer do."""

import http.client
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

DEADLINE_S = 8.0
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


class Watch:
    """The service's door for those who watch it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def text(self) -> str:
        status, text = self.ask("/metrics")
        assert status == 200
        return text

    def samples(self) -> Samples:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Of one sample; 0 when there is none."""
        return self.samples().get((name, frozenset(labels.items())), 0.0)

    def await_value(self, wanted: Callable[[float], bool], name: str, **labels: str) -> float:
        """The value, once it is as wanted."""
        until_s = time.monotonic() + DEADLINE_S
        while not wanted(value := self.value(name, **labels)):
            assert time.monotonic() < until_s, f"{name} {labels} is {value}"
            time.sleep(0.05)
        return value

    def readiness(self) -> tuple[int, dict[str, Any]]:
        status, body = self.ask("/readyz")
        return status, json.loads(body)

    def await_readiness(self, status: int) -> dict[str, Any]:
        """What is said once the status is that."""
        until_s = time.monotonic() + DEADLINE_S
        while (said := self.readiness())[0] != status:
            assert time.monotonic() < until_s, f"readiness is {said}"
            time.sleep(0.05)
        return said[1]
