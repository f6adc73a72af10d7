"""The blocking client of the administrators' door: whose answer is whose, and when there is none."""

import json
from typing import Any

import pytest

from provisioner.doors.control_client import ControlClient, Refused, Unreachable
from provisioner.model.secret import Secret

CANARY = "Canary-Pass-word1"


class Published:
    """Stands for the connection: what was published, and what the service answers to it."""

    def __init__(self, client: ControlClient, *answers: dict[str, Any] | None) -> None:
        """answers: None is the end of the connection; an answer without an id takes that of the question."""
        self.sent: list[dict[str, Any]] = []
        self._client, self._answers = client, answers

    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        question = json.loads(payload)
        self.sent.append(question)
        for answer in self._answers:
            self._client._arrived.put(None if answer is None else json.dumps({"id": question["id"], **answer}).encode())


def client_that_hears(*answers: dict[str, Any] | None) -> tuple[ControlClient, Published]:
    client = ControlClient("gate.example", 8885, "ada", Secret(CANARY), timeout_s=0.05)
    published = Published(client, *answers)
    client._client = published  # type: ignore[assignment]  # a connection without a network
    return client, published


def test_answer_of_an_earlier_question_is_passed_over() -> None:
    """An answer that came too late for its own question is not taken for another one's."""
    client, _ = client_that_hears({"id": "earlier", "ok": True, "result": 1}, {"ok": True, "result": 2})
    assert client.ask("status") == 2


def test_answer_to_an_envelope_that_was_none_is_ours() -> None:
    """The service cannot repeat an id that it could not read; that answer ends the question."""
    error = {"kind": "usage", "message": "the message must be UTF-8", "problems": []}
    client, _ = client_that_hears({"id": None, "ok": False, "error": error})
    with pytest.raises(Refused, match="must be UTF-8") as caught:
        client.ask("status")
    assert caught.value.kind == "usage"


def test_connection_that_ends_or_stays_silent_is_unreachable() -> None:
    """Without an answer it is told whether the connection ended or the time did."""
    client, _ = client_that_hears(None)
    with pytest.raises(Unreachable, match=r"gate\.example:8885 ended the connection"):
        client.ask("status")
    client, _ = client_that_hears()
    with pytest.raises(Unreachable, match=r"gate\.example:8885 did not answer within 0\.05 s"):
        client.ask("status")


def test_parameters_that_are_none_are_left_out() -> None:
    """What was not given is not sent, so that it is not taken for a value."""
    client, published = client_that_hears({"ok": True, "result": {}})
    client.ask("device.show", id="gw1", account=None)
    assert published.sent[0]["params"] == {"id": "gw1"}


def test_message_larger_than_the_service_takes_is_not_sent() -> None:
    """The limit that the service announced is told, instead of a connection that it would cut."""
    client, published = client_that_hears()
    client._packet_bytes_max = 200
    with pytest.raises(Refused, match="at most 200 bytes"):
        client.ask("request.create", fields={"configuration": {"p": {"a": "x" * 200}}})
    assert published.sent == []


def test_f39_credential_is_in_no_text_of_the_client() -> None:
    """F-39: neither the client's own text nor its errors show the credential."""
    client, _ = client_that_hears(None)
    with pytest.raises(Unreachable) as caught:
        client.ask("status")
    assert CANARY not in f"{client!r} {vars(client)} {caught.value!r}"
