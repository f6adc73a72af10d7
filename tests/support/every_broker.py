"""One installation with an account broker of every kind, each of them real, and devices that are at home there."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from broker.packets import V311, Version
from tests.support.device import Address, Credentials, Wire
from tests.support.installation import Installation
from tests.support.mosquitto import MosquittoServer, mosquitto_settings
from tests.support.ports import free_ports
from tests.support.rabbit_cluster import RabbitCluster, rabbit_settings, write_rabbit_secrets
from tests.support.relay import Balancer

# Name of the broker, and of an account on it -> its kind. Another account there has the name with "-loose" behind it.
KINDS: Final = {
    "near": "embedded",
    "files": "mosquitto-files",
    "dynsec": "mosquitto-dynsec",
    "papers": "certificate",
    "rabbit": "http-callback",
}
MOSQUITTOS: Final = ("files", "dynsec", "papers")
REFUSED: Final = frozenset({-1, 4, 5, 0x84, 0x86, 0x87})


@dataclass(frozen=True)
class Home:
    """A provisioned device on its account broker. address: with its certificate where that is the login."""

    credentials: Credentials
    answer: Mapping[str, Any]
    address: Address

    @property
    def client_id(self) -> str:
        return self.credentials.client_id

    @property
    def topic(self) -> str:
        """Below which its own topics are."""
        return f"{self.answer['account']}/{self.client_id}"

    @property
    def login(self) -> tuple[str | None, str | None]:
        """The certificate alone, where there is one."""
        if self.address.certificate is not None:
            return None, None
        return self.answer["username"], self.answer["password"]

    def connect(self, client_id: str | None = None, *, clean: bool = True, version: Version = V311) -> Wire:
        """Raises ConnectionRefusedError, however it was refused."""
        try:
            wire = Wire(self.address, version)
        except OSError:
            raise ConnectionRefusedError("no connection") from None
        try:
            code = wire.connect(client_id or self.client_id, *self.login, clean=clean)
        except OSError:
            code = -1
        if code != 0:
            wire.close()
            raise ConnectionRefusedError(f"CONNACK {code}")
        return wire

    def listening(self, *, clean: bool = True) -> Wire:
        """Connected, and subscribed to everything of its own."""
        wire = self.connect(clean=clean)
        codes = wire.subscribe(f"{self.topic}/#", f"$EDC/{self.topic}/#")
        if codes != (1, 1):
            wire.close()
            raise AssertionError(f"its own topics are refused: {codes}")
        return wire

    def heard(self, wire: Wire) -> list[tuple[str, bytes]]:
        """What ``wire`` had heard before a message that it sends to itself now."""
        return wire.heard_until_own(f"{self.topic}/end")

    def is_refused(self) -> bool:
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return True
        return False


@dataclass
class EveryBroker:
    """mosquittos: the processes, by the broker's name. balancer: what stands before the cluster."""

    installation: Installation
    rabbit: RabbitCluster
    mosquittos: Mapping[str, MosquittoServer]
    balancer: Balancer
    _capabilities: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def can(self, broker: str) -> Mapping[str, Any]:
        """What `account show` says that the broker can do."""
        if broker not in self._capabilities:
            self._capabilities[broker] = self.installation.ask("account.show", id=broker)["broker_capabilities"]
        return self._capabilities[broker]

    def home(self, broker: str, credentials: Credentials, answer: Mapping[str, Any]) -> Home:
        """Of a device with this answer."""
        address = self.installation.account_brokers[broker]
        if self.can(broker)["certificate_logins"]:
            paper = self.installation.folder / f"{credentials.client_id}-{answer['username']}.pem"
            paper.write_text(answer["certificate"] + answer["private_key"])
            address = replace(address, certificate=paper)
        return Home(credentials, answer, address)

    def granted(self, broker: str, client_id: str, account: str | None = None, **fields: Any) -> Home:
        """A device that has its answer and was not seen at home yet."""
        credentials = self.installation.request(client_id, account or broker, **fields)
        with self.installation.device(credentials) as device:
            answer = device.ask()
            assert answer["status"] == "provisioned", answer
            device.acknowledge()
        return self.home(broker, credentials, answer)

    def resident(self, broker: str, client_id: str, account: str | None = None, **fields: Any) -> Home:
        """A device whose request is confirmed."""
        home = self.granted(broker, client_id, account, **fields)
        with home.connect():
            self.installation.await_state(client_id, "confirmed")
        return home


@contextmanager
def running_every_broker(folder: Path, rabbit: RabbitCluster) -> Iterator[EveryBroker]:
    """Accounts on each broker: one of the default coupling, which is STRICT, and a LOOSE one."""
    balancer = Balancer(*(Address(node.mqtt) for node in rabbit.nodes))
    settings: dict[str, dict[str, Any]] = {
        "near": {"name": "near", "kind": "embedded", "port": free_ports(1)[0]},
        **{name: mosquitto_settings(KINDS[name], name, tls=True) for name in MOSQUITTOS},
        "rabbit": rabbit_settings(rabbit, "rabbit", balancer.port),
    }
    installation = Installation(folder, brokers=(), account_brokers=list(settings.values()))
    installation.account_brokers = {name: Address(each["port"], installation.ca) for name, each in settings.items()}
    installation.account_brokers["rabbit"] = Address(balancer.port)
    write_rabbit_secrets(rabbit, "rabbit", folder)
    for name in MOSQUITTOS:
        installation.cli("broker", "render", "mosquitto", "--broker", name, "--write")
    mosquittos = {name: MosquittoServer(settings[name], folder) for name in MOSQUITTOS}
    with ExitStack() as stack:
        for each in (*mosquittos.values(), balancer):
            stack.enter_context(each)
        stack.enter_context(installation.running())
        balancer.open()
        site = EveryBroker(installation, rabbit, mosquittos, balancer)
        for name in KINDS:
            own = {"certificates": "server-key"} if name == "papers" else {}
            installation.account(name, name, **own)
            installation.account(f"{name}-loose", name, coupling="LOOSE", **own)
        yield site
