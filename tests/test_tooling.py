"""The Makefile and the script behind `make test` keep their promises."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
RECIPE_LINES_MAX = 3
SCRIPT = ROOT / "scripts/system-packages"
SCRIPT_TIMEOUT_S = 20
PACKAGES = {
    *("build-essential", "faketime", "haproxy", "libnginx-mod-stream", "mosquitto", "mosquitto-clients"),
    *("nginx", "postgresql", "prometheus", "rabbitmq-server", "testssl.sh"),
}
PROGRAMS = (
    *("mosquitto", "mosquitto_passwd", "mosquitto_pub", "mosquitto_sub", "mosquitto_rr"),
    *("faketime", "rabbitmq-server", "epmd", "initdb", "haproxy", "promtool", "testssl", "cc"),
    *("nginx", "ngx_stream_module.so"),
)


def test_every_target_is_described() -> None:
    """`make` alone lists each target that is not a file."""
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
    done = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == phony.split()
    assert all(len(line.split()) > 1 for line in done.stdout.splitlines())


def test_recipes_are_short() -> None:
    """What takes more than three lines belongs in a script."""
    recipes = re.findall(r"^[a-z./]+:[^=\n]*\n((?:\t.*\n)*)", MAKEFILE, re.M)
    assert len(recipes) > 5
    assert max(recipe.count("\n") for recipe in recipes) <= RECIPE_LINES_MAX


def test_what_runs_for_every_change_is_make_test() -> None:
    """Nothing is checked elsewhere that `make test` does not check here."""
    lines = (ROOT / ".ci/run").read_text("utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == ['cd "$(dirname "$0")/.." && exec make test']


class Host:
    """A machine whose only programs are those in one folder: the shell's needs, and what a test adds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        for name in ("bash", "sh", "env", "sort", "cat", "mkdir"):
            found = shutil.which(name)
            assert found, name
            (folder / name).symlink_to(found)

    def add(self, name: str, script: str) -> None:
        program = self.folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.log}\n{script}\n')
        program.chmod(0o755)

    def run(self) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.folder), "DAEMON_FOLDERS": ""}
        return subprocess.run(
            [self.folder / "bash", SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            timeout=SCRIPT_TIMEOUT_S,
            check=False,
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    # The machine of the test may have these where the script looks besides the path.
    host.add("tee", "cat > /dev/null")
    host.add("chmod", "")
    host.add("rm", "")
    return host


def test_missing_packages_are_named(host: Host) -> None:
    """Who may not install is told exactly what is missing, and the tests do not begin."""
    host.add("id", "echo 1000")
    done = host.run()
    assert done.returncode == 1
    assert set(re.findall(r"apt-get install (.*)$", done.stderr, re.M)[0].split()) == PACKAGES


def test_missing_packages_are_installed(host: Host) -> None:
    """Who may install gets them, and nothing is asked."""
    host.add("id", "echo 0")
    stubs = "\n".join(f"printf '#!/bin/sh\\n' > {host.folder}/{name}" for name in PROGRAMS)
    modes = "\n".join(f"{shutil.which('chmod')} 755 {host.folder}/{name}" for name in PROGRAMS)
    host.add("apt-get", f'if [ "$1" = install ]; then\n{stubs}\n{modes}\nfi')
    done = host.run()
    assert done.returncode == 0, done.stderr
    (install,) = [line for line in host.log.read_text().splitlines() if line.startswith("apt-get install")]
    assert set(install.split()) > PACKAGES
    assert "-y" in install.split()


def test_failed_installation_is_told(host: Host) -> None:
    """When apt-get cannot, the missing packages are named as if nobody had tried."""
    host.add("id", "echo 0")
    host.add("apt-get", "exit 100")
    done = host.run()
    assert done.returncode == 1
    assert f"missing Debian packages: {' '.join(sorted(PACKAGES))}" in done.stderr


def test_nothing_is_done_when_all_is_there(host: Host) -> None:
    """A machine that has everything is left alone, root or not."""
    for name in ("id", "apt-get", *PROGRAMS):
        host.add(name, "exit 1")
    assert host.run().returncode == 0
    assert not host.log.exists()
