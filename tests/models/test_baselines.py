"""The baselines run on whatever the model takes, and find what is easy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models.baselines import baseline_scores
from models.cutouts import CutoutPreprocessing
from models.prepared import Prepared
from models.spectra import SpectrumPreprocessing

NAMES = {"pca-error", "pca-mixture", "isolation-forest", "neighbours"}


def prepared(batch: Any, bands: tuple[str, ...]) -> Prepared:
    fit = (
        SpectrumPreprocessing.fit(batch)
        if batch.kind == "spectrum"
        else CutoutPreprocessing.fit([batch], bands)
    )
    return fit(batch)


@pytest.mark.parametrize("kind", ["spectrum", "cutout"])
@pytest.mark.parametrize("n", [3, 12, 80])
def test_finite_and_reproducible(kind: str, n: int, draw: Any, bands: Any) -> None:
    train, test = prepared(draw(kind, n, 1), bands), prepared(draw(kind, 7, 2), bands)
    if kind == "spectrum":  # the grids of two small sets differ by the bins at their ends
        width = min(train.x.shape[1], test.x.shape[1])
        for data in (train, test):
            data.x, data.ivar = data.x[:, :width], data.ivar[:, :width]
    first, second = baseline_scores(train, test), baseline_scores(train, test)
    assert first.keys() == NAMES
    for name, value in first.items():
        assert value.shape == (7,) and np.isfinite(value).all()
        np.testing.assert_array_equal(value, second[name])


def test_a_wild_object_is_first_everywhere(draw: Any, bands: Any) -> None:
    data = prepared(draw("cutout", 100, 1), bands)
    data.x[17] = torch.flip(data.x[17], (0,)) * 3 + 5
    for value in baseline_scores(data.rows(np.arange(50, 100)), data).values():
        assert value.argmax() == 17


def test_unmeasured_values_do_not_count(draw: Any, bands: Any) -> None:
    data, other = prepared(draw("cutout", 40, 1), bands), prepared(draw("cutout", 40, 1), bands)
    other.x[other.ivar == 0] = 1e9
    for name, value in baseline_scores(data, data).items():
        np.testing.assert_array_equal(value, baseline_scores(other, other)[name])


def test_two_objects_are_too_few(draw: Any, bands: Any) -> None:
    data = prepared(draw("cutout", 2, 1), bands)
    with pytest.raises(ValueError, match="at least 3 objects to be fitted on, got 2"):
        baseline_scores(data, data)
