"""What bounds a query: rows, time, and rights."""

from __future__ import annotations

import re
import threading
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.vo.errors import TooSlowError
from service.vo.execute import Reader, Stopper


def test_maxrec_and_top(reader: Reader) -> None:
    query = "SELECT {} score FROM peculiar.scores ORDER BY score"
    for top, maxrec, rows, overflow in (
        ("", 100, 14, False), ("", 14, 14, False), ("", 13, 13, True), ("", 0, 0, True), ("TOP 5", 100, 5, False),
        ("TOP 5", 5, 5, False), ("TOP 5", 4, 4, True), ("TOP 0", 5, 0, False),
    ):  # fmt: skip
        result = reader.run(query.format(top), maxrec, 30)
        assert (len(result.rows), result.overflow) == (rows, overflow), (top, maxrec)


def test_nothing_can_be_written(reader: Reader) -> None:
    for statement in ("DELETE FROM labels", "CREATE TABLE t (a int)", "UPDATE scores SET score = 0"):
        with reader.engine.connect() as connection, pytest.raises(sa.exc.DBAPIError) as error:
            connection.execute(sa.text(statement))
        assert "read" in str(error.value)


def test_the_role_of_the_guide_is_enough(reader: Reader) -> None:
    """As docs/vo.md says to make it."""
    if reader.engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no roles")
    guide = (Path(__file__).parents[3] / "docs" / "vo.md").read_text()
    granted = re.search(r"GRANT SELECT ON (.*) TO peculiar_vo;", guide)
    assert granted is not None
    role, owner = (
        f"vo_{uuid.uuid4().hex[:8]}",
        sa.create_engine(reader.engine.url, isolation_level="AUTOCOMMIT"),
    )
    with owner.connect() as connection:
        connection.execute(sa.text(f"CREATE ROLE {role} LOGIN"))
        connection.execute(sa.text(f"GRANT SELECT ON {granted[1]} TO {role}"))
        limited = Reader(reader.engine.url.set(username=role).render_as_string(hide_password=False))
        try:
            for name in reader.tables():
                limited.run(f"SELECT * FROM {name}", 5, 30)
            with (
                limited.engine.connect() as secret,
                pytest.raises(sa.exc.DBAPIError, match="permission denied"),
            ):
                secret.execute(sa.text("SELECT * FROM api_keys"))
        finally:
            limited.dispose()
            connection.execute(sa.text(f"DROP OWNED BY {role}"))
            connection.execute(sa.text(f"DROP ROLE {role}"))
    owner.dispose()


LONG = "SELECT COUNT(*) FROM " + ", ".join(f"TAP_SCHEMA.columns t{i}" for i in range(10))


def test_a_query_that_takes_too_long_is_ended(reader: Reader) -> None:
    with pytest.raises(TooSlowError, match=r"longer than 0\.2 s"):
        reader.run(LONG, 10, 0.2)
    assert reader.run("SELECT COUNT(*) FROM peculiar.models", 10, 30).rows == [(2,)]


def test_a_query_can_be_stopped(reader: Reader) -> None:
    stopper = Stopper()
    timer = threading.Timer(0.2, stopper.stop)
    timer.start()
    with pytest.raises(TooSlowError, match="stopped"):
        reader.run(LONG, 10, 60, stopper)
    timer.join()
