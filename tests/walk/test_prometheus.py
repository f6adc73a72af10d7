"""What is shipped for Prometheus and Grafana fits the service: names, rules, and a real scrape."""

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from tests.support.installation import ROOT, Installation
from tests.support.ports import free_ports
from tests.support.watching import Watch

RULES = ROOT / "deploy/prometheus/fleetgate-alerts.yml"
RULE_TESTS = ROOT / "deploy/prometheus/fleetgate-alerts.test.yml"
DASHBOARD = ROOT / "deploy/grafana/fleetgate.json"
OPERATIONS = ROOT / "docs/operations.md"
NAME = re.compile(r"\b(?:fleetgate|process)_[a-z_]+\b")
SCRAPED_WITHIN_S = 20.0
PARTS = {"histogram": ("_bucket", "_count", "_sum")}
LOOKED_AT_BY_NOBODY = {"process_virtual_memory_bytes", "process_start_time_seconds"}  # come with the library


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    """Where -> PromQL, of every alert and every panel."""
    found = {rule["alert"]: rule["expr"] for rule in alerts()}
    for panel in panels():
        found |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    return found


@pytest.mark.parametrize(("verb", "file"), [("check", RULES), ("test", RULE_TESTS)])
def test_promtool_agrees(verb: str, file: Path) -> None:
    """The rules are valid, and each fires when it should and not otherwise."""
    done = subprocess.run(
        ["promtool", verb, "rules", file.name], cwd=file.parent, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_every_alert_is_tested_and_explained() -> None:
    """Each has a case in which it fires and one in which not, a severity, a summary, and a line in the docs."""
    cases = [case for test in yaml.safe_load(RULE_TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    names = {rule["alert"] for rule in alerts()}
    assert fires == silent == names
    assert len(names) == len(alerts())
    explained = set(re.findall(r"`(Fleetgate\w+)`", OPERATIONS.read_text()))
    assert explained == names
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"].startswith("{{ $labels.instance }}")


def test_the_dashboard_is_one() -> None:
    """Panels have a title, a description and a place of their own within 24 columns."""
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        own = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not own & taken, panel["title"]
        assert max(x for x, _ in own) < 24
        taken |= own
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    ids = [panel["id"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.fixture
def watched(make_installation: Callable[..., Installation]) -> Iterator[Watch]:
    """A running service through which one device walked."""
    (port,) = free_ports(1)
    installation = make_installation(metrics={"port": port})
    with installation.running():
        installation.account(certificates="server-key")
        installation.provision(installation.request("gw1"))
        yield Watch(port)


def test_every_name_that_is_looked_at_is_exported(watched: Watch) -> None:
    """No alert and no panel waits for a metric that there is not, and none of ours is looked at by nobody."""
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", watched.text(), re.M))
    parts = {f"{name}{part}": name for name, kind in kinds.items() for part in PARTS.get(kind, ("",))}
    used = {name for expr in expressions().values() for name in NAME.findall(expr)}
    assert used <= parts.keys()
    assert kinds.keys() - {parts[name] for name in used} == LOOKED_AT_BY_NOBODY


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[int]:
    """Scraping that port with our rules; its own port."""
    (port,) = free_ports(1)
    shutil.copy(RULES, folder / RULES.name)
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [RULES.name],
        "scrape_configs": [{"job_name": "fleetgate", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    options = {"config.file": "prometheus.yml", "storage.tsdb.path": "tsdb", "web.listen-address": f"127.0.0.1:{port}"}
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", *(f"--{name}={value}" for name, value in options.items())],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


def asked(port: int, expr: str) -> list[dict[str, Any]]:
    """The samples of one query, or none while Prometheus does not answer yet. Raises for a query that is wrong."""
    url = f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': expr})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            found: list[dict[str, Any]] = json.load(response)["data"]["result"]
    except (ConnectionError, urllib.error.URLError) as error:
        assert not isinstance(error, urllib.error.HTTPError) or error.code == 503, f"{expr}: {error}"
        return []
    return found


def test_a_real_prometheus_scrapes_and_understands(watched: Watch, tmp_path: Path) -> None:
    """It finds the target up, what the device did, and an answer to what every alert and panel asks."""
    with prometheus(tmp_path, watched.port) as port:
        until_s = time.monotonic() + SCRAPED_WITHIN_S
        while not asked(port, 'up{job="fleetgate"} == 1'):
            assert time.monotonic() < until_s, (tmp_path / "prometheus.log").read_text()[-2000:]
            time.sleep(0.1)
        confirmed = asked(port, 'fleetgate_requests{state="confirmed"}')
        assert [float(sample["value"][1]) for sample in confirmed] == [1.0]
        for expr in expressions().values():
            asked(port, expr.replace("$instance", ".*").replace("$__rate_interval", "1m"))
        assert asked(port, 'ALERTS{alertstate="firing"}') == []
