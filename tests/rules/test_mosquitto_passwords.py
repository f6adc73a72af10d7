"""mosquitto's own form of a password digest, files that are replaced whole, and the sign to read them again."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from provisioner.account_brokers.mosquitto_passwords import Reload, digest_matches, password_digest, replace_file
from provisioner.account_brokers.mosquitto_user_files import read_or_make_secret
from provisioner.model.errors import Unavailable
from provisioner.model.secret import Secret

PASSWORD = Secret("Factory-pass-1")


def test_digest_is_checked_by_its_own_figures() -> None:
    """A digest fits its password alone, whatever iterations it was made with, and two of one password differ."""
    one, other = password_digest(PASSWORD), password_digest(PASSWORD, iterations=1_000)
    assert one.startswith("$7$101$") and other.startswith("$7$1000$")
    assert password_digest(PASSWORD) != one
    for digest in (one, other):
        assert digest_matches(digest, PASSWORD)
        assert not digest_matches(digest, Secret("factory-pass-1"))


@pytest.mark.parametrize("digest", ["", "$7$", "$6$101$AAAA$AAAA", "$7$x$AAAA$AAAA", "$7$101$*$AAAA", "plain"])
def test_anything_else_is_no_digest(digest: str) -> None:
    """What is not in the form of mosquitto 2 matches no password, and does not fail."""
    assert not digest_matches(digest, PASSWORD)


def test_mosquitto_makes_the_same_digests(tmp_path: Path) -> None:
    """What mosquitto's own program writes for a password is what ours recognises."""
    file = tmp_path / "passwords"
    file.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(file), "meters", PASSWORD.reveal()], check=True, capture_output=True)
    username, _, digest = file.read_text().strip().partition(":")
    assert username == "meters"
    assert digest_matches(digest, PASSWORD)


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    """The new text is there under the mode that was asked for, and nothing else is left in the folder."""
    path = tmp_path / "acl"
    replace_file(path, "one\n")
    replace_file(path, "two\n", mode=0o600)
    assert path.read_text() == "two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_former_file(tmp_path: Path) -> None:
    """A group that does not exist changes nothing, and leaves no half-written file behind."""
    path = tmp_path / "acl"
    replace_file(path, "one\n")
    with pytest.raises(LookupError):
        replace_file(path, "two\n", group="no-such-group-here")
    assert path.read_text() == "one\n"
    assert list(tmp_path.iterdir()) == [path]


def test_f_42_a_secret_that_could_not_be_kept_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-42: a full disk leaves no half of a password, which would be taken for the whole one later."""
    path = tmp_path / "secret"

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as on_a_full_disk:
        on_a_full_disk.setattr(os, "fsync", full)
        with pytest.raises(Unavailable, match="secret cannot be written"):
            read_or_make_secret(path, PASSWORD)
    assert list(tmp_path.iterdir()) == []
    for fresh in (PASSWORD, Secret("Another-pass-1")):
        assert read_or_make_secret(path, fresh).reveal() == PASSWORD.reveal()


def test_reload_needs_one_way(tmp_path: Path) -> None:
    """A pid file and a command exclude each other, and one of them is needed."""
    with pytest.raises(ValueError, match="exactly one"):
        Reload()
    with pytest.raises(ValueError, match="exactly one"):
        Reload(pid_file=tmp_path / "pid", command=("true",))


def test_reload_by_command(tmp_path: Path) -> None:
    """The command runs; one that fails or is not there makes the broker unavailable."""
    made = tmp_path / "made"
    Reload(command=("touch", str(made)))()
    assert made.exists()
    for command in (("false",), ("no-such-command-here",)):
        with pytest.raises(Unavailable, match="reload command"):
            Reload(command=command)()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are known by name on Linux only")
def test_reload_never_hangs_up_another_process(tmp_path: Path) -> None:
    """A pid file that outlived its mosquitto and names somebody else's process, or nobody, sends no signal."""
    heard: list[int] = []
    former = signal.signal(signal.SIGHUP, lambda number, frame: heard.append(number))
    try:
        for text in (str(os.getpid()), "0", "-1", "text", ""):
            (tmp_path / "pid").write_text(text)
            with pytest.raises(Unavailable, match="pid file"):
                Reload(pid_file=tmp_path / "pid")()
        with pytest.raises(Unavailable, match="pid file"):
            Reload(pid_file=tmp_path / "missing")()
    finally:
        signal.signal(signal.SIGHUP, former)
    assert heard == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process asked for is known on Linux only")
def test_reload_hangs_up_no_mosquitto_that_only_starts(tmp_path: Path) -> None:
    """F-31: until it has asked for the signal it would be ended by it; then it is told."""
    program = shutil.copy(shutil.which("dash") or "/bin/sh", tmp_path / "mosquitto")
    script = "echo up; read go_on; trap 'echo told; exit' HUP; echo ready; while :; do sleep 0.05; done"
    reload = Reload(pid_file=tmp_path / "pid")
    with subprocess.Popen([program, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            (tmp_path / "pid").write_text(str(process.pid))
            assert process.stdout.readline() == "up\n"
            with pytest.raises(Unavailable, match="pid file"):
                reload()
            process.stdin.write("go on\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
            reload()
            assert process.stdout.readline() == "told\n"
        finally:
            process.kill()
