"""The PostgreSQL store against a trivial model, seen by two processes in turn, with connections cut at any moment."""

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from provisioner.model.errors import Unavailable
from provisioner.model.ports import Unit
from provisioner.store.sql.postgres_store import PostgresStore
from tests.contracts.store_machine import Draft, StoreMachine, drafts, outcomes, thorough
from tests.support.postgres import PostgresServer


class PostgresMachine(StoreMachine):
    server: PostgresServer  # set by the test

    def prepare(self) -> None:
        self.database = self.server.fresh_database()
        self.other = self.run(self.open())

    async def open(self) -> PostgresStore:
        return await PostgresStore.open(self.server.options(self.database))

    @rule()
    def see_it_from_the_other_process(self) -> None:
        """What one process committed the other one has before it."""
        self.store, self.other = self.other, self.store  # type: ignore[assignment]  # both are what open() gives

    @rule()
    def cut(self) -> None:
        """Nobody notices that every connection was cut while nothing was going on."""
        self.server.cut_connections(self.database)

    @rule(several=st.lists(drafts, min_size=1, max_size=4), after_ms=st.floats(0, 4))
    def cut_during_commits(self, several: list[Draft], after_ms: float) -> None:
        """Commits whose connection is cut become what they would have become, once; or nothing, and say so."""
        units = [self.unit(draft, self.model) for draft in several]

        async def both() -> list[Any]:
            committing = asyncio.ensure_future(outcomes(self.store, units))
            await asyncio.sleep(after_ms / 1000)
            await asyncio.to_thread(self.server.cut_connections, self.database)
            told = await committing
            # One whose new connection was cut as well asks again in a moment.
            while Unavailable in await outcomes(self.store, [Unit()]):  # noqa: ASYNC110  # another process decides it
                await asyncio.sleep(0.01)
            return told

        for unit, outcome in zip(units, self.run(both()), strict=True):
            if outcome is not Unavailable:
                assert outcome == self.model.commit(unit)

    def teardown(self) -> None:
        self.run(self.other.close())
        super().teardown()


def test_postgres_agrees_with_the_model(postgres: PostgresServer) -> None:
    """Committed, refused, closed, seen by another process, cut off in the middle: both agree."""
    PostgresMachine.server = postgres
    run_state_machine_as_test(PostgresMachine, settings=thorough(PostgresMachine, examples=12).settings)
