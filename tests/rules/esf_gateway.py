"""What the tests of the gateway dialogue share: its steps, its topics, and what a gateway says."""

from typing import Any

from provisioner.dialects.esf_requests import (
    Dialogue,
    Step,
    certificate_step,
    configuration_step,
    download_id,
    package_step,
)
from provisioner.dialects.kura_payload import KuraPayload, MetricType, MetricValue, decode, encode, metric
from provisioner.dialects.kura_xml import Component
from provisioner.model.messages import Outgoing
from provisioner.model.request import Package

IDS = tuple(f"{number:032x}" for number in range(0xA0, 0xA8))
KEYS = certificate_step("broker-ca", "PEM")
HEATER = package_step(Package(name="heater", version="1.0.0", url="https://h/heater.dp", sha256="AB" * 32))
PUMP = package_step(Package(name="pump", version="2.0.0", url="http://h/pump.dp"))
CONFIGURATION = configuration_step([Component("org.example.A", {"x": 1})])

DEPLOY = "$EDC/provision/gw:1/DEPLOY-V2/EXEC/download"
CONF = "$EDC/provision/gw:1/CONF-V1/PUT/configurations"
INSTALL = "$EDC/provision/fleetgate/DEPLOY-V2/NOTIFY/gw:1/install"
DOWNLOAD = "$EDC/provision/fleetgate/DEPLOY-V2/NOTIFY/gw:1/download"


def dialogue(*steps: Step, **settings: Any) -> Dialogue:
    names = {"requester": "fleetgate", "control_prefix": "$EDC", "account": "provision", "client_id": "gw:1"}
    return Dialogue(steps, **{**names, "request_ids": IDS, **settings})


def payload(*metrics: tuple[str, MetricValue], body: bytes | None = None) -> bytes:
    return encode(KuraPayload(metrics=tuple(metric(*each) for each in metrics), body=body))


def reply_topic(app: str, number: int) -> str:
    return f"$EDC/provision/fleetgate/{app}/REPLY/{IDS[number]}"


OK = payload(("response.code", 200))
BUSY = payload(("response.code", 500), ("dp.download.status", "IN_PROGRESS"), body=b"Another resource is in download")


def notify(number: int, kind: str, status: str, **more: str) -> bytes:
    """What a gateway says of the download that request `number` started."""
    metrics = [metric("job.id", download_id(IDS[number]), MetricType.INT64), metric(f"dp.{kind}.status", status)]
    metrics += [metric(name.replace("_", "."), text) for name, text in more.items()]
    return encode(KuraPayload(metrics=tuple(metrics)))


def topics(outgoing: list[Outgoing]) -> list[str]:
    return [each.topic for each in outgoing]


def asked(outgoing: list[Outgoing]) -> KuraPayload:
    (only,) = outgoing
    return decode(only.payload)


def gateway_answers(request: Outgoing, taken: list[str]) -> list[tuple[str, bytes]]:
    """A gateway that takes whatever arrives: reply, and for a package the notices of download and installation."""
    message = decode(request.payload)
    app = request.topic.split("/")[3]
    taken.append(message.text("dp.name") or app)
    answers = [(f"$EDC/provision/fleetgate/{app}/REPLY/{message.text('request.id')}", OK)]
    number = message.integer("job.id")
    if number is not None:
        mark = metric("job.id", number, MetricType.INT64)
        for topic, kind in ((DOWNLOAD, "download"), (INSTALL, "install")):
            status = metric(f"dp.{kind}.status", "COMPLETED")
            answers.append((topic, encode(KuraPayload(metrics=(mark, status)))))
    return answers
