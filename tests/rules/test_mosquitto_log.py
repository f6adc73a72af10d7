"""What mosquitto says of connections, read without believing what devices say of themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.account_brokers.mosquitto_log import Arrived, Left, read_notice

# What a client id may be at all [MQTT-1.5.4-2]; mosquitto refuses control characters.
CLIENT_IDS = st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=200)
USERNAMES = st.from_regex(r"[A-Za-z0-9_-]{3,40}", fullmatch=True)


def arrival(client_id: str, username: str, address: str = "192.0.2.7:40111") -> bytes:
    return f"1795311180: New client connected from {address} as {client_id} (p2, c1, k60, u'{username}').".encode()


@given(CLIENT_IDS, USERNAMES)
def test_an_arrival_is_read_whatever_the_client_id(client_id: str, username: str) -> None:
    """The client id is what stands between, and the user the one that mosquitto wrote last."""
    assert read_notice(arrival(client_id, username)) == Arrived("192.0.2.7", client_id, username)


@given(CLIENT_IDS)
def test_no_client_id_makes_an_arrival_of_another_line(client_id: str) -> None:
    """A client id that quotes an arrival, in a line that says something else, is no arrival."""
    quoted = arrival(client_id, "victim").decode().removeprefix("1795311180: ")
    for line in (
        f"1795311180: Client {quoted} disconnected, not authorised.",
        f"1795311180: Client {quoted} closed its connection.",
        f"1795311180: {client_id} 1 {quoted}",
        f"1795311180: {quoted} disconnected.",
    ):
        assert not isinstance(read_notice(line.encode()), Arrived)


def test_a_client_id_that_ends_like_an_arrival_speaks_for_nobody_else() -> None:
    """The user that counts is the last one in the line: what comes before it is the client id's own text."""
    read = read_notice(arrival("gw1 (p2, c1, k60, u'victim').", "thief"))
    assert read == Arrived("192.0.2.7", "gw1 (p2, c1, k60, u'victim').", "thief")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "::1:40111", "2001:db8::7:65535"])
def test_addresses_of_both_families(address: str) -> None:
    """The port is cut off, the address is left as it is."""
    assert read_notice(arrival("gw1", "user-1", address)) == Arrived(address.rpartition(":")[0], "gw1", "user-1")


@pytest.mark.parametrize(
    ("ending", "lost"),
    [
        ("disconnected.", False),
        ("closed its connection.", True),
        ("has exceeded timeout, disconnecting.", True),
        ("been disconnected by administrative action.", False),
    ],
)
@given(client_id=CLIENT_IDS)
def test_a_departure_is_read(ending: str, lost: bool, client_id: str) -> None:
    """Every way to leave, of whatever client id; without a DISCONNECT the Will is due."""
    assert read_notice(f"1795311180: Client {client_id} {ending}".encode()) == Left(client_id, lost)


@pytest.mark.parametrize(
    "line",
    [
        b"1795311180: Client gw1 disconnected, not authorised.",
        b"1795311180: New connection from 127.0.0.1:40000 on port 1883.",
        b"1795311180: New client connected from 127.0.0.1:1 as gw1 (p2, c1, k60).",
        b"1795311180: New client connected from 127.0.0.1:1 as gw1 (p2, c1, k60, u'us",
        b"New client connected from 127.0.0.1:1 as gw1 (p2, c1, k60, u'user-1'). And more.",
        b"\xff\xfe",
        b"",
    ],
)
def test_every_other_line_is_nothing(line: bytes) -> None:
    """A refused stranger of that client id, an anonymous client, a line that was cut off: nobody came or left."""
    assert read_notice(line) is None
