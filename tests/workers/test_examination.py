"""A file that somebody sends: read, scored, explained, and why it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.catalog.rows import RejectedRow, ScoredRow
from tests.workers.conftest import MODELS, FakeScorer
from workers.examination import Examiner, ModelMissingError
from workers.simulate import simulate


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("files")
    return {
        kind: next(simulate(kind, 1, folder / kind, 1).parent.rglob("*.fits")).read_bytes() for kind in MODELS
    }


class Explaining(FakeScorer):
    def score(self, batch: object, explained_p: float = 0.05) -> object:  # type: ignore[override]
        assert explained_p > 1, "everything is to be explained"
        return super().score(batch)  # type: ignore[arg-type]


def test_files_are_scored_by_the_model_of_their_kind(files: dict[str, bytes]) -> None:
    loaded: list[str] = []

    def load(model: str) -> FakeScorer:
        loaded.append(model)
        return Explaining(model)

    examine = Examiner(load)  # type: ignore[arg-type]
    assert loaded == []
    for _ in range(2):
        for kind, content in files.items():
            row = examine(content, "mine.fits", MODELS)
            assert isinstance(row, ScoredRow)
            assert (row.kind, row.model, row.path) == (kind, MODELS[kind], "mine.fits")
    assert sorted(loaded) == sorted(MODELS.values()), "each once"


def test_bad_files_have_reasons(files: dict[str, bytes]) -> None:
    examine = Examiner(Explaining)  # type: ignore[arg-type]
    bad = {
        b"": "empty file",
        b"GIF89a": "not a FITS file",
        b"\x89HDF\r\n\x1a\n": "not a FITS file",
        files["cutout"][:4000]: "truncated",
        b"\x1f\x8b" + bytes(100): "gzip",
    }
    for content, words in bad.items():
        row = examine(content, "x.fits", MODELS)
        assert isinstance(row, RejectedRow) and words in row.reason, row
    refused = examine(files["cutout"], "x.fits", {"spectrum": MODELS["spectrum"]})
    assert isinstance(refused, RejectedRow) and "no cutout model" in refused.reason


def test_a_model_that_does_not_take_it_or_is_not_there(files: dict[str, bytes]) -> None:
    class Picky(FakeScorer):
        def score(self, batch: object, explained_p: float = 0.05) -> object:  # type: ignore[override]
            raise ValueError("the model takes 3 bands")

    row = Examiner(Picky)(files["cutout"], "x.fits", MODELS)  # type: ignore[arg-type]
    assert isinstance(row, RejectedRow)
    assert "does not fit the model" in row.reason and row.detail == "the model takes 3 bands"

    def missing(model: str) -> FakeScorer:
        raise FileNotFoundError(f"no bundle {model}")

    with pytest.raises(ModelMissingError, match="no bundle lens@"):
        Examiner(missing)(files["cutout"], "x.fits", MODELS)  # type: ignore[arg-type]


def test_what_is_read_from_memory_is_what_is_read_from_disk(files: dict[str, bytes], tmp_path: Path) -> None:
    from workers.readers import read, read_content

    for kind, content in files.items():
        path = tmp_path / f"{kind}.fits"
        path.write_bytes(content)
        there, here = read(path), read_content(str(path), content)
        assert (there.path, there.sha256, there.kind) == (here.path, here.sha256, here.kind)
