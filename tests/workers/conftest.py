"""A catalog with a model of each kind, and a scorer and a reader that need neither weights nor files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from models.batch import Batch, Scores, SpectrumBatch
from service.catalog.engine import open_catalog
from service.catalog.registry import register_model
from service.catalog.rows import ModelRow
from workers.readers.sample import Cutout, Rejection, Spectrum

MODELS = {"spectrum": "sdss@0123456789ab", "cutout": "lens@ba9876543210"}
POISON = -1.0


class FakeScorer:
    """Scores a sample by its first flux; fails on every batch that holds POISON, as a bug would."""

    def __init__(self, model: str) -> None:
        self.id = model
        self.kind = "spectrum" if model == MODELS["spectrum"] else "cutout"
        self.batches: list[int] = []

    def score(self, batch: Batch) -> Scores:
        first = np.array([np.ravel(flux)[0] for flux in batch.flux], float)
        self.batches.append(len(batch))
        if (first == POISON).any():
            msg = "a fault in the model"
            raise RuntimeError(msg)
        if isinstance(batch, SpectrumBatch) and batch.flux.shape[1] < 4:
            msg = f"a spectrum needs 4 pixels, this batch has {batch.flux.shape[1]}"
            raise ValueError(msg)
        n = len(first)
        return Scores(
            elbo=-first,
            log_px=-first,
            log_density=-first,
            chi2=np.ones(n),
            score=first,
            p_value=1 / (1 + first),
            latent=np.zeros((n, 2), np.float32),
            latent_var=np.ones((n, 2), np.float32),
            responsibilities=np.tile(np.float32([0.25, 0.75]), (n, 1)),
            snr=np.full(n, 10.0),
            parts={"density": first},
            windows=[[] for _ in range(n)],
            explanations=[None] * n,
            flags=[{"outside-domain"} if value > 100 else set() for value in first],
        )


def fake_read(path: str) -> Spectrum | Cutout | Rejection:
    """What a path says: ``/spectrum/5``, ``/cutout/5``, ``/short/5``, ``/poison``, ``/bad``."""
    _, what, *value = path.split("/")
    sha256 = hashlib.sha256(path.encode()).hexdigest()
    if what == "bad":
        return Rejection(path, "not a FITS file: look at it", kind="", sha256=sha256)
    number = POISON if what == "poison" else float(value[0])
    if what == "cutout":
        flux = np.full((2, 8, 8), number, np.float32)
        return Cutout(path, "sim", path, sha256, flux, np.ones_like(flux))
    flux = np.full(2 if what == "short" else 5, number, np.float32)
    return Spectrum(
        path, "sim", path, sha256, flux, np.ones_like(flux), flags={"noise-estimated"}, redshift=0.1
    )


@pytest.fixture
def models() -> dict[str, str]:
    return dict(MODELS)


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """A catalog, in SQLite and in PostgreSQL, that knows MODELS."""
    engine = with_models(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = with_models(f"sqlite:///{tmp_path}/catalog.db")
    yield engine
    engine.dispose()


def with_models(url: str) -> sa.Engine:
    engine = open_catalog(url, create=True)
    for kind, model in MODELS.items():
        register_model(engine, ModelRow(model, model.split("@")[0], kind, "/nowhere", 100, 0.01, [0.5, 0.5]))
    return engine


@pytest.fixture
def read() -> Callable[[list[str]], list[Spectrum | Cutout | Rejection]]:
    return lambda paths: [fake_read(path) for path in paths]


@pytest.fixture
def load_scorer() -> Callable[[str], FakeScorer]:
    """Scorers by model id, each made once, so that a test may look at the batches they were given."""
    made: dict[str, FakeScorer] = {}

    def load(model: str) -> FakeScorer:
        return made.setdefault(model, FakeScorer(model))

    return load
