"""What workers have in hand, so that an input that ends their process is known by it.

A worker takes an input up under the id of the message that brought it, before it touches the file. When the
same message comes back and the input is still queued and in hand under it, the process that held it has
died: that counts as an attempt. The writer counts the attempt that ends with a result.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from service.catalog.engine import CatalogError, writing
from service.catalog.schema import clean, run_inputs, runs
from service.catalog.statements import insert_into, rows_as_json


def take_up(engine: sa.Engine, run_id: int, paths: Sequence[str], message: str) -> dict[str, int]:
    """Those of a message's paths that are still queued, with the number of processes that died with each.

    Those with whom none has died are in hand from now on; the others have to be taken up by ``take_alone``.
    Paths that the run has not met join it. Raises CatalogError where there is no such run.
    """
    given = {clean(path): path for path in paths}
    with writing(engine) as connection:
        if connection.scalar(sa.select(runs.c.id).where(runs.c.id == run_id)) is None:
            raise CatalogError(f"there is no run {run_id} in the catalog")
        # Sorted, as the writer's rows are, so that two workers do not wait for each other in a circle.
        table = rows_as_json(connection, [[path] for path in sorted(given)])
        values = (sa.literal(run_id), table.c.c0, sa.literal("queued"), sa.literal(0), sa.literal(message))
        names = ["run_id", "path", "status", "attempts", "in_hand"]
        # SQLite takes ON CONFLICT for part of a join unless there is a WHERE.
        chosen = sa.select(*values).where(sa.true()).order_by(table.c.c0)
        statement = insert_into(connection, run_inputs).from_select(names, chosen)
        old = run_inputs.c
        died = old.in_hand.is_not_distinct_from(message)
        statement = statement.on_conflict_do_update(
            index_elements=["run_id", "path"],
            set_={
                "attempts": old.attempts + sa.case((died, 1), else_=0),
                "in_hand": sa.case((died | (old.attempts > 0), None), else_=message),
            },
            where=old.status == "queued",
        ).returning(old.path, old.attempts)
        left = {row.path: row.attempts for row in connection.execute(statement)}
    return {given[path]: left[path] for path in sorted(left)}


def take_alone(engine: sa.Engine, run_id: int, path: str, message: str) -> None:
    """Note that a worker begins on this input, and on no other."""
    mine = (run_inputs.c.run_id == run_id, run_inputs.c.path == path)
    with writing(engine) as connection:
        connection.execute(sa.update(run_inputs).where(*mine).values(in_hand=message))


def put_down(engine: sa.Engine, run_id: int, message: str) -> None:
    """Nothing of this message is in hand any more, and no process has died of it."""
    mine = (run_inputs.c.run_id == run_id, run_inputs.c.status == "queued", run_inputs.c.in_hand == message)
    with writing(engine) as connection:
        connection.execute(sa.update(run_inputs).where(*mine).values(in_hand=None))


def recover(engine: sa.Engine, run_id: int) -> list[str]:
    """The queued inputs of a run that no message carries any more, such as after the broker lost them all.

    Whoever had one in hand has died: that counts as an attempt, as it does when the message comes back.
    """
    mine = (run_inputs.c.run_id == run_id, run_inputs.c.status == "queued")
    with writing(engine) as connection:
        died = sa.update(run_inputs).where(*mine, run_inputs.c.in_hand.is_not(None))
        connection.execute(died.values(in_hand=None, attempts=run_inputs.c.attempts + 1))
        wanted = sa.select(run_inputs.c.path).where(*mine).order_by(run_inputs.c.path)
        return list(connection.scalars(wanted))
