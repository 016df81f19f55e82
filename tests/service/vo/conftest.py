"""A catalog with something in it in each kind of database, and what reads it for the Virtual Observatory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from os import environ
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from service.catalog.engine import open_catalog
from service.catalog.labels import Label, record_labels
from service.catalog.registry import register_model
from service.catalog.rows import ModelRow
from service.catalog.runs import finish_if_complete, open_run
from service.catalog.writer import write_batch
from service.vo.execute import Reader
from tests.conftest import new_postgres
from tests.service.conftest import CUTOUTS, SPECTRA

ODD = "field/7 é <&>"
"""What a careless survey may call an object."""
POSITIONS = [
    (0.0, 90.0), (123.0, -90.0), (0.0, 0.0), (359.9999, 0.0), (0.0001, 0.0), (180.0, 0.0), (45.0, 89.95),
    (225.0, 89.95), (359.5, -30.0), (0.5, -30.0), (10.0, 20.0), (10.0, 20.0),
]  # fmt: skip
"""At the poles, around RA 0, opposite each other, one of them twice."""


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_row: Callable[..., Any]
) -> Iterator[sa.Engine]:
    """A catalog that all these tests share, since they only read it.

    Twelve spectra at POSITIONS, one without a position, a cutout of the same name as a spectrum; labels.
    """
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('vo')}/catalog.db"
        else:
            url = stack.enter_context(new_postgres())
        engine = open_catalog(url, create=True)
        stack.callback(engine.dispose)
        for model, kind in ((SPECTRA, "spectrum"), (CUTOUTS, "cutout")):
            register_model(
                engine, ModelRow(model, model.split("@")[0], kind, "/models", 800, 0.005, [0.5, 0.3, 0.2])
            )
        rows = [make_row(i, ra=ra, dec=dec) for i, (ra, dec) in enumerate(POSITIONS)]
        rows.append(
            make_row(
                12,
                object_id=ODD,
                ra=None,
                dec=None,
                reader_flags={"few-pixels"},
                flags={"edge"},
                redshift=None,
            )
        )
        rows.append(
            make_row(
                3, kind="cutout", survey="hsc", model=CUTOUTS, path="/data/c.fits", parts={"rarity": 1.5}
            )
        )
        run = open_run(engine, "night", "sdss", "2026-03-01", {"spectrum": SPECTRA, "cutout": CUTOUTS})
        write_batch(engine, run, rows, [])
        finish_if_complete(engine, run)
        said = [
            Label(row.object_id, "lens" if i % 2 else "not-lens", "ann") for i, row in enumerate(rows[:5])
        ]
        record_labels(engine, said)
        yield engine


@pytest.fixture(scope="session")
def reader(filled: sa.Engine) -> Iterator[Reader]:
    reader = Reader(filled.url.render_as_string(hide_password=False))
    yield reader
    reader.dispose()


@pytest.fixture(scope="session")
def ask(reader: Reader) -> Callable[[str], list[tuple[Any, ...]]]:
    """The rows of a query."""

    def ask(query: str, maxrec: int = 1000) -> list[tuple[Any, ...]]:
        return reader.run(query, maxrec, 30).rows

    return ask


@pytest.fixture(scope="session")
def apart() -> Callable[[tuple[float, float], tuple[float, float]], float]:
    """Degrees between two positions, by Vincenty's formula."""

    def apart(a: tuple[float, float], b: tuple[float, float]) -> float:
        (ra1, dec1), (ra2, dec2) = np.radians(a), np.radians(b)
        d = ra2 - ra1
        across = np.hypot(
            np.cos(dec2) * np.sin(d), np.cos(dec1) * np.sin(dec2) - np.sin(dec1) * np.cos(dec2) * np.cos(d)
        )
        along = np.sin(dec1) * np.sin(dec2) + np.cos(dec1) * np.cos(dec2) * np.cos(d)
        return float(np.degrees(np.arctan2(across, along)))

    return apart


@pytest.fixture(scope="session")
def stilts() -> str:
    """The command of STILTS, which validates from outside."""
    found = shutil.which("stilts")
    if found is None:
        message = "stilts is not installed; `make test` installs it"
        if environ.get("PECULIAR_TEST_SERVICES") == "required":
            pytest.fail(message)
        pytest.skip(message)
    return found
