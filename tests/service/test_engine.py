"""Opening, making and upgrading catalogs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from service.catalog.engine import (
    CatalogError,
    head_revision,
    make_engine,
    open_catalog,
    revision,
    upgrade,
    writing,
)
from service.catalog.schema import metadata, runs


def test_migrations_and_metadata_agree(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_missing_catalog_says_what_to_run_and_leaves_no_file(empty_url: str) -> None:
    with pytest.raises(CatalogError, match="peculiar db upgrade"):
        open_catalog(empty_url)
    if empty_url.startswith("sqlite"):
        assert not Path(sa.make_url(empty_url).database or "").exists()


def test_a_writing_command_makes_the_catalog(empty_url: str) -> None:
    engine = open_catalog(empty_url, create=True)
    assert revision(engine) == head_revision()
    engine.dispose()
    open_catalog(empty_url).dispose()


def test_several_processes_make_one_catalog(empty_url: str) -> None:
    def make(_: int) -> str | None:
        engine = open_catalog(empty_url, create=True)
        found = revision(engine)
        engine.dispose()
        return found

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(make, range(6))) == {head_revision()}


def test_another_schema_says_what_to_run(engine: sa.Engine, catalog_url: str) -> None:
    with writing(engine) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'ffff'"))
    with pytest.raises(CatalogError, match="install a newer one"):
        open_catalog(catalog_url, create=True)


def test_tables_of_others_are_left_alone(empty_url: str) -> None:
    engine = make_engine(empty_url)
    with writing(engine) as connection:
        connection.execute(sa.text("CREATE TABLE theirs (a INTEGER)"))
    with pytest.raises(CatalogError, match="peculiar db upgrade"):
        open_catalog(empty_url, create=True)
    assert sa.inspect(engine).get_table_names() == ["theirs"]
    engine.dispose()


def test_upgrading_twice_changes_nothing(engine: sa.Engine) -> None:
    upgrade(engine)
    assert revision(engine) == head_revision()


def test_a_failed_transaction_leaves_nothing(engine: sa.Engine) -> None:
    with pytest.raises(ZeroDivisionError), writing(engine) as connection:
        connection.execute(sa.text("CREATE TABLE half (a INTEGER)"))
        _ = 1 / 0
    assert "half" not in sa.inspect(engine).get_table_names()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "not a database URL"),
        ("mysql://localhost/x", "SQLite or PostgreSQL"),
        ("postgresql://nobody:secret@127.0.0.1:1/none", "cannot use the catalog"),
        ("sqlite:////no/such/folder/catalog.db", "folder does not exist"),
    ],
)
def test_bad_urls_are_answered_without_the_password(url: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message) as error:
        open_catalog(url, create=True)
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_text("not a database " * 100)
    with pytest.raises(CatalogError, match="file is not a database"):
        open_catalog(f"sqlite:///{path}", create=True)


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    engine = open_catalog(f"sqlite:///{tmp_path / 'catalog.db'}", create=True)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000
    engine.dispose()


def test_instants_come_back_in_utc(engine: sa.Engine, run: int) -> None:
    with engine.connect() as connection:
        started = connection.execute(sa.select(runs.c.started_at)).scalar_one()
    offset = started.utcoffset()
    assert offset is not None and offset.total_seconds() == 0
