"""docs/hardening.md names every setting that is rendered and every limit of ours, and none that is not there."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from broker import rabbitmq
from broker.limits import GateLimits
from broker.session_settings import SessionSettings
from provisioner.account_brokers.http_server import HttpLimits
from tests.support import rendered

PAGE = Path(__file__).parents[2] / "docs/hardening.md"
SECTION = re.compile(r"^##+ (.+)$", re.M)


def names(settings: type) -> set[str]:
    return {each.name for each in fields(settings)}


def advanced_terms() -> set[str]:
    """Of the options of TLS in Erlang's own words."""
    texts = [rabbitmq.render(plan, b"salt").get(rabbitmq.ADVANCED, "") for plan in rendered.plans()]
    options = [text.partition("{ssl_options, [")[2] for text in texts]
    return {name for text in options for name in re.findall(r"^\s+\{(\w+),", text, re.M)}


EXPECTED: dict[str, Callable[[], set[str]]] = {
    "mosquitto as an account broker": rendered.mosquitto_settings,
    "mosquitto in the place of the gate": rendered.provision_settings,
    "RabbitMQ": rendered.rabbitmq_settings,
    "advanced.config": advanced_terms,
    "EMQX": rendered.emqx_settings,
    "VerneMQ": rendered.vernemq_settings,
    "What brokers ask us": lambda: names(HttpLimits),
    "The gate": lambda: (names(GateLimits) | names(SessionSettings)) - {"session"},
}


def sections() -> dict[str, list[list[str]]]:
    """Title -> its tables' rows, as cells."""
    _, *parts = SECTION.split(PAGE.read_text())
    return {
        title: [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }


def test_every_section_is_known() -> None:
    """A product that is rendered has a section, and a section is of something that is looked at."""
    assert {title for title, rows in sections().items() if rows} == EXPECTED.keys()


@pytest.mark.parametrize("title", EXPECTED)
def test_a_section_names_every_setting_once_and_no_other(title: str) -> None:
    """AZ-03: whatever is rendered is explained, and what is explained is rendered."""
    told = [name for cells in sections()[title] for name in re.findall(r"`([^`]+)`", cells[0])]
    assert len(told) == len(set(told))
    assert EXPECTED[title]()
    assert set(told) == EXPECTED[title]()


def test_every_setting_has_its_attack() -> None:
    """Each row says in words of its own what would happen without it."""
    for title, rows in sections().items():
        for cells in rows:
            assert len(cells) == 2, (title, cells)
            assert len(cells[1].split()) >= 3, (title, cells)
