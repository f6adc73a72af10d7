"""A real PostgreSQL on the loopback interface, in a folder of its own; a fresh database for each test."""

import asyncio
import itertools
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from provisioner.model.secret import Secret
from provisioner.store.sql.postgres_options import PostgresOptions
from provisioner.store.sql.postgres_store import PostgresStore
from tests.support.papers import Paper
from tests.support.ports import free_ports

START_S_MAX = 30.0
_AUTHENTICATION = ("--auth-local=trust", "--auth-host=scram-sha-256")
ADMIN, OWNER = "postgres", "fleetgate"
TEMPLATE = "migrated"  # what a fresh database is copied from, so that not every test migrates one
# Debian has a folder a version, none of them in the path.
PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), default=Path("none"))


class PostgresServer:
    """durable: flush to the disk as in production. Without that all but a crash of the machine is survived.

    primary: whose standby it is, at the same port of another address."""

    def __init__(self, folder: Path, *, durable: bool = False, primary: "PostgresServer | None" = None) -> None:
        assert PROGRAMS.is_dir(), "postgresql is not installed; scripts/system-packages says how"
        self.folder = folder
        self._durable = durable
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._primary = primary
        self.address = "127.0.0.1" if primary is None else "127.0.0.2"
        self.port = free_ports(1)[0] if primary is None else primary.port
        self._password = secrets.token_hex(16) if primary is None else primary._password
        # It will not run as root, and the user that it runs as must reach its folder.
        self._as_user: list[str | Path] = []
        if os.geteuid() == 0:
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
            shutil.chown(folder, "postgres", "postgres")

    def options(self, database: str, **changes: Any) -> PostgresOptions:
        made = PostgresOptions(
            host=self.address,
            port=self.port,
            database=database,
            user=OWNER,
            password=Secret(self._password),
            sslmode="disable",
        )
        return replace(made, **changes)

    def start(self) -> None:
        """Returns when it takes connections."""
        settings = {
            "listen_addresses": self.address,
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "on" if self._durable else "off",
            "max_connections": 100,
            "shared_buffers": "1GB" if self._durable else "32MB",
            "max_wal_size": "2GB",
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, PROGRAMS / "postgres", "-D", self.folder / "data", *flags], stdout=log, stderr=log
            )
        until_s = time.monotonic() + START_S_MAX
        while True:
            try:
                return self.administer("SELECT 1")
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
                assert time.monotonic() < until_s, "postgres does not start"
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: tidily, connections are cut. SIGQUIT: at once, as after a crash; the next start recovers."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_S_MAX)
            self._process = None

    def administer(self, *statements: LiteralString | sql.Composed, database: str = "postgres") -> None:
        """Run statements as the server's administrator, each in a transaction of its own."""
        with self._admin(database) as connection:
            for statement in statements:
                connection.execute(statement)

    def ask(self, statement: LiteralString, *values: Any, database: str = "postgres") -> list[Any]:
        """The first column of what the statement gives."""
        with self._admin(database) as connection:
            return [row[0] for row in connection.execute(statement, values)]

    def secure(self, paper: Paper) -> None:
        """Restart it so that it shows this certificate to whoever wants TLS."""
        for name, text in (("server.crt", paper.pem), ("server.key", paper.key_pem)):
            path = self.folder / "data" / name
            path.write_text(text)
            path.chmod(0o600)
            shutil.chown(path, self.folder.stat().st_uid)
        self.administer("ALTER SYSTEM SET ssl = on")
        self.stop()
        self.start()

    def empty_database(self) -> str:
        name = f"fresh_{next(self._numbers)}"
        self.administer(_create(name, "template0"))
        return name

    def fresh_database(self) -> str:
        """One that has today's schema."""
        if not self.ask("SELECT 1 FROM pg_database WHERE datname = %s", TEMPLATE):
            self.administer(_create(TEMPLATE, "template0"))
            # A test that asks may have a loop of its own in this thread.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, self._migrate(TEMPLATE)).result()
        name = f"fresh_{next(self._numbers)}"
        self.administer(_create(name, TEMPLATE))
        return name

    def dump(self, database: str) -> str:
        """Its content as SQL that any client can run, without what pg_dump says of itself and of its session."""
        command = ["-h", self.folder, "-p", str(self.port), "-U", ADMIN]
        told = self._run("pg_dump", *command, "--no-owner", "--no-privileges", "--inserts", database)
        lines = re.sub(r"^(--|SET |SELECT pg_catalog\.set_config|\\).*\n", "", told.decode(), flags=re.M)
        return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"

    def cut_connections(self, database: str) -> None:
        """pg_terminate_backend on everything that is connected to it."""
        self.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            database,
        )

    async def _migrate(self, database: str) -> None:
        store = await PostgresStore.open(self.options(database))
        await store.close()

    def _admin(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self.folder), port=self.port, dbname=database, user=ADMIN, autocommit=True, connect_timeout=5
        )

    def initialise(self) -> None:
        """Make the cluster and its one user, or a copy of the primary, and start it."""
        data: list[str | Path] = ["-D", self.folder / "data", "--no-sync"]
        if self._primary is not None:
            source = ["-h", self._primary.folder, "-p", str(self.port), "-U", ADMIN, "-R", "-c", "fast"]
            self._run("pg_basebackup", *data, *source)
            return self.start()
        self._run("initdb", *data, "-U", ADMIN, "-E", "UTF8", "--locale=C.UTF-8", *_AUTHENTICATION)
        self.start()
        password = sql.Literal(self._password)
        return self.administer(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(OWNER), password))

    def wait_for_each_commit(self) -> None:
        """From now on a commit is one only when the standby has it as well."""
        self.administer("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        until_s = time.monotonic() + START_S_MAX
        while self.ask("SELECT sync_state FROM pg_stat_replication") != ["sync"]:
            assert time.monotonic() < until_s, "the standby does not follow"
            time.sleep(0.02)

    def promote(self) -> None:
        """Returns when the standby takes writes; nobody has to have it first."""
        self.ask("SELECT pg_promote()")
        self.administer("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")

    def _run(self, program: str, *arguments: str | Path) -> bytes:
        command = [*self._as_user, PROGRAMS / program, *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout


def _create(name: str, template: str) -> sql.Composed:
    return sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*map(sql.Identifier, (name, template, OWNER)))


@contextmanager
def running_postgres(*, durable: bool = False, primary: PostgresServer | None = None) -> Iterator[PostgresServer]:
    """Nothing is left of it at the end."""
    # Not below pytest's folders, which no other user may enter; and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="fleetgate-pg-"))
    server = PostgresServer(folder, durable=durable, primary=primary)
    try:
        server.initialise()
        yield server
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)
