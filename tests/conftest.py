"""What every test may use: clean settings, the real PostgreSQL and Redis, real survey files.

`make test` starts the two servers and names them in PECULIAR_TEST_POSTGRES (an account that may create
databases) and PECULIAR_TEST_REDIS. Without these variables the tests that need them are skipped, or fail
where PECULIAR_TEST_SERVICES=required.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.settings import Settings

REPOSITORY = Path(__file__).parent.parent
KEPT = ("PECULIAR_TEST_", "PECULIAR_REAL_DATA")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in os.environ:
        if name.upper().startswith("PECULIAR_") and not name.startswith(KEPT):
            monkeypatch.delenv(name)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """SQLite, memory:// and a model folder, all in ``tmp_path``."""
    return Settings(
        _env_file=None,
        database_url=f"sqlite:///{tmp_path}/catalog.db",
        model_dir=tmp_path / "models",
        device="cpu",
    )


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real survey files."""
    folder = Path(os.environ.get("PECULIAR_REAL_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real survey files here: PECULIAR_REAL_DATA names their folder")
    return folder


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """URL of a new, empty PostgreSQL database."""
    with new_postgres() as url:
        yield url


@contextmanager
def new_postgres() -> Iterator[str]:
    """A PostgreSQL database for as long as the block runs; for fixtures that many tests share."""
    import sqlalchemy as sa

    server = sa.make_url(_server("POSTGRES", "a PostgreSQL account that may create databases"))
    address = server.set(drivername="postgresql+psycopg")
    admin = sa.create_engine(address, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
    name = f"peculiar_{uuid.uuid4().hex[:12]}"
    with admin.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    yield admin.url.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    admin.dispose()


@pytest.fixture
def redis_url() -> Iterator[str]:
    """URL of an empty Redis database, emptied again afterwards."""
    import redis

    server = _server("REDIS", "a Redis server").rstrip("/")
    for number in range(1, 16):
        client = redis.Redis.from_url(f"{server}/{number}")
        if client.dbsize() == 0:
            yield f"{server}/{number}"
            client.flushdb()
            client.close()
            return
        client.close()
    pytest.fail(f"all databases of {server} hold something; the tests want an empty one")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind that a catalog may live in."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/catalog.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


def _server(name: str, what: str) -> str:
    variable = f"PECULIAR_TEST_{name}"
    url = os.environ.get(variable)
    if url:
        return url
    message = f"{variable} names no server ({what}); `make test` starts one"
    if os.environ.get("PECULIAR_TEST_SERVICES") == "required":
        pytest.fail(message)
    pytest.skip(message)
