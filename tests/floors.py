"""Reads the sources of the three packages and names every breach of the tree's rules; tests/test_floors.py runs it.

The rules are the floor table of docs/architecture.md. A source is only parsed, never imported, so that a planted
one can be judged as well.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

PACKAGES = ("broker", "provisioner", "device_sim")
FILE_LINES_MAX = 350
FUNCTION_LINES_MAX = 40

# The longest matching prefix counts.
FLOORS = {
    "provisioner": 0,
    "provisioner.model": 0,
    "provisioner.model.coupling": 1,
    "provisioner.model.decision": 1,
    "provisioner.model.device_config": 1,
    "provisioner.model.draft": 1,
    "provisioner.model.ports": 1,
    "provisioner.dialects": 1,
    "provisioner.mqtt_client": 1,
    "provisioner.store": 2,
    "provisioner.account_brokers": 2,
    "provisioner.product_clouds": 2,
    "provisioner.authority": 2,
    "provisioner.vault": 2,
    "provisioner.link": 2,
    "provisioner.services": 3,
    "provisioner.doors": 4,
    "provisioner.broker_part": 5,
    "provisioner.broker_settings": 5,
    "provisioner.callback_settings": 5,
    "provisioner.callback_render": 5,
    "provisioner.callback_setup": 5,
    "provisioner.brokers": 5,
    "provisioner.config": 5,
    "provisioner.fronts": 5,
    "provisioner.gate_setup": 5,
    "provisioner.many_gates": 5,
    "provisioner.mosquitto_setup": 5,
    "provisioner.named_files": 5,
    "provisioner.own_certificate": 5,
    "provisioner.link_front": 5,
    "provisioner.link_settings": 5,
    "provisioner.links": 5,
    "provisioner.link_check": 5,
    "provisioner.store_settings": 5,
    "provisioner.stores": 5,
    "provisioner.store_places": 5,
    "provisioner.watching": 5,
    "provisioner.workers": 5,
    "provisioner.app": 5,
}
# One outside thing each: on this floor no package knows another one.
SIDE_BY_SIDE = 2
KNOW_THE_BROKER = (
    "provisioner.brokers",
    "provisioner.callback_render",
    "provisioner.mosquitto_setup",
    "provisioner.fronts",
    "provisioner.gate_setup",
    "provisioner.many_gates",
    "provisioner.own_certificate",
    "provisioner.app",
)
SIMULATOR_MAY_USE = ("device_sim", "provisioner.dialects", "provisioner.model")
# A door may reach the top floor from inside a function only: the command line starts without it.
TOP_FLOOR_FROM = ("provisioner.doors",)

PURE = (
    "broker.access",
    "broker.decoding",
    "broker.encoding",
    "broker.fields",
    "broker.limits",
    "broker.packet_bodies",
    "broker.packets",
    "broker.properties",
    "broker.reason_codes",
    "broker.roster",
    "broker.session",
    "broker.session_clock",
    "broker.session_connect",
    "broker.session_events",
    "broker.session_inbox",
    "broker.session_outbox",
    "broker.session_output",
    "broker.session_served",
    "broker.session_settings",
    "broker.session_state",
    "broker.subscriptions",
    "provisioner.model",
    "provisioner.dialects",
)
# fmt: off
IMPURE_MODULES = frozenset((
    "asyncio", "fcntl", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "shutil",
    "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "uuid",
))
# fmt: on
IMPURE_CALLS = frozenset(("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "open", "input", "print"))
# Paths as values: a PurePath can neither look at a disk nor change one.
PURE_NAMES = frozenset(("pathlib.PurePath", "pathlib.PurePosixPath"))
STDLIB_ONLY = ("provisioner.model",)
# What one file alone may import, so that it can be exchanged there.
CONFINED = {
    "amqtt": "broker.embedded",
    "tinydb": "provisioner.store",
    "sqlalchemy": "provisioner.store.sql",
    "alembic": "provisioner.store.sql",
    "psycopg": "provisioner.store.sql",
    "defusedxml": "provisioner.dialects",
}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module or name, dotted. lazy: in a function or for types alone, so nothing happens at import."""

    name: str
    line: int
    lazy: bool


def sources(root: Path) -> dict[str, str]:
    """Module name -> source text, of everything in the three packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text("utf-8")
    return found


def breaches(modules: Mapping[str, str]) -> list[str]:
    """``module:line: what is wrong``, for each breach in these sources, in order."""
    return [f"{name}:{line}: {text}" for name, source in modules.items() for line, text in _of_module(name, source)]


def _of_module(name: str, source: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(source)
    yield from _too_long(source, tree)
    imports = list(_imports(tree))
    for each in imports:
        yield from ((each.line, text) for text in _wrong_import(name, each))
    if _within(name, PURE):
        yield from ((each.line, f"pure, but imports {each.name}") for each in imports if _is_impure(each.name))
        yield from _impure_calls(tree)


def _too_long(source: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    lines = source.count("\n")
    if lines > FILE_LINES_MAX:
        yield lines, f"the file has {lines} lines, {FILE_LINES_MAX} are allowed"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield node.lineno, f"{node.name} has {length} lines, {FUNCTION_LINES_MAX} are allowed"


def _imports(tree: ast.Module) -> Iterator[Import]:
    lazy_lines = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types(node)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, node.lineno in lazy_lines) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from (Import(f"{base}.{alias.name}", node.lineno, node.lineno in lazy_lines) for alias in node.names)


def _is_for_types(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _wrong_import(name: str, each: Import) -> Iterator[str]:
    package, target = name.split(".")[0], each.name.split(".")[0]
    if target == "":
        yield "imports are absolute, so that a reader sees the floor"
    elif target == "tests":
        yield f"imports {each.name}: the packages know nothing of the tests"
    elif target == "broker" and package != "broker" and name not in KNOW_THE_BROKER:
        yield f"imports {each.name}: only {' and '.join(KNOW_THE_BROKER)} know the gate"
    elif target in PACKAGES and package == "broker" and target != "broker":
        yield f"imports {each.name}: the gate knows nothing of what stands behind it"
    elif target in PACKAGES and package == "device_sim" and not _within(each.name, SIMULATOR_MAY_USE):
        yield f"imports {each.name}: the simulator uses {', '.join(SIMULATOR_MAY_USE[1:])} only"
    elif target == "provisioner" and package == "provisioner":
        yield from _wrong_floor(name, each)
    elif target == "device_sim" and package != "device_sim":
        yield f"imports {each.name}: no product code knows the simulator"
    elif target in CONFINED and not _within(name, (CONFINED[target],)):
        yield f"imports {target}: confined to {CONFINED[target]}"
    if _within(name, STDLIB_ONLY) and target not in sys.stdlib_module_names and target not in PACKAGES:
        yield f"imports {target}: this floor is written with the standard library alone"


def _wrong_floor(name: str, each: Import) -> Iterator[str]:
    own, other = floor(name), floor(each.name)
    if own is None or other is None:
        yield f"{name if own is None else each.name} has no floor yet: enter it in the table"
    elif other > own and not (each.lazy and _within(name, TOP_FLOOR_FROM)):
        yield f"imports {each.name}: floor {other} is above floor {own}"
    elif own == other == SIDE_BY_SIDE and name.split(".")[1] != each.name.split(".")[1]:
        yield f"imports {each.name}: the parts of floor {own} do not know each other"


def floor(name: str) -> int | None:
    """Of a module or of a name in one; None when the table does not know its package."""
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        if (found := FLOORS.get(".".join(parts[:length]))) is not None:
            return found
    return FLOORS.get(name)


def _impure_calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ".".join(ast.unparse(node.func).split(".")[-2:])
            if called in IMPURE_CALLS:
                yield node.lineno, f"pure, but calls {called}"


def _is_impure(imported: str) -> bool:
    return imported.split(".")[0] in IMPURE_MODULES and imported not in PURE_NAMES


def _within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)
