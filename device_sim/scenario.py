"""A scenario: which fleets meet which gate, when, with what faults, and how it should end. A YAML file."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from device_sim.faults import FaultSettings
from device_sim.state import Outcome
from device_sim.timing import Timeouts
from provisioner.model.errors import InvalidInput, Problem, shape
from provisioner.model.names import check_endpoint

FLEET_DEVICES_MAX = 1_000_000

_AsText = BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)
_AsList = BeforeValidator(lambda value: [value] if isinstance(value, str) else value)


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Tls(_Settings):
    """ca: PEM file of the authorities to trust, None takes the system's. The host name is verified in any case."""

    ca: Path | None = None


class Arrival(_Settings):
    """at_once: all at 0. uniform: evenly over over_s. poisson: at random, same mean. burst: in `bursts` groups."""

    pattern: Literal["at_once", "uniform", "poisson", "burst"] = "at_once"
    over_s: Annotated[float, Field(ge=0)] = 0.0
    bursts: Annotated[int, Field(ge=1)] = 5


class FleetSettings(_Settings):
    """Devices of one kind.

    They come from a pattern (count, client_id with {n} or {n:04d}, first) or from devices_file (CSV with a head line,
    or JSON: client_id, and optionally username, password, activation_key; any other column is metadata).
    activation_keys_file: the same with client_id and activation_key. Paths are relative to the scenario's folder.
    stay_s: how long a connected device stays; None: until all are done. csr: it makes a key pair and sends a CSR.
    provisioning: off, devices keep away from the gate; only those that were provisioned before come on line.
    """

    name: str | None = None
    kind: Literal["json", "esf", "kura"] = "json"
    gate: str | None = None
    count: Annotated[int, Field(ge=1, le=FLEET_DEVICES_MAX)] = 1
    client_id: str = "device-{n}"
    first: Annotated[int, Field(ge=0)] = 1
    devices_file: Path | None = None
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    activation_key: SecretStr | None = None
    activation_keys_file: Path | None = None
    provisioning: bool = True
    protocol: Annotated[Literal["3.1.1", "5"], _AsText] = "3.1.1"
    csr: bool = False
    metadata: dict[str, Annotated[str, _AsText]] = {}
    arrival: Arrival = Arrival()
    faults: FaultSettings = FaultSettings()
    timeouts: Timeouts = Timeouts()
    expect: Annotated[tuple[Outcome, ...], _AsList] = (Outcome.CONNECTED,)
    stay_s: Annotated[float | None, Field(ge=0)] = None

    @field_validator("gate")
    @classmethod
    def _check_gate(cls, gate: str | None) -> str | None:
        return gate if gate is None else _checked_url(gate)

    @field_validator("client_id")
    @classmethod
    def _check_pattern(cls, pattern: str) -> str:
        try:
            pattern.format(n=1)
        except (LookupError, ValueError, AttributeError):
            raise ValueError("must be text with {n} as its only field") from None
        return pattern

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file exclude each other")
        if self.activation_key is not None and self.activation_keys_file is not None:
            raise ValueError("activation_key and activation_keys_file exclude each other")
        if self.devices_file is None:
            if self.username is None or (self.password is None and self.password_file is None):
                raise ValueError("username and password_file are needed where there is no devices_file")
            if self.count > 1 and self.client_id.format(n=1) == self.client_id.format(n=2):
                raise ValueError("client_id must contain {n} when count is above 1")
        return self


class Scenario(_Settings):
    """gate: mqtts://host[:port], mqtt, wss or ws. state_dir: where devices remember (None: they do not).
    in_flight_max: devices on their walk at once; the others wait their turn."""

    gate: str
    tls: Tls = Tls()
    provision_account: str = "provision"
    control_prefix: str = "$EDC"
    seed: int = 0
    deadline_s: Annotated[float, Field(gt=0)] = 300.0
    state_dir: Path | None = None
    in_flight_max: Annotated[int, Field(ge=1)] = 200
    fleets: Annotated[tuple[FleetSettings, ...], Field(min_length=1)]

    @field_validator("gate")
    @classmethod
    def _check_gate(cls, gate: str) -> str:
        return _checked_url(gate)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [self.name_of(at) for at in range(len(self.fleets))]
        if len(set(names)) != len(names):
            raise ValueError("two fleets have the same name")
        return self

    def name_of(self, at: int) -> str:
        """Of the fleet at that place."""
        return self.fleets[at].name or f"{self.fleets[at].kind}-{at + 1}"


def load(path: Path) -> Scenario:
    """Raises InvalidInput that lists every broken rule, OSError when the file cannot be read."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, a date that is none
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "the file"
        raise InvalidInput([Problem(where, "must be YAML in UTF-8", type(error).__name__)]) from None
    return parse(content)


def parse(content: Any) -> Scenario:
    """From plain values; raises InvalidInput."""
    try:
        return Scenario.model_validate(content)
    except ValidationError as error:
        raise InvalidInput(
            Problem(
                ".".join(map(str, each["loc"])) or "scenario",
                each["msg"].removeprefix("Value error, "),
                shape(each.get("input")),
            )
            for each in error.errors(include_url=False, include_context=False)
        ) from None


def _checked_url(url: str) -> str:
    for rule in check_endpoint(url):
        raise ValueError(rule)
    return url
