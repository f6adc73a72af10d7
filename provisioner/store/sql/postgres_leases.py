"""Leases in a table of PostgreSQL, by the server's clock. A name keeps its row for good: its numbers only grow."""

from provisioner.store.sql.postgres_reads import PostgresReads

_ACQUIRE = """
    INSERT INTO lease AS held (name, holder, fence, until)
    VALUES (%(name)s, %(holder)s, 1, clock_timestamp() + make_interval(secs => %(seconds)s))
    ON CONFLICT (name) DO UPDATE SET
        holder = excluded.holder,
        fence = held.fence + CASE WHEN held.until > clock_timestamp() THEN 0 ELSE 1 END,
        until = excluded.until
    WHERE held.holder = excluded.holder OR held.until <= clock_timestamp()
    RETURNING fence
"""
_RENEW = """
    UPDATE lease SET until = clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE name = %(name)s AND fence = %(fence)s AND until > clock_timestamp()
    RETURNING fence
"""
_RELEASE = "UPDATE lease SET until = '-infinity' WHERE name = %(name)s AND fence = %(fence)s"


class PostgresLeases:
    def __init__(self, reads: PostgresReads) -> None:
        self._reads = reads

    async def acquire(self, name: str, holder: str, seconds: float) -> int | None:
        found = await self._reads.ask(_ACQUIRE, {"name": name, "holder": holder, "seconds": seconds})
        return int(found[0][0]) if found else None

    async def renew(self, name: str, fence: int, seconds: float) -> bool:
        return bool(await self._reads.ask(_RENEW, {"name": name, "fence": fence, "seconds": seconds}))

    async def release(self, name: str, fence: int) -> None:
        await self._reads.ask(_RELEASE, {"name": name, "fence": fence})
