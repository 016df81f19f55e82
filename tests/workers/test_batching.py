"""Samples become the arrays that a Scorer takes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.batch import CutoutBatch, SpectrumBatch
from workers import batching
from workers.batching import groups, make_batch, trusted_redshift
from workers.readers.sample import Cutout, Spectrum


def spectrum(n: int, first: int = 35500, **more: object) -> Spectrum:
    flux = np.arange(1, n + 1, dtype=np.float32)
    return Spectrum(f"s{n}", "sim", f"/s{n}", "0" * 64, flux, 2 * flux, first=first, **more)  # type: ignore[arg-type]  # the test names real fields


def cutout(bands: int, size: int) -> Cutout:
    flux = np.full((bands, size, size), bands, np.float32)
    return Cutout(f"c{bands}-{size}", "sim", f"/c{bands}-{size}", "0" * 64, flux, flux)


def test_spectra_are_padded_to_the_longest() -> None:
    batch = make_batch([spectrum(3, first=10, redshift=0.5), spectrum(5, first=20)])
    assert isinstance(batch, SpectrumBatch)
    assert batch.flux.dtype == batch.ivar.dtype == np.float32
    np.testing.assert_array_equal(batch.flux, [[1, 2, 3, 0, 0], [1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(batch.ivar, [[2, 4, 6, 0, 0], [2, 4, 6, 8, 10]])
    np.testing.assert_array_equal(batch.first, [10, 20])
    np.testing.assert_array_equal(batch.redshift, [0.5, math.nan])


def test_cutouts_are_stacked() -> None:
    batch = make_batch([cutout(3, 16), cutout(3, 16)])
    assert isinstance(batch, CutoutBatch)
    assert batch.flux.shape == batch.ivar.shape == (2, 3, 16, 16)


def test_groups_hold_one_kind_and_shape_and_every_sample_once() -> None:
    samples = [spectrum(3), cutout(1, 16), spectrum(4), cutout(3, 16), cutout(1, 32), cutout(1, 16)]
    result = list(groups(samples))
    assert [[member.object_id for member in members] for members in result] == [
        ["s3", "s4"],
        ["c1-16", "c1-16"],
        ["c3-16"],
        ["c1-32"],
    ]


def test_groups_stay_within_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_PIXELS", 2 * 16 * 16)
    assert [len(members) for members in groups([cutout(1, 16)] * 5)] == [2, 2, 1]
    assert [len(members) for members in groups([cutout(1, 64)] * 2)] == [1, 1]


@pytest.mark.parametrize(
    ("zwarning", "flags"),
    [(0, set()), (16, set()), (4, {"zwarning"}), (20, {"zwarning"}), (128, {"zwarning"})],
)
def test_a_doubtful_redshift_is_used_and_flagged(zwarning: int, flags: set[str]) -> None:
    assert trusted_redshift(spectrum(3, redshift=0.7, zwarning=zwarning)) == (0.7, flags)


def test_no_redshift_is_nan() -> None:
    redshift, flags = trusted_redshift(spectrum(3))
    assert math.isnan(redshift)
    assert flags == set()
