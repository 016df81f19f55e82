"""An empty catalog in each kind of database, and rows to put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from models.explanation import Explanation, SpectralWindow
from service.catalog.engine import make_engine, open_catalog
from service.catalog.registry import register_model
from service.catalog.rows import ModelRow, ScoredRow
from service.catalog.runs import open_run

SPECTRA = "sdss@0123456789ab"
CUTOUTS = "lens@ba9876543210"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables, one for each test."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalog.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def catalog_url(empty_url: str) -> str:
    """The URL of a catalog that holds nothing yet."""
    open_catalog(empty_url, create=True).dispose()
    return empty_url


@pytest.fixture
def engine(catalog_url: str) -> Iterator[sa.Engine]:
    engine = make_engine(catalog_url)
    yield engine
    engine.dispose()


@pytest.fixture
def models(engine: sa.Engine) -> dict[str, str]:
    """A registered model of each kind: model id by kind."""
    for model_id, kind in ((SPECTRA, "spectrum"), (CUTOUTS, "cutout")):
        register_model(
            engine,
            ModelRow(
                id=model_id,
                name=model_id.split("@")[0],
                kind=kind,
                path=f"/models/{model_id}",
                n_training=800,
                smallest_p=0.005,
                cluster_weights=[0.5, 0.3, 0.2],
                held_out={"auroc": 0.9},
            ),
        )
    return {"spectrum": SPECTRA, "cutout": CUTOUTS}


@pytest.fixture
def run(engine: sa.Engine, models: dict[str, str]) -> int:
    return open_run(engine, "sdss/2026-03-01/both", "sdss", "2026-03-01", models)


@pytest.fixture(scope="session")
def packed() -> bytes:
    """The explanation of a spectrum, as the catalog keeps it."""
    flux = np.linspace(1, 2, 50, dtype=np.float32)[None]
    windows = [SpectralWindow(9.3, 4860.1, 4866.4, "Hβ")]
    return Explanation(flux, flux, 0 * flux, windows, {"misfit": 1.0}, loglam=(3.68, 4e-4)).to_bytes()


@pytest.fixture(scope="session")
def make_row() -> Callable[..., ScoredRow]:
    """Makes the i-th of a series of scored spectra, each a little more anomalous than the one before."""

    def make(i: int, **changes: Any) -> ScoredRow:
        values: dict[str, Any] = {
            "kind": "spectrum",
            "survey": "sdss",
            "object_id": f"0266-51602-{i:04d}",
            "path": f"/data/spec-0266-51602-{i:04d}.fits",
            "sha256": f"{i:064x}",
            "ra": 10.0 + i,
            "dec": -5.0 + i / 10,
            "night": "2026-03-01",
            "redshift": 0.1,
            "spectral_class": "GALAXY",
            "zwarning": 0,
            "reader_flags": set(),
            "model": SPECTRA,
            "elbo": -100.0 - i,
            "log_px": -99.0 - i,
            "log_density": -5.0 - i,
            "chi2": 1.0 + i / 100,
            "score": float(i),
            "p_value": 1.0 / (i + 1),
            "cluster": i % 3,
            "cluster_probability": 0.8,
            "snr": 12.0,
            "flags": set(),
            "parts": {"chi2_tail": float(i), "chi2_tail_p": 0.5},
            "latent": np.array([i, 2 * i], dtype=np.float32),
            "latent_var": np.ones(2, dtype=np.float32),
            "responsibilities": np.roll(np.array([0.8, 0.2, 0.0], dtype=np.float32), i % 3),
        }
        return ScoredRow(**(values | changes))

    return make
