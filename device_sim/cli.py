"""device-sim: a simulated fleet, or one simulated device, against any gate.

Exit status: 0 every device ended as expected, 1 some did not, 2 usage, 6 invalid input, 8 no device reached the gate.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
import uvloop
from rich.console import Console

from device_sim.actions import Log
from device_sim.fleet import Fleet, Observer
from device_sim.report import Report
from device_sim.scenario import Scenario, load, parse
from device_sim.state import AccountSettings, Outcome
from provisioner.model.errors import InvalidInput

FAILED, INVALID_INPUT, UNREACHABLE = 1, 6, 8
DESCRIPTORS_MAX = 65_536
SECONDS = click.FloatRange(min=0, min_open=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Simulated devices that pass through a gate: factory, provisioning, reconfigured, connected.

    \b
    Examples:
      device-sim run fleet.yaml --json report.json
      device-sim one --gate mqtts://gate:8883 --ca ca.pem --client-id m-1 --username meters --password-file pw.txt
    """


def main() -> None:
    cli()


@cli.command()
@click.argument("scenario", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "json_file", type=click.File("w"), help="Write the report there as JSON; - for stdout.")
@click.option("--deadline", type=SECONDS, metavar="S", help="Seconds; overrides deadline_s of the scenario.")
@click.option("-v", "--verbose", is_flag=True, help="Every event of every device on stderr.")
def run(scenario: Path, json_file: Any, deadline: float | None, verbose: bool) -> None:
    """Run the fleets of SCENARIO, a YAML file, and report how they ended.

    \b
    Examples:
      device-sim run fleet.yaml
      device-sim run fleet.yaml --deadline 60 --json - | jq .expectations_met
    """
    try:
        plan = load(scenario)
        if deadline is not None:
            plan = plan.model_copy(update={"deadline_s": deadline})
        report, _ = _run(plan, scenario.parent, _on_stderr if verbose else _on_nothing)
    except (InvalidInput, OSError) as error:
        _refuse(error)
    _show(report, json_file)
    sys.exit(_status(report))


@cli.command()
@click.option("--gate", required=True, metavar="URL", help="mqtts://host:port, mqtt, wss or ws.")
@click.option("--ca", type=click.Path(path_type=Path), help="PEM file of the authorities to trust.")
@click.option("--client-id", required=True)
@click.option("--username", required=True)
@click.option("--password-file", required=True, type=click.File(), help="- for stdin.")
@click.option("--activation-key-file", type=click.File(), help="- for stdin.")
@click.option("--kind", type=click.Choice(["json", "esf", "kura"]), default="json", show_default=True)
@click.option("--protocol", type=click.Choice(["3.1.1", "5"]), default="3.1.1", show_default=True)
@click.option("--account", default="provision", show_default=True, help="Provision account, for esf and kura.")
@click.option("--csr", is_flag=True, help="Make a key pair and ask for a certificate.")
@click.option(
    "--provisioning/--no-provisioning", default=True, show_default=True, help="The switch on the device; off, it waits."
)
@click.option("--state-dir", type=click.Path(path_type=Path), help="Where the device remembers over a reboot.")
@click.option("--deadline", type=SECONDS, default=60.0, show_default=True, metavar="S")
@click.option("--json", "json_file", type=click.File("w"), help="Write the report there as JSON; - for stdout.")
def one(password_file: Any, activation_key_file: Any, json_file: Any, **given: Any) -> None:
    """Send one device through the gate; its events go to stderr.

    \b
    Examples:
      device-sim one --gate mqtt://localhost:1883 --client-id m-1 --username meters --password-file pw.txt
      device-sim one --gate mqtts://gate:8883 --ca ca.pem --client-id gw-1 --username site --password-file - --kind kura
    """
    try:
        plan = _one_device(given, _secret(password_file), _secret(activation_key_file))
        report, settings = _run(plan, Path(), _on_stderr)
    except (InvalidInput, OSError) as error:
        _refuse(error)
    if settings is not None and json_file is None:
        for name in ("account", "broker_url", "client_id", "username", "device_id", "packages"):
            click.echo(f"{name}: {getattr(settings, name)}")
    _show(report, json_file)
    sys.exit(_status(report))


def _one_device(given: dict[str, Any], password: str | None, activation_key: str | None) -> Scenario:
    # A client id is text, braces included, and no pattern.
    client_id = given["client_id"].replace("{", "{{").replace("}", "}}")
    fleet = {name: given[name] for name in ("username", "kind", "protocol", "csr", "provisioning")}
    fleet |= {"client_id": client_id, "password": password, "activation_key": activation_key, "name": "one"}
    return parse(
        {
            "gate": given["gate"],
            "tls": {"ca": given["ca"]},
            "provision_account": given["account"],
            "deadline_s": given["deadline"],
            "state_dir": given["state_dir"],
            "fleets": [fleet],
        }
    )


def _secret(file: Any) -> str | None:
    return None if file is None else str(file.read()).rstrip("\r\n")


def _run(plan: Scenario, folder: Path, observe: Observer) -> tuple[Report, AccountSettings | None]:
    """The report, and what the first device of the first fleet was given."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    fleet = Fleet(plan, folder, observe)
    report = uvloop.run(fleet.run())
    return report, fleet.runners[0][0].device.state.settings


def _on_stderr(client_id: str, log: Log) -> None:
    click.echo(f"{client_id} {log.event} {log.detail}".rstrip(), err=True)


def _on_nothing(client_id: str, log: Log) -> None:
    return


def _show(report: Report, json_file: Any) -> None:
    if json_file is not None:
        json_file.write(json.dumps(report.as_plain(), indent=2) + "\n")
    if json_file is None or json_file.name != "<stdout>":
        report.print(Console())


def _status(report: Report) -> int:
    if report.is_met:
        return 0
    return UNREACHABLE if set(report.outcomes()) == {Outcome.UNREACHABLE} else FAILED


def _refuse(error: InvalidInput | OSError) -> NoReturn:
    problems = error.problems if isinstance(error, InvalidInput) else [error]
    for problem in problems:
        click.echo(f"device-sim: {problem}", err=True)
    sys.exit(INVALID_INPUT)
