"""An operator's catalog outlives upgrades and disasters: no row is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from service.catalog import engine as catalog
from service.catalog.registry import models_in_force
from service.catalog.schema import metadata
from service.catalog.writer import write_batch

WHEN = datetime(2026, 3, 1, 16, tzinfo=UTC)
OLD, NEW, CUTOUT = "sdss@0123456789ab", "sdss@ffffffffffff", "lens@ba9876543210"


def rows_of(engine: sa.Engine, names: list[str] | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """All rows by table, as far as the columns of the database go."""
    found = sa.MetaData()
    found.reflect(engine)
    with engine.connect() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(sa.select(*wanted(table, names)))), key=repr)
            for table in found.sorted_tables
        }


def wanted(table: sa.Table, leave_out: list[str] | None) -> list[sa.Column[Any]]:
    return [column for column in table.columns if f"{table.name}.{column.name}" not in (leave_out or [])]


def first_schema(url: str) -> sa.Engine:
    """A catalog of the first release, with rows."""
    engine = catalog.make_engine(url)
    with catalog.writing(engine) as connection:
        config = catalog._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        tables = sa.MetaData()
        tables.reflect(connection)

        def put(table: str, /, **values: Any) -> None:
            connection.execute(sa.insert(tables.tables[table]).values(values))

        for day, (model, kind) in enumerate(((OLD, "spectrum"), (NEW, "spectrum"), (CUTOUT, "cutout")), 1):
            put(
                "models", id=model, name=model.split("@")[0], kind=kind, path="/m", n_training=1, held_out={},
                domain={}, smallest_p=0.01, created_at=datetime(2026, 1, day, tzinfo=UTC),
            )  # fmt: skip
        put("objects", kind="spectrum", survey="sdss", object_id="0266-51602-0031", ra=1.0, dec=2.0)
        put(
            "observations", object_id=1, path="/data/a.fits", sha256="0", kind="spectrum", first_seen=WHEN,
            night="2026-03-01", spectral_class="", zwarning=0, reader_flags="", duplicate=False, superseded=False,
        )  # fmt: skip
        put("runs", key="k", survey="all", night="2026-03-01", models={"spectrum": NEW}, started_at=WHEN)
        for path, status in (("/data/a.fits", "scored"), ("/data/b.fits", "queued")):
            put("run_inputs", run_id=1, path=path, status=status, attempts=1)
        put(
            "scores", observation_id=1, model_id=NEW, run_id=1, scored_at=WHEN, elbo=-1.0, log_px=-1.0, chi2=1.0,
            log_density=-1.0, score=2.0, p_value=0.01, cluster=0, cluster_probability=1.0, snr=9.0, flags="",
            parts={}, windows=[],
        )  # fmt: skip
        put("labels", object_id=1, label="lens", by="ann", created_at=WHEN)
    return engine


def test_an_upgrade_keeps_every_row_and_what_scores(empty_url: str) -> None:
    engine = first_schema(empty_url)
    before = rows_of(engine)
    with pytest.raises(catalog.CatalogError, match="peculiar db upgrade"):
        catalog.open_catalog(empty_url)
    catalog.upgrade(engine)
    after = rows_of(engine, ["models.reference", "run_inputs.in_hand"])
    assert {name: after[name] for name in before if name != "alembic_version"} == {
        name: rows for name, rows in before.items() if name != "alembic_version"
    }
    # The newest of each kind scored until now, and goes on doing so.
    assert models_in_force(engine) == {"spectrum": NEW, "cutout": CUTOUT}
    assert catalog.revision(engine) == catalog.head_revision()


def test_a_night_that_was_under_way_is_finished_after_the_upgrade(empty_url: str, make_row: Any) -> None:
    from service.catalog.attempts import recover
    from service.catalog.runs import finish_if_complete

    engine = first_schema(empty_url)
    catalog.upgrade(engine)
    assert recover(engine, 1) == ["/data/b.fits"]
    write_batch(engine, 1, [make_row(1, path="/data/b.fits", model=NEW)], [])
    assert finish_if_complete(engine, 1)


def test_a_downgrade_goes_back(empty_url: str) -> None:
    engine = first_schema(empty_url)
    before = rows_of(engine)
    catalog.upgrade(engine)
    with catalog.writing(engine) as connection:
        config = catalog._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    assert rows_of(engine) == before


def test_a_dump_restores_the_whole_catalog(postgres_url: str, tmp_path: Path, make_row: Any) -> None:
    dump, restore = program("pg_dump"), program("pg_restore")
    engine = first_schema(postgres_url)
    catalog.upgrade(engine)
    write_batch(engine, 1, [make_row(i, model=NEW) for i in range(20)], [])
    before = rows_of(engine)
    address = libpq(engine.url)
    file = tmp_path / "catalog.dump"
    run(dump, "--format=custom", f"--file={file}", f"--dbname={address}")
    metadata.drop_all(engine)  # the disaster
    run(restore, "--clean", "--if-exists", "--no-owner", "--exit-on-error", f"--dbname={address}", str(file))
    engine.dispose()
    again = catalog.open_catalog(postgres_url)
    assert rows_of(again) == before
    write_batch(again, 1, [make_row(99, model=NEW)], [])  # the numbering of rows goes on, too
    again.dispose()


def libpq(url: sa.URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def program(name: str) -> str:
    """PostgreSQL's client programs, of the newest version that is installed."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda home: int(home.parent.name))
    places = os.pathsep.join([*map(str, reversed(homes)), os.environ.get("PATH", "")])
    found = shutil.which(name, path=places)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
