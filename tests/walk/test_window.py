"""The validity window of a request: a device may connect before and after it, and is provisioned only inside it."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.device import Credentials
from tests.support.installation import Installation

FreshId = Callable[[], str]
HOUR = timedelta(hours=1)


def test_ec_20_before_the_window_a_device_connects_and_waits(
    shared_installation: Installation, fresh_id: FreshId
) -> None:
    """An hour early: CONNECT is accepted, the answer names server time and delay, and no user exists."""
    site = shared_installation
    credentials = site.request(fresh_id(), activates_on=_in(HOUR))
    with site.device(credentials) as device:
        answer = device.ask()
        assert _without_time(answer) == {"request_id": "m-1", "status": "not_yet_active"}
        assert abs(datetime.fromisoformat(answer["server_time"]) - datetime.now(UTC)) < timedelta(seconds=5)
        assert 3_590 < answer["retry_after_s"] <= 3_600
        _nothing_was_given(site, credentials, "not_yet_active")
        # An administrator opens the window early: the device that stayed is let through.
        site.cli("request", "update", credentials.client_id, "--activates-on", _in(-HOUR))
        assert device.ask()["status"] == "provisioned"


def test_ec_20_a_device_that_waits_as_told_comes_in_time(shared_installation: Installation, fresh_id: FreshId) -> None:
    """EC-24: the delay of the answer ends inside the window, so that the next ask is granted."""
    site = shared_installation
    credentials = site.request(fresh_id(), activates_on=_in(timedelta(seconds=3)))
    with site.device(credentials) as device:
        answer = device.ask()
        assert answer["status"] == "not_yet_active"
        time.sleep(answer["retry_after_s"])
        granted = device.ask()
    assert granted["status"] == "provisioned"
    opened = datetime.fromisoformat(site.ask("request.show", id=credentials.client_id)["activates_on"])
    told = datetime.fromisoformat(answer["server_time"]) + timedelta(seconds=answer["retry_after_s"])
    assert opened <= told < opened + timedelta(seconds=2)
    assert opened <= datetime.fromisoformat(granted["server_time"])


def test_ec_21_without_an_end_the_window_stays_open(shared_installation: Installation, fresh_id: FreshId) -> None:
    """A request that opened ten years ago provisions now; one that opens now would in ten years."""
    site = shared_installation
    old = site.request(fresh_id(), activates_on=_in(-3_653 * 24 * HOUR))
    assert site.ask("request.show", id=old.client_id)["expires_on"] is None
    site.provision(old, broker="north")
    new = site.request(fresh_id())
    assert _explained(site, new, _in(3_653 * 24 * HOUR)) is None


def test_ec_22_after_the_window_a_device_connects_and_is_told(
    shared_installation: Installation, fresh_id: FreshId
) -> None:
    """A window that closed, before the device came or while it was connected: status expired, no user, no delay."""
    site = shared_installation
    late = site.request(fresh_id(), activates_on=_in(-2 * HOUR), expires_on=_in(-HOUR))
    with site.device(late) as device:
        assert _without_time(device.ask()) == {"request_id": "m-1", "status": "expired"}
    _nothing_was_given(site, late, "expired")

    slow = site.request(fresh_id(), activates_on=_in(-2 * HOUR))
    with site.device(slow) as device:
        site.cli("request", "update", slow.client_id, "--expires-on", _in(timedelta(0)))
        assert device.ask()["status"] == "expired"
        _nothing_was_given(site, slow, "expired")
        site.cli("request", "update", slow.client_id, "--unset", "expires_on")
        assert device.ask("m-2")["status"] == "provisioned"


def test_ec_24_the_first_instant_is_inside_and_the_last_is_not(
    shared_installation: Installation, fresh_id: FreshId
) -> None:
    """Half open: explained for the exact instants by the running gate.

    The decision itself is proved in tests/rules/test_decision.py::test_the_window_is_half_open.
    """
    site, second = shared_installation, timedelta(microseconds=1)
    opens = datetime.now(UTC).replace(microsecond=0) + HOUR
    closes = opens + HOUR
    credentials = site.request(fresh_id(), activates_on=opens.isoformat(), expires_on=closes.isoformat())
    verdicts = {
        opens - second: "not_yet_active",
        opens: None,
        closes - second: None,
        closes: "expired",
    }
    for instant, status in verdicts.items():
        assert _explained(site, credentials, instant.isoformat()) == status, instant


def _in(span: timedelta) -> str:
    return (datetime.now(UTC) + span).isoformat()


def _explained(site: Installation, credentials: Credentials, at: str) -> str | None:
    """What a device would be told at that instant; None: it would be granted."""
    explained = json.loads(site.cli("request", "explain", credentials.client_id, "--at", at).stdout)
    return explained["refusal"]["status"] if explained["refusal"] else None


def _without_time(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("server_time", "retry_after_s")}


def _nothing_was_given(site: Installation, credentials: Credentials, reason: str) -> None:
    refused = site.await_audit("provision.refused", client_id=credentials.client_id)
    assert {row["reason"] for row in refused} == {reason}
    assert site.users_of(credentials.client_id) == []
    assert site.state(credentials.client_id) == "pending"
