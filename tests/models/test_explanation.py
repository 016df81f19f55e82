"""An explanation keeps in a few bytes what a picture needs."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.explain import explain
from models.explanation import LARGEST_RESIDUAL, Explanation, ImageWindow, SpectralWindow
from models.scorer import EXPLAINED_P, Scorer

WINDOWS: dict[str, Any] = {
    "spectrum": [SpectralWindow(9.3, 4860.1, 4866.4, "Hβ")],
    "cutout": [ImageWindow(-5.0, "i", 31, 12, 4, 19.5, 315.0)],
}


def made_up(kind: str, seed: int = 0) -> Explanation:
    rng = np.random.default_rng(seed)
    image, grid = ((1, 900), (1, 900)) if kind == "spectrum" else ((2, 40, 40), (2, 20, 20))
    flux = rng.normal(5, 2, image).astype(np.float32)
    flux[0, 7] = np.nan
    residual = rng.normal(0, 6, grid).astype(np.float32)
    residual[0, 3] = 0
    return Explanation(
        flux,
        rng.normal(5, 1, grid).astype(np.float32),
        residual,
        WINDOWS[kind],
        {"misfit": 0.7, "window": 0.3},
        loglam=(3.5, 4e-4) if kind == "spectrum" else None,
        bands=() if kind == "spectrum" else ("g", "i"),
    )


@pytest.mark.parametrize("kind", WINDOWS)
def test_there_and_back(kind: str) -> None:
    before = made_up(kind)
    after = Explanation.from_bytes(before.to_bytes())
    for name in ("windows", "shares", "loglam", "bands"):
        assert getattr(after, name) == getattr(before, name)
    clipped = np.clip(before.residual, -LARGEST_RESIDUAL, LARGEST_RESIDUAL)
    assert after.residual == pytest.approx(clipped, abs=0.05)
    assert not after.residual[before.residual == 0].any()
    assert (np.isnan(after.flux) == np.isnan(before.flux)).all()
    for channel, kept, expected, kept_expected in zip(
        before.flux, after.flux, before.expected, after.expected, strict=True
    ):
        low, high = np.nanmin(kept), np.nanmax(kept)
        for true, found in ((channel, kept), (expected, kept_expected)):
            error = np.abs(np.clip(true, low, high) - found)
            assert np.nanmax(error) <= (high - low) / 250


def test_the_grid_is_the_models(scorers: dict[str, Scorer], spectra: Any) -> None:
    explanation = explain(scorers["small"], spectra(1, 4))
    assert explanation.wavelength == pytest.approx(scorers["small"].preprocessing.wavelength)  # type: ignore[union-attr]  # of spectra
    with pytest.raises(ValueError, match="no wavelengths"):
        _ = made_up("cutout").wavelength


@pytest.mark.parametrize("kind", WINDOWS)
def test_outliers_are_explained_by_their_score(kind: str, scorers: dict[str, Scorer], draw: Any) -> None:
    """Some normal objects and some with far too much light; the explanation is that of the object alone."""
    batch = draw(kind, 30, 8)
    batch.flux[::3, ..., ::7] *= 5
    scores = scorers[kind].score(batch)
    assert [e is not None for e in scores.explanations] == (scores.p_value <= EXPLAINED_P).tolist()
    i = int(scores.score.argmax())
    kept = Explanation.from_bytes(scores.explanations[i] or b"")
    alone = type(batch)(**{name: getattr(batch, name)[i : i + 1] for name in batch.__slots__})
    again = explain(scorers[kind], alone)
    assert [window["significance"] for window in scores.windows[i]] == [w.significance for w in kept.windows]
    assert kept.residual == pytest.approx(again.residual, abs=0.1)
    assert kept.shares == pytest.approx(again.shares, rel=1e-4)


@pytest.mark.parametrize("kind", WINDOWS)
def test_nothing_measured_can_be_kept(kind: str) -> None:
    full = made_up(kind)
    empty = Explanation(
        np.full_like(full.flux, np.nan), full.expected, 0 * full.residual, [], {}, full.loglam, full.bands
    )
    kept = Explanation.from_bytes(empty.to_bytes())
    assert np.isnan(kept.flux).all() and np.isfinite(kept.expected).all() and not kept.residual.any()


def damaged() -> list[bytes]:
    good = made_up("spectrum").to_bytes()
    text, _, body = zlib.decompress(good).partition(b"\n")
    header = json.loads(text)
    changes: list[dict[str, Any]] = [
        {"shapes": [[1, 9]] * 3}, {"shapes": 3}, {"limits": []}, {"limits": [[0]]}, {"windows": [{"x": 1}]},
        {"shares": 1}, {"loglam": [1]}, {"bands": None}, {"shapes": [[-1, -900]] * 3}, {"windows": None},
    ]  # fmt: skip
    others = [json.dumps(header | change).encode() + b"\n" + body for change in changes]
    return [b"", b"?", good[:-5], *map(zlib.compress, (b"", b"{}\n", b"[]\n", b"\xff\n", *others))]


@pytest.mark.parametrize("data", damaged())
def test_damaged_bytes_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="no explanation of an object"):
        Explanation.from_bytes(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="no explanation of an object"):
        Explanation.from_bytes(zlib.compress(data))
