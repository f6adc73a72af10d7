"""What is rendered for a broker that asks us over HTTP: hardened, whole, of settings that the product knows."""

import base64
import hashlib
import json
import re
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from broker import emqx, rabbitmq, vernemq
from broker.callback_plan import CallbackPlan, Endpoint, Operator
from provisioner.doors.cli import cli
from tests.support import rendered
from tests.support.rendered import PLAN, SECRET, plans

PLUGINS = Path("/usr/lib/rabbitmq/lib")
DOCUMENTED = Path(__file__).parent / "documented"
PRODUCTS: dict[str, Callable[[CallbackPlan], dict[str, str]]] = {
    "rabbitmq": lambda plan: rabbitmq.render(plan, b"salt"),
    "emqx": emqx.render,
    "vernemq": vernemq.render,
}


def lines(plan: CallbackPlan, product: str) -> list[str]:
    """Of its main file, without comments and indents."""
    text = next(iter(PRODUCTS[product](plan).values()))
    return [line.strip() for line in text.splitlines() if line and not line.strip().startswith("#")]


def values(plan: CallbackPlan, product: str) -> dict[str, str]:
    return dict(line.split(" = ", 1) for line in lines(plan, product))


def test_rabbitmq_is_hardened() -> None:
    """AZ-03: nobody anonymous, nobody plain, no AMQP, no cached answer; it asks with the secret, by POST."""
    conf = values(PLAN, "rabbitmq")
    assert (conf["mqtt.allow_anonymous"], conf["mqtt.listeners.tcp"], conf["listeners.tcp"]) == (
        "false",
        "none",
        "none",
    )
    assert conf["mqtt.listeners.ssl.1"] == "0.0.0.0:8883"
    assert {conf[f"ssl_options.versions.{number}"] for number in (1, 2)} == {"tlsv1.3", "tlsv1.2"}
    assert conf["auth_backends.2"] == "http"
    assert conf["auth_http.user_path"] == f"http://broker:{SECRET}@gate.example:8886/user"
    assert "cache" not in "".join(conf)
    assert rabbitmq.render(PLAN, b"salt")[rabbitmq.PLUGINS].startswith("[rabbitmq_mqtt,rabbitmq_auth_backend_http,")


def test_rabbitmq_knows_its_operator_by_a_digest_alone() -> None:
    """AZ-02: no password of the operator's is in its files, and the operator may come from its own host only."""
    files = rabbitmq.render(PLAN, b"salt")
    (user,) = json.loads(files[rabbitmq.DEFINITIONS])["users"]
    assert base64.b64decode(user["password_hash"])[4:] == hashlib.sha256(b"saltOperator-word-1").digest()
    assert "Operator-word-1" not in "".join(files.values())
    assert "loopback_users.operator = true" in lines(PLAN, "rabbitmq")
    alone = rabbitmq.render(replace(PLAN, operator=None), b"salt")
    assert json.loads(alone[rabbitmq.DEFINITIONS])["users"] == []
    assert "management" not in alone[rabbitmq.PLUGINS]


def test_emqx_is_hardened() -> None:
    """AZ-03: no anonymous login, no other listener, no rule means no, nothing is cached, and no factory password."""
    text = emqx.render(PLAN)[emqx.CONFIGURATION]
    for setting in ("no_match = deny", "enable_authn = quick_deny_anonymous", 'cookie = "Fg-cookie"', "backend = http"):
        assert setting in lines(PLAN, "emqx")
    assert re.search(r"cache \{\s+enable = false", text)
    for closed in ("tcp", "ws", "wss"):
        assert re.search(rf"  {closed} {{\s+default {{\s+enable = false", text), closed
    assert 'default_password = "Fg-console"' in lines(PLAN, "emqx")
    assert text.count(f'authorization = "Bearer {SECRET}"') == 3
    assert emqx.render(PLAN)[emqx.API_KEYS] == "operator:Operator-word-1\n"


def test_vernemq_is_hardened() -> None:
    """AZ-03: no anonymous login, nobody but us says yes, each hook in both versions of MQTT, no payload is told."""
    conf = values(PLAN, "vernemq")
    assert conf["allow_anonymous"] == conf["plugins.vmq_acl"] == conf["plugins.vmq_passwd"] == "off"
    hooks = {value for name, value in conf.items() if name.endswith(".hook")}
    assert hooks == {
        f"{hook}{version}"
        for hook in ("auth_on_register", "auth_on_publish", "auth_on_subscribe", "on_register")
        for version in ("", "_m5")
    }
    assert [value for name, value in conf.items() if name.endswith("no_payload")] == ["on", "on"]
    assert (conf["listener.tcp.default"], conf["distributed_cookie"]) == ("127.0.0.1:1883", "Fg-cookie")


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_endpoint_is_verified_where_it_has_tls(product: str) -> None:
    """AZ-03: a broker asks nobody but the holder of a certificate of our authority, and shows its own."""
    paths = {"authority": Path("/ca.pem"), "certificate": Path("/own.pem"), "key": Path("/own.key")}
    plan = replace(PLAN, endpoint=Endpoint(host="gate.example", port=8886, **paths))
    text = "\n".join(PRODUCTS[product](plan).values())
    assert "https://gate.example:8886" in text
    assert "http://" not in text
    assert re.search(r"verify(, | = )verify_peer|verify_peer = on", text)
    assert all(str(path) in text for path in paths.values())
    assert SECRET not in text


def test_rabbitmq_wants_a_name_to_verify() -> None:
    """Erlang's HTTP client verifies no certificate of an address, so that one is refused instead."""
    near = Endpoint(host="192.0.2.7", port=8886, authority=Path("/ca.pem"), secret=SECRET)
    with pytest.raises(ValueError, match="has to be a name"):
        rabbitmq.render(replace(PLAN, endpoint=near), b"salt")


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a\nallow_anonymous = on"},
        {"host": "0.0.0.0\nmqtt.allow_anonymous = true"},
        {"vhost": "/\nmqtt.allow_anonymous = true"},
        {"folder": Path('/etc/"site')},
        {"nodes": ("rabbit@one\n",)},
        {"cookie": 'a"b'},
        {"endpoint": replace(PLAN.endpoint, host="127.0.0.1\nallow_anonymous = on")},
        {"endpoint": replace(PLAN.endpoint, host="127.0.0.1\nmqtt.allow_anonymous = true")},
        {"operator": Operator(username="op\nallow_anonymous = on", password="x", port=1, is_tls=False, is_near=True)},
    ],
)
def test_no_value_becomes_a_setting_of_its_own(product: str, changes: dict[str, Any]) -> None:
    """A line break or a quote in a value is refused, or stands where it is harmless."""
    try:
        text = "\n".join(PRODUCTS[product](replace(PLAN, **changes)).values())
    except ValueError:
        return
    assert "allow_anonymous = on" not in text
    assert "allow_anonymous = true" not in text
    assert 'a"b' not in text


def test_a_secret_that_cannot_be_in_an_address_is_refused() -> None:
    """It is told by its rule, and not shown."""
    with pytest.raises(ValueError, match="letters, digits") as told:
        Endpoint(host="gate.example", port=8886, secret="not:an@address/")
    assert "not:an" not in str(told.value)
    assert SECRET not in repr(PLAN)


def test_every_setting_of_rabbitmq_is_in_its_schema() -> None:
    """The RabbitMQ of this host knows each name that is rendered."""
    known = set()
    for schema in PLUGINS.glob("rabbitmq_server-*/plugins/*/priv/schema/*.schema"):
        known |= set(re.findall(r'\{mapping,\s*"([^"]+)"', schema.read_text()))
    assert known, "rabbitmq-server is not installed; scripts/system-packages says how"
    patterns = [re.sub(r"\\\$\w+", r"[^.]+", re.escape(name)) for name in known]
    unknown = [each for each in rendered.rabbitmq_settings() if not any(re.fullmatch(p, each) for p in patterns)]
    assert unknown == []


@pytest.mark.parametrize(
    ("product", "names"), [("emqx", rendered.emqx_settings), ("vernemq", rendered.vernemq_settings)]
)
def test_every_setting_of_the_others_is_documented(product: str, names: Callable[[], set[str]]) -> None:
    """A name that nobody found in the product's documentation is not rendered, and no found one is forgotten."""
    text = (DOCUMENTED / f"{product}.txt").read_text()
    assert {line for line in text.splitlines() if line and not line.startswith("#")} == names()


def test_every_plan_is_rendered_whole() -> None:
    """Blocks are closed, terms too, and no placeholder of ours is left."""
    for plan in plans():
        text = emqx.render(plan)[emqx.CONFIGURATION]
        unquoted = re.sub(r'"(\\.|[^"\\])*"', '""', text)
        assert unquoted.count("{") == unquoted.count("}")
        assert unquoted.count("[") == unquoted.count("]")
        for product, files in ((name, render(plan)) for name, render in PRODUCTS.items()):
            assert "None" not in "".join(files.values()), product


# The command.


@pytest.fixture
def config(tmp_path: Path) -> Path:
    management = {"urls": ["http://127.0.0.1:15672"], "username": "operator", "password": "management.secret"}
    common = {"kind": "http-callback", "port": 8883}
    brokers = [
        {"name": "cluster", "product": "rabbitmq", "management": management, **common},
        {"name": "east", "product": "emqx", "callback_port": 8887, **common},
        {"name": "west", "product": "vernemq", "callback_port": 8888, **common},
    ]
    path = tmp_path / "fleetgate.yaml"
    path.write_text(yaml.safe_dump({"account_brokers": brokers}))
    return path


def run(config: Path, *arguments: str, status: int = 0) -> Result:
    command = ["broker", "render", *arguments, "-c", str(config)]
    result = CliRunner().invoke(cli, command, prog_name="fleetgate")
    assert result.exit_code == status, result.output
    return result


@pytest.mark.parametrize("product", PRODUCTS)
def test_render_writes_for_us_alone_and_says_what_to_do(config: Path, tmp_path: Path, product: str) -> None:
    """The files on stdout, the next steps on stderr; nobody else may read them, and no secret is printed."""
    folder = tmp_path / "out" / product
    result = run(config, product, "--output", str(folder))
    written = [Path(line) for line in result.stdout.split()]
    assert {path.name for path in folder.iterdir()} == {path.name for path in written}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in written)
    assert "Next steps:\n1. " in result.stderr
    name = {"rabbitmq": "cluster", "emqx": "east", "vernemq": "west"}[product]
    secret = (tmp_path / "callbacks" / f"{name}.secret").read_text().strip()
    assert secret in "".join(path.read_text() for path in written)
    assert secret not in result.output
    kept = {path: path.read_text() for path in (tmp_path / "callbacks").iterdir()}
    run(config, product, "--output", str(folder))
    assert {path: path.read_text() for path in (tmp_path / "callbacks").iterdir()} == kept


def test_secrets_are_not_printed(config: Path, tmp_path: Path) -> None:
    """Without a folder there is nothing; and a folder is not for mosquitto."""
    assert "--output" in run(config, "rabbitmq", status=2).stderr
    assert "east" not in run(config, "rabbitmq", "--broker", "east", "--output", str(tmp_path), status=2).stdout
