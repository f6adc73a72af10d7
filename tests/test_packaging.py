"""What is shipped and what is tracked: the wheel, the constraints, and nothing that belongs to one machine."""

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.floors import PACKAGES

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
THIS_FILE = Path(__file__).resolve()
BUILD_TIMEOUT_S = 60


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from the tree without a network."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = target.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """Every source of the three packages is in the wheel, and beside them only its own metadata."""
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for pattern in ("*.py", "py.typed")
        for path in (ROOT / package).rglob(pattern)
    }
    assert names == sources
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_wheel_cannot_be_uploaded_by_mistake(wheel: zipfile.ZipFile) -> None:
    """The classifier that makes a public index refuse it is in the metadata."""
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    assert "Classifier: Private :: Do Not Upload" in wheel.read(metadata).decode().splitlines()


@pytest.mark.parametrize(("command", "target"), PROJECT["scripts"].items())
def test_entry_point_exists(command: str, target: str) -> None:
    """A command that the wheel installs starts something that is there."""
    module, _, name = target.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def _constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", line) for line in pinned), "only name==version lines"
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in pinned)}


def _needed() -> set[str]:
    """Canonical names of all that the project needs here, for use and for development, transitively."""
    waiting = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            below = map(Requirement, importlib.metadata.requires(name) or ())
            waiting += [each for each in below if each.marker is None or each.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def test_constraints_name_everything_that_is_installed_for_us() -> None:
    """What runs here is what constraints.txt names, version by version."""
    constraints = _constraints()
    installed = {name: importlib.metadata.version(name) for name in _needed()}
    assert len(installed) > len(PROJECT["dependencies"])
    assert {name: constraints.get(name) for name in installed} == installed


def _files() -> list[Path]:
    """Every file of the repository, and what would be added to it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and path.resolve() != THIS_FILE]


FOREIGN = {
    "a path of one machine": re.compile(r"(?<![\w.~*-])/(?:work|root|home|tmp)/\w"),
    "a package registry": re.compile(r"pypi\.org|pythonhosted|/opt/(?:pypi|wheels)|index-url|registry\.npmjs"),
    "a word of the workplace": re.compile(r"co-authored-by|\bsub-?agents?\b|language model|\bassistant\b", re.I),
}
SECRETS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{16}"),
    "a cloud credential": re.compile(r"\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bxox[bp]-[0-9]{8,}"),
}
SECRET_FILES = ("*.key", "*.p12", "*.pfx", "ring.json", "admins.json", ".env", "*.pem")


@pytest.mark.parametrize("what", [*FOREIGN, *SECRETS])
def test_no_file_holds(what: str) -> None:
    """The repository speaks of itself alone, and no secret is in it."""
    pattern = (FOREIGN | SECRETS)[what]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _files()
        for number, line in _with_next(path.read_bytes().decode("utf-8", "replace"))
        if pattern.search(line)
    ]
    assert found == []


def test_no_file_is_a_secret_by_its_name() -> None:
    """Keys, key rings and credentials of an installation are made there and are never tracked."""
    assert [path for path in _files() for name in SECRET_FILES if path.match(name)] == []


SAMPLES = {
    "a path of one machine": "see /home/anna/fleet.yaml",
    "a package registry": "pip install --index-url x",
    "a word of the workplace": "Co-Authored-By: somebody",
    "a private key": "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIIrYSSNdykfhyyMVrLYZ",
    "a cloud credential": "AKIA" + "A" * 16,
}


@pytest.mark.parametrize("what", [*FOREIGN, *SECRETS])
def test_search_would_find(what: str) -> None:
    """Each pattern finds a planted example of what it looks for."""
    assert any((FOREIGN | SECRETS)[what].search(line) for _, line in _with_next(SAMPLES[what]))


def _with_next(text: str) -> Iterator[tuple[int, str]]:
    """Each line with the one below it, since a key goes on there; and its number."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        yield number, "\n".join(lines[number - 1 : number + 1]) if "BEGIN" in line else line


DECISION_PARTS = ("## Question", "## Choice", "## Why", "## What we gave up")
PAGE_LINES_MAX = 60


def test_decisions_are_numbered_pages() -> None:
    """docs/decisions has one short page a decision: numbered without gaps, each with its four parts."""
    pages = sorted((ROOT / "docs/decisions").iterdir())
    assert pages
    assert [page.name[:5] for page in pages] == [f"{number:04}-" for number in range(1, len(pages) + 1)]
    for page in pages:
        lines = page.read_text("utf-8").splitlines()
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", page.name), page.name
        assert len(lines) <= PAGE_LINES_MAX, page.name
        assert tuple(line for line in lines if line.startswith("## ")) == DECISION_PARTS, page.name


CHANGE_KINDS = ("added", "changed", "fixed", "removed", "security")


def test_change_notes_are_fragments() -> None:
    """docs/changes has one file a change, named by what it is about and its kind."""
    fragments = [page.name for page in (ROOT / "docs/changes").iterdir() if page.name != "README.md"]
    assert fragments
    for name in fragments:
        assert re.fullmatch(rf"[a-z0-9-]+\.({'|'.join(CHANGE_KINDS)})\.md", name), name
