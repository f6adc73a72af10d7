"""Certificates of a grant: one a key, kept over retries, and a key of ours only where the account allows it."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from provisioner.dialects.json_v1 import encode
from provisioner.model.messages import Delivery, Status
from tests.services.world import ADA, AUTHORITY, World, a_csr, in_world

KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(delivery: Delivery) -> x509.Certificate:
    assert delivery.certificate is not None
    return x509.load_pem_x509_certificate(delivery.certificate.encode())


async def mode(world: World, name: str) -> None:
    await world.accounts.update(ADA, "acme", {"certificates": name})


@pytest.mark.parametrize(
    ("certificates", "csr", "has_certificate", "has_key"),
    [
        ("off", False, False, False),
        ("off", True, False, False),
        ("csr", False, False, False),
        ("csr", True, True, False),
        ("server-key", False, True, True),
        ("server-key", True, True, False),
    ],
)
@in_world
async def test_which_answers_carry_a_certificate(
    world: World, certificates: str, csr: bool, has_certificate: bool, has_key: bool
) -> None:
    """ID-08: by the account's mode and whether the device made its own key; the registry knows the serial."""
    await mode(world, certificates)
    delivery = await world.granted(await world.request(), csr=a_csr() if csr else None)
    assert (delivery.certificate is not None, delivery.private_key is not None) == (has_certificate, has_key)
    assert (delivery.ca, delivery.renew_after is not None) == (
        AUTHORITY.pem if has_certificate else None,
        has_certificate,
    )
    serial = (await world.device()).certificate_serial
    assert serial == (f"{certificate(delivery).serial_number:x}" if has_certificate else None)


@in_world
async def test_one_key_has_one_certificate(world: World) -> None:
    """D7, F-15: the same key gets the same certificate, be it in the same message, another or another CSR."""
    await mode(world, "csr")
    made = await world.request()
    first = await world.ask(made, "m1", csr=a_csr(KEY))
    again = await world.ask(made, "m1", csr=a_csr(KEY))
    assert first is not None
    assert again is not None
    assert encode(first) == encode(again)
    second = await world.granted(made, "m2", csr=a_csr(KEY))
    assert first.delivery is not None
    assert second.certificate == first.delivery.certificate
    assert second.renew_after == first.delivery.renew_after
    grant = (await world.stored(made)).grant
    assert grant is not None
    assert grant.certificate_serial == f"{certificate(second).serial_number:x}"


@in_world
async def test_a_new_key_has_a_new_certificate(world: World) -> None:
    """D7: a device that made another key is given another certificate, and the same user and password."""
    await mode(world, "csr")
    made = await world.request()
    first, second = await world.granted(made, "m1", csr=a_csr(KEY)), await world.granted(made, "m2", csr=a_csr())
    assert certificate(first).public_key() == KEY.public_key()
    assert certificate(second).public_key() != KEY.public_key()
    assert certificate(first).serial_number != certificate(second).serial_number
    assert (first.username, first.password) == (second.username, second.password)


@in_world
async def test_a_key_of_ours_is_kept_over_retries(world: World) -> None:
    """D7: another message, the same key and certificate."""
    await mode(world, "server-key")
    made = await world.request()
    first, second = await world.granted(made, "m1"), await world.granted(made, "m2")
    assert (first.certificate, first.private_key) == (second.certificate, second.private_key)
    assert first.private_key is not None
    key = load_pem_private_key(first.private_key.reveal().encode(), None)
    assert certificate(first).public_key() == key.public_key()


@in_world
async def test_who_sends_no_csr_is_given_a_key_that_fits(world: World) -> None:
    """ID-08: a device that lost its key and asks without a CSR is not left with a certificate for the lost one."""
    await mode(world, "server-key")
    made = await world.request()
    await world.granted(made, "m1", csr=a_csr(KEY))
    second = await world.granted(made, "m2")
    assert second.private_key is not None
    key = load_pem_private_key(second.private_key.reveal().encode(), None)
    assert certificate(second).public_key() == key.public_key()
    third = await world.granted(made, "m3", csr=a_csr(KEY))
    assert certificate(third).public_key() == KEY.public_key()
    assert third.private_key is None


@pytest.mark.parametrize("csr", ["", "Canary-7f3a", a_csr().replace("M", "N", 1)])
@in_world
async def test_a_bad_csr_is_malformed_and_consumes_nothing(world: World, csr: str) -> None:
    """EC-34, F-46: the field and the rule are told, nothing is made, and a good one succeeds after it."""
    await mode(world, "csr")
    made = await world.request()
    answer = await world.ask(made, csr=csr)
    assert answer is not None
    assert answer.status is Status.MALFORMED
    assert answer.detail == "csr: must be a PEM PKCS#10 request"
    assert (await world.stored(made)).attempts == 0
    assert world.broker.known == {}
    assert await world.status(made, csr=a_csr()) is Status.PROVISIONED


@in_world
async def test_a_csr_that_nobody_wants_is_not_even_read(world: World) -> None:
    """ID-08: where certificates are off, a bad CSR does not stand in the way."""
    assert await world.status(await world.request(), csr="not a CSR") is Status.PROVISIONED
