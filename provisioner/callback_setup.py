"""Builds an account broker that asks us over HTTP from its settings."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

from provisioner.account_brokers.callback_emqx import Emqx
from provisioner.account_brokers.callback_mosquitto import MosquittoHttp
from provisioner.account_brokers.callback_rabbitmq import RabbitMq
from provisioner.account_brokers.callback_values import CallbackFormat
from provisioner.account_brokers.callback_vernemq import VerneMq
from provisioner.account_brokers.http_callback import HttpCallbackBroker
from provisioner.account_brokers.http_client import ManagementClient
from provisioner.account_brokers.http_server import Handler, HttpServer
from provisioner.account_brokers.management import EmqxManagement, Management, RabbitManagement
from provisioner.account_brokers.mosquitto_check import Check
from provisioner.account_brokers.mosquitto_user_files import read_or_make_secret
from provisioner.account_brokers.user_book import Verify
from provisioner.callback_settings import HttpCallbackSettings, ManagementSettings
from provisioner.model.errors import Unavailable
from provisioner.model.secret import Secret
from provisioner.vault import generate


def callback_broker(
    each: HttpCallbackSettings,
    base: Path,
    tls: ssl.SSLContext | None,
    verify: Verify,
    control_prefix: str,
    *,
    shared_port: bool = False,
) -> HttpCallbackBroker:
    """Not started. Makes the secret when there is none. Raises Unavailable.

    tls: what the endpoint shows, its own to change. control_prefix: of the devices' second topic space.
    shared_port: other workers have the endpoint as well."""
    if tls is not None and each.client_ca is not None:
        tls.load_verify_locations(cafile=base / each.client_ca)
        tls.verify_mode = ssl.CERT_REQUIRED

    def serve(handler: Handler) -> HttpServer:
        return HttpServer(each.callback_host, each.callback_port, handler, tls, shared_port=shared_port)

    secret = None if each.client_ca else read_or_make_secret(base / each.secret_file, generate.password())
    return HttpCallbackBroker(
        each.name,
        _format(each),
        serve,
        verify,
        lambda: datetime.now(UTC),
        secret=secret,
        management=_management(each, each.management, base) if each.management else None,
        control_prefix=control_prefix,
    )


async def look_at(each: HttpCallbackSettings, base: Path) -> list[Check]:
    """Whether our endpoint answers who proves itself, and nobody else, and whether devices can be cut."""
    checks = []
    if not each.callback_tls:
        url, stranger = f"http://{each.callback_host}:{each.callback_port}", generate.password()
        own = read_or_make_secret(base / each.secret_file, stranger)
        for name, secret, expected in (("endpoint", own, 400), ("stranger", stranger, 401)):
            checks.append(await _look_at_endpoint(name, ManagementClient((url,), each.name, secret), expected))
    if each.management is not None:
        try:
            await _management(each, each.management, base).reach()
            checks.append(Check("management", True, "connections can be looked for and cut"))
        except Unavailable as error:
            checks.append(Check("management", False, str(error)))
    return checks


async def _look_at_endpoint(name: str, client: ManagementClient, expected: int) -> Check:
    try:
        status = (await client.ask("POST", "/check")).status
    except Unavailable:
        return Check(name, False, "the service does not answer; does it run with these settings?")
    return Check(name, status == expected, f"answered with status {status}, {expected} is right")


def _format(each: HttpCallbackSettings) -> CallbackFormat:
    match each.product:
        case "rabbitmq":
            return RabbitMq(vhost=each.vhost)
        case "emqx":
            return Emqx(renew_s=each.renew_s)
        case "vernemq":
            return VerneMq(cache_s=each.cache_s)
        case "mosquitto":
            return MosquittoHttp()


def _management(each: HttpCallbackSettings, given: ManagementSettings, base: Path) -> Management:
    try:
        password = (base / given.password).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(f"{base / given.password} cannot be read: {type(error).__name__}") from None
    context = ssl.create_default_context(cafile=base / given.ca) if given.ca else None
    client = ManagementClient(given.urls, given.username, Secret(password), context)
    return RabbitManagement(client) if each.product == "rabbitmq" else EmqxManagement(client)
