"""P9 for the kind that writes nothing for a device: how long a mosquitto stands still when certificates are revoked.

``python -m tests.bench.mosquitto_certificates USERS CONNECTED`` prints the figures as JSON. One in a hundred of the
users is revoked before it begins; then fifty who are not connected are disabled together, several times.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from provisioner.authority.local_ca import LocalAuthority
from provisioner.model.ports import BrokerUser
from tests.bench.mosquitto_users import (
    ACCOUNT,
    BATCH,
    QUIET_S,
    TOLD,
    Probe,
    Stall,
    allow_connections,
    connection,
    shown,
)
from tests.support.mosquitto import MosquittoServer, mosquitto_settings

KIND = "certificate"
REVOKED_PART = 100


def certificate_stall_ms(users: int, connected: int) -> Stall:
    """users: those who are known, ``connected`` of whom are there."""
    allow_connections(connected)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        base = Path(folder)
        authority = _authority(base)
        server = MosquittoServer(mosquitto_settings(KIND, tls=True), base)
        _known_before(server, users, connected)
        stack.enter_context(server)
        papers = [_paper(base, authority, number) for number in range(connected + 1)]
        ca = base / "ca/ca.pem"
        for number, paper in enumerate(papers[:-1]):
            stack.enter_context(connection(server.address, "", f"gw{number}", shown(ca, paper)))
        probe = stack.enter_context(Probe.running(server.address, "", f"gw{connected}", (ca, papers[-1])))
        return asyncio.run(_told(server, users, connected, probe))


async def _told(server: MosquittoServer, users: int, connected: int, probe: Probe) -> Stall:
    broker = server.adapter()
    await broker.start(lambda _: None)
    try:
        await asyncio.sleep(QUIET_S)
        probe.longest_ms()
        await asyncio.sleep(2 * QUIET_S)
        idle, stalls, told = probe.longest_ms(), list[float](), list[float]()
        before = _readings(server)
        for turn in range(TOLD):
            began_s = time.monotonic()
            first = connected + 1 + turn * BATCH
            await asyncio.gather(*(broker.put_user(_user(each, enabled=False)) for each in range(first, first + BATCH)))
            told.append((time.monotonic() - began_s) * 1000)
            await asyncio.sleep(QUIET_S)
            stalls.append(round(probe.longest_ms(), 1))
    finally:
        await broker.stop()
    return Stall(
        kind=KIND,
        users=users,
        connected=connected,
        stall_ms=statistics.median(stalls),
        stalls_ms=stalls,
        idle_ms=round(idle, 1),
        told_ms=round(statistics.median(told), 1),
        batches=TOLD,
        readings=_readings(server) - before,
    )


def _readings(server: MosquittoServer) -> int:
    """As mosquitto's own log has them."""
    return server.log.read_text().count("Reloading config.")


def _authority(base: Path) -> LocalAuthority:
    now = datetime.now(UTC)
    authority = LocalAuthority.create("bench", now)
    certificate, key = authority.server(["localhost", "127.0.0.1"], now)
    written = {"ca/ca.pem": authority.pem, "ca/ca.key": authority.key_pem().reveal()}
    written |= {"tls/server.pem": certificate, "tls/server.key": key.reveal()}
    for name, text in written.items():
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text(text)
    return authority


def _paper(base: Path, authority: LocalAuthority, number: int) -> Path:
    """Certificate and key of a device, in one file."""
    made = authority.with_new_key(f"dev-{number}", ACCOUNT, datetime.now(UTC), f"{ACCOUNT}/gw{number}")
    assert made.private_key is not None
    path = base / f"{number}.pem"
    path.write_text(made.certificate + made.private_key.reveal())
    return path


def _known_before(server: MosquittoServer, users: int, connected: int) -> None:
    """The record of who was given which serial; some are refused since."""
    server.folder.mkdir(parents=True)
    least = connected + 1 + TOLD * BATCH
    lines = (
        [ACCOUNT, f"dev-{n}", f"gw{n}", n < least or n % REVOKED_PART != 0, n + 1, None, [_serial(n)]]
        for n in range(users)
    )
    (server.folder / "certificates.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _serial(number: int) -> str:
    return f"{(1 << 140) + number:x}"


def _user(number: int, *, enabled: bool) -> BrokerUser:
    return BrokerUser(
        account=ACCOUNT,
        username=f"dev-{number}",
        client_id=f"gw{number}",
        verifier="",
        enabled=enabled,
        certificates=(_serial(number),),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("users", type=int)
    parser.add_argument("connected", type=int)
    given = parser.parse_args()
    print(json.dumps(asdict(certificate_stall_ms(given.users, given.connected))))


if __name__ == "__main__":
    main()
