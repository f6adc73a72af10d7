"""docs/device-protocol.md says what the dialects do: its test vectors are read from the page and tried."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from provisioner.dialects.esf import Esf, EsfSettings
from provisioner.dialects.json_v1 import JsonV1, encode
from provisioner.model.messages import Answer, Malformed, ProvisionMessage, Status
from provisioner.model.policy import Policy

PAGE = (Path(__file__).resolve().parents[2] / "docs/device-protocol.md").read_text("utf-8")
VECTORS = re.findall(r"^\| `([\[{].*)` \| (.+) \|$", PAGE, re.M)
CLIENT_ID = "gw-1"


@pytest.mark.parametrize(("payload", "outcome"), VECTORS)
def test_json_vector(payload: str, outcome: str) -> None:
    """Each message of the page is understood, or refused in the words of the page (EC-34)."""
    incoming = JsonV1().decode(CLIENT_ID, f"prov/v1/{CLIENT_ID}/request", payload.encode(), "fresh")
    if outcome == "a provision message":
        assert isinstance(incoming, ProvisionMessage)
    else:
        assert isinstance(incoming, Malformed)
        assert incoming.detail == outcome


def test_json_answer() -> None:
    """The refusal of the page is what goes out, byte by byte."""
    (expected,) = re.findall(r"^```json\n(.*)\n```$", PAGE, re.M)
    at = datetime(2030, 1, 31, 8, tzinfo=UTC)
    assert encode(Answer(status=Status.REFUSED, message_id="first-try", server_time=at)).decode() == expected


def test_kura_vector() -> None:
    """The PROV message of the page asks what the page says that it asks."""
    (text,) = re.findall(r"^```hex\n(.*?)^```$", PAGE, re.M | re.S)
    topic = f"$EDC/provision/{CLIENT_ID}/MQTT/PROV"
    incoming = Esf(EsfSettings()).decode(CLIENT_ID, topic, bytes.fromhex(text), "fresh")
    assert isinstance(incoming, ProvisionMessage)
    assert incoming.message_id == "first-try"
    assert incoming.device == {"serial_number": "0017"}
    key = incoming.activation_key
    assert key is not None
    assert key.reveal() == "7Q2MZX-0D4KRT-H8WV6B-3N9YCF-5AEJPS"


def test_every_status_has_a_row() -> None:
    """The page tells what to do on each status, and on no other."""
    rows = re.findall(r"^\| `([a-z_]+)` \| ", PAGE, re.M)
    assert sorted(rows) == sorted(Status)


def test_vectors_are_read() -> None:
    """A page that cannot be read would prove nothing."""
    assert len(VECTORS) == 9
    numbers = {5: "Five", 10: "ten"}
    policy = Policy()
    assert f"{numbers[policy.key_failures_backoff]} wrong activation keys" in PAGE
    assert f"{numbers[policy.key_failures_lock]} lock the request" in PAGE
