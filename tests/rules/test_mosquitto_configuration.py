"""What is rendered for a mosquitto that serves as an account broker, and which settings describe one."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.mosquitto import MosquittoListener, MosquittoPlan, dynsec_state, render
from provisioner import config
from provisioner.account_brokers.mosquitto_passwords import password_digest
from provisioner.broker_settings import EmbeddedBrokerSettings, MosquittoDynsecSettings, MosquittoFilesSettings
from provisioner.model.errors import InvalidInput
from provisioner.model.secret import Secret


def plan(**changes: Any) -> MosquittoPlan:
    tls = {"certificate": Path("/tls/server.pem"), "key": Path("/tls/server.key")}
    return MosquittoPlan(
        **{
            "name": "south",
            "users": "files",
            "folder": Path("/var/lib/south"),
            "devices": MosquittoListener(host="0.0.0.0", port=8883, **tls),
            "control": MosquittoListener(host="127.0.0.1", port=1884),
            **changes,
        }
    )


def lines(text: str, listener: int | None = None) -> list[str]:
    """Settings without comments; those of the whole broker, or of the listener of that number."""
    parts: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("listener "):
            parts.append([])
        if line and not line.startswith("#"):
            parts[-1].append(line)
    return parts[0 if listener is None else listener]


def test_files_are_hardened_for_each_listener() -> None:
    """Nobody anonymous, users and rights of its own for each listener, TLS from 1.2 on, no client id to steal."""
    text = render(plan())
    assert {"per_listener_settings true", "set_tcp_nodelay true", "persistence false"} < set(lines(text))
    assert any(line.startswith("max_packet_size ") for line in lines(text))
    devices, control = lines(text, 1), lines(text, 2)
    assert devices[0] == "listener 8883 0.0.0.0"
    assert {"allow_anonymous false", "tls_version tlsv1.2", "use_username_as_clientid true"} < set(devices)
    assert {"password_file /var/lib/south/passwords", "acl_file /var/lib/south/acl"} < set(devices)
    assert control[0] == "listener 1884 127.0.0.1"
    assert {"allow_anonymous false", "password_file /var/lib/south/control-passwords"} < set(control)
    assert "use_username_as_clientid true" not in control


def test_dynsec_has_one_plugin_for_all() -> None:
    """The plugin keeps one state: it stands before the listeners, which then have no files of their own."""
    text = render(plan(users="dynsec", plugin=Path("/opt/dynsec.so")))
    assert {"per_listener_settings false", "allow_anonymous false", "plugin /opt/dynsec.so"} < set(lines(text))
    assert "password_file" not in text
    assert "acl_file" not in text


def test_the_log_is_told_and_says_no_more_than_needed() -> None:
    """Sightings come by the log; what single messages are about is never in it."""
    for users in ("files", "dynsec"):
        settings = lines(render(plan(users=users)))
        assert {"log_dest topic", "log_type notice", "connection_messages true"} < set(settings)
        assert not {"log_type all", "log_type debug", "log_type subscribe"} & set(settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"folder": Path("/var/lib/a\nallow_anonymous true")},
        {"pid_file": Path("/run/a\rb")},
        {"system_user": "root\nuser other"},
        {"devices": MosquittoListener(host="127.0.0.1\nlistener 1", port=1883)},
        {"name": "a\nallow_anonymous true"},
    ],
)
def test_no_value_becomes_a_setting_of_its_own(changes: dict[str, Any]) -> None:
    """A line break in a value is refused, or is no line break any more."""
    try:
        text = render(plan(**changes))
    except ValueError:
        return
    assert "allow_anonymous true" not in lines(text)


def test_the_first_state_of_the_plugin_allows_the_service_alone() -> None:
    """One client, one role that may command and hear; whatever no role allows is denied, delivery included."""
    secret = Secret("Service-word-1")
    state = json.loads(dynsec_state("fleetgate", password_digest(secret)))
    assert [client["username"] for client in state["clients"]] == ["fleetgate"]
    assert {acl["topic"] for acl in state["roles"][0]["acls"]} == {
        "$CONTROL/dynamic-security/v1",
        "$CONTROL/dynamic-security/v1/response",
        "$SYS/broker/log/N",
    }
    denied = {"publishClientSend": False, "publishClientReceive": False, "subscribe": False, "unsubscribe": True}
    assert state["defaultACLAccess"] == denied


def read(tmp_path: Path, *brokers: dict[str, Any]) -> Any:
    path = tmp_path / "fleetgate.yaml"
    path.write_text(yaml.safe_dump({"account_brokers": list(brokers)}))
    return config.read(path, {}).account_brokers


def test_each_kind_has_its_settings(tmp_path: Path) -> None:
    """Several brokers of different kinds stand side by side; without a kind it is the one for evaluation."""
    found = read(
        tmp_path,
        {"name": "one"},
        {"name": "two", "kind": "mosquitto-files", "pid_file": "m.pid", "url_host": "b.example", "port": 8883},
        {"name": "three", "kind": "mosquitto-dynsec", "tls": False, "port": 1883},
    )
    assert [type(each) for each in found] == [EmbeddedBrokerSettings, MosquittoFilesSettings, MosquittoDynsecSettings]
    assert [each.url for each in found[1:]] == ["mqtts://b.example:8883", "mqtt://localhost:1883"]
    assert [each.own_folder for each in found[1:]] == [Path("mosquitto/two"), Path("mosquitto/three")]


@pytest.mark.parametrize(
    ("broker", "told"),
    [
        ({"kind": "no-such-kind"}, "mosquitto-files"),
        ({"kind": "mosquitto-files"}, "pid_file or reload_command"),
        ({"kind": "mosquitto-dynsec", "control_host": "broker.example"}, "control_ca"),
        ({"kind": "mosquitto-dynsec", "users_max": 0}, "users_max"),
        ({"kind": "mosquitto-dynsec", "username": "a:b"}, "username"),
        ({"kind": "embedded", "pid_file": "m.pid"}, "pid_file"),
    ],
)
def test_wrong_settings_are_told_by_name(tmp_path: Path, broker: dict[str, Any], told: str) -> None:
    """Every kind takes its own settings alone, and says which one is wrong."""
    with pytest.raises(InvalidInput, match=told):
        read(tmp_path, {"name": "one", **broker})
