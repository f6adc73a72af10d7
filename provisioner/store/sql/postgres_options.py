"""Where a PostgreSQL is and how long to wait for it. The password goes to libpq in memory and nowhere else."""

from dataclasses import dataclass

from provisioner.model.secret import Secret

# Bounds of every connection. Look-ups read an index also by plans made when the tables were small, and pages read one
# that ends in the id, so that they stop after a page.
_SESSION = {
    "search_path": "public",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "idle_in_transaction_session_timeout": "60s",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresOptions:
    """host: a name, an address or the folder of a socket; several, joined by commas, are tried in turn until one of
    them takes writes. password: None where the server asks for none. sslmode: as libpq has it.
    sslrootcert: PEM file of the certificates to trust, None: those of the system.
    readers_max: connections that read; a process has up to two more, one that writes and one that listens.
    connect_s, statement_s: time-outs. settle_s: how long a commit whose connection broke is asked after.
    """

    host: str = "127.0.0.1"
    port: int = 5432
    database: str = "fleetgate"
    user: str = "fleetgate"
    password: Secret | None = None
    sslmode: str = "prefer"
    sslrootcert: str | None = None
    readers_max: int = 4
    connect_s: int = 3
    statement_s: float = 10.0
    settle_s: float = 30.0

    def __post_init__(self) -> None:
        if not 1 <= self.readers_max <= 100:
            raise ValueError("readers_max must be from 1 to 100")
        # libpq waits for two seconds at least, whatever it is told.
        if self.connect_s < 2 or self.statement_s <= 0 or self.settle_s < 0:
            raise ValueError("time-outs must be positive, and connect_s at least 2")

    @property
    def place(self) -> str:
        """For people: which database this is."""
        return f"PostgreSQL database {self.database} at {self.host}:{self.port}"

    def keywords(self) -> dict[str, str | int]:
        """What libpq connects by. Holds the password: never to be shown."""
        timeouts = {
            "statement_timeout": f"{int(self.statement_s * 1000)}ms",
            "lock_timeout": f"{int(self.statement_s * 500)}ms",
        }
        made: dict[str, str | int] = {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "sslmode": self.sslmode,
            "connect_timeout": self.connect_s,
            # Of several servers one is the first; a standby may be behind, so it is not even read from.
            "target_session_attrs": "read-write" if "," in self.host else "any",
            "application_name": "fleetgate",
            "client_encoding": "UTF8",
            "options": " ".join(f"-c {name}={value}" for name, value in (_SESSION | timeouts).items()),
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
        }
        if self.sslmode.startswith("verify"):
            made["sslrootcert"] = self.sslrootcert or "system"
        if self.password is not None:
            made["password"] = self.password.reveal()
        return made
