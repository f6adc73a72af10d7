"""Settings that are wrong: each is told by its path and the rule, and nothing of what was written is shown."""

from pathlib import Path

import pytest

from provisioner import config
from provisioner.model.errors import InvalidInput

CANARY = "Canary-Pass-word1"


def _refusal(folder: Path, text: str, **environment: str) -> str:
    path = folder / "fleetgate.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        config.read(path, environment)
    return str(refused.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("admin: {prot: 1}", "admin.prot: is not a setting; `fleetgate config schema` lists those that are (got int)"),
        ("admin: {port: 70000}", "admin.port: must be less than or equal to 65535 (got int)"),
        ("gate: {listeners: [{tls: true}]}", "gate.listeners.0.port: is required (got dict of 1)"),
        ("key_ring:", "key_ring: must be a path (got nothing)"),
        ("metrics: 17", "metrics: must be a mapping of settings (got int)"),
        ("policy: 17", "policy: must be a mapping of settings (got int)"),
        ("log_level: LOUD", "log_level: must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR' (got text of 4 characters)"),
        ("a: b\ngate: [", "FILE: must be YAML: line 2 is not (got something else)"),
        ("key_ring: 2026-99-99", "FILE: must be YAML with plain values (got something else)"),
        ("[" * 5_000, "FILE: must be YAML with plain values (got something else)"),
        ("- a", "FILE: must hold a mapping of settings (got list of 1)"),
    ],
)
def test_a_wrong_setting_is_told_by_its_path_and_rule(tmp_path: Path, text: str, told: str) -> None:
    """What is no YAML, no setting or no value of it: one message, which says what would be right."""
    assert _refusal(tmp_path, text) == told


def test_a_scope_that_there_is_not_is_refused(tmp_path: Path) -> None:
    """EC-07: a misspelt ``account`` must not silently mean ``platform``."""
    assert "policy.client_id_scope: must be 'platform' or 'account'" in _refusal(
        tmp_path, "policy: {client_id_scope: acount}"
    )


def test_no_setting_silently_takes_the_place_of_another(tmp_path: Path) -> None:
    """A key that stands twice is refused at every depth: of two rules about secrets only one would count."""
    for text in (
        f"key_ring: a\nkey_ring: {CANARY}",
        f"admin:\n  host: {CANARY}\n  host: b",
        "policy: {}\n'policy': {}",
    ):
        told = _refusal(tmp_path, text)
        assert told.startswith("FILE: must name no key twice, as line ")
        assert CANARY not in told


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("FLEETGATE__ADMIN__PORT", "[", "FLEETGATE__ADMIN__PORT: must be YAML: line 1 is not"),
        ("FLEETGATE__ADMIN__PORT", "2026-99-99", "FLEETGATE__ADMIN__PORT: must be YAML with plain values"),
        ("FLEETGATE__ADMIN__PROT", "1", "admin.prot: is not a setting"),
        ("FLEETGATE__LOG_LEVEL__X", "1", "log_level.x: an environment variable can only override plain settings"),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(tmp_path: Path, name: str, text: str, told: str) -> None:
    """An environment variable is judged as the file is."""
    assert _refusal(tmp_path, "log_level: INFO", **{name: text}).startswith(told)
