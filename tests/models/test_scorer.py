"""The promises of every Scorer: finite, pure, the same whatever the batch, uniform p-values on normal objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from models.batch import Batch, CutoutBatch, SpectrumBatch
from models.bundle import Bundle
from models.mixture import Mixture
from models.parts import weigh
from models.scorer import CHUNK, Scorer, pick_device
from models.spectra import BIN

KINDS = ["spectrum", "cutout"]


def take(batch: Batch, rows: Any) -> Batch:
    if isinstance(batch, SpectrumBatch):
        return SpectrumBatch(batch.flux[rows], batch.ivar[rows], batch.first[rows], batch.redshift[rows])
    return CutoutBatch(batch.flux[rows], batch.ivar[rows])


def test_shapes_and_ranges(scorer: Scorer, draw: Any, numbers: Any) -> None:
    n = 30
    scores = scorer.score(draw(scorer.kind, n, 4))
    n_latent = scorer.spec["network"]["n_latent"]
    assert len(scores) == n and len(scores.flags) == n
    assert scores.latent.shape == scores.latent_var.shape == (n, n_latent)
    assert scores.responsibilities.shape == (n, len(scorer.fitted.mixture.weights))
    np.testing.assert_allclose(scores.responsibilities.sum(1), 1, rtol=1e-6)
    for name, value in numbers(scores).items():
        assert value.dtype == (np.float32 if value.ndim == 2 else np.float64), name
        assert len(value) == n and np.isfinite(value).all(), name
    assert (scores.latent_var > 0).all() and (scores.chi2 > 0).all()
    for name in scores.parts:
        if not name.endswith("_p"):
            p = scores.parts[f"{name}_p"]
            assert (p >= scorer.calibration.smallest_p).all() and (p <= 1).all()


def test_the_bound_on_the_evidence_is_above_the_elbo(scorer: Scorer, draw: Any) -> None:
    """Under the ELBO's own prior, and but for the draws' scatter; without networks it is the evidence itself."""
    n_latent = scorer.fitted.model.n_latent
    eye = torch.eye(n_latent, dtype=torch.float64)
    standard = Mixture(torch.ones_like(eye[0, :1]), torch.zeros_like(eye[:1]), eye[None])
    data = scorer.prepare(draw(scorer.kind, 200, 4))
    with torch.no_grad():
        found = weigh(replace(scorer.fitted, mixture=standard), data)
        exact = scorer.fitted.model.linear_log_px(data)
    assert float((found.log_px - found.elbo).median()) > -2
    if scorer.fitted.model.encoder is None:
        torch.testing.assert_close(found.log_px, exact, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_normal_objects_have_uniform_p_values(kind: str, scorers: dict[str, Scorer], draw: Any) -> None:
    scorer = scorers[kind]
    n, m = 400, len(scorer.calibration.scores)
    p = scorer.score(draw(kind, n, 123)).p_value
    assert kstest(p, "uniform").statistic < 1.63 * np.sqrt(1 / n + 1 / m)  # 1 % level
    for alpha in (0.05, 0.1):
        assert (p <= alpha).mean() == pytest.approx(
            alpha, abs=3 * np.sqrt(alpha * (1 - alpha) * (1 / n + 1 / m))
        )


def test_masked_pixels_do_not_matter(scorer: Scorer, draw: Any, numbers: Any) -> None:
    """To the last bit, in every number."""
    batch = draw(scorer.kind, 20, 5)
    masked = np.random.default_rng(0).random(batch.flux.shape) < 0.2
    batch.ivar[masked] = 0
    before = numbers(scorer.score(batch))
    for junk in (0.0, -1e30, 3e38):
        batch.flux[batch.ivar == 0] = junk
        for name, value in numbers(scorer.score(batch)).items():
            np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_scores_do_not_depend_on_the_batch(scorer: Scorer, draw: Any, numbers: Any) -> None:
    """Alone, in company, in another order, and across the scorer's own chunks."""
    n = CHUNK[scorer.kind] + 9
    batch = draw(scorer.kind, n, 6)
    whole = numbers(scorer.score(batch))
    order = np.random.default_rng(0).permutation(n)
    some = [0, 5, CHUNK[scorer.kind] - 1, CHUNK[scorer.kind], n - 1]
    for rows, result in (
        (
            some,
            {
                k: np.concatenate(v)
                for k, v in _columns([numbers(scorer.score(take(batch, [i]))) for i in some]).items()
            },
        ),
        (order, numbers(scorer.score(take(batch, order)))),
        (some, numbers(scorer.score(take(batch, some)))),
    ):
        for name, value in result.items():
            # values are in single precision, whose rounding depends on the rows beside; a part's p-value is
            # interpolated between the ranks of a small calibration set, which is steep where two of it nearly tie
            tolerance = 1e-4 if name.startswith("part ") and name.endswith("_p") else 1e-5
            scale = np.abs(whole[name]).max()
            np.testing.assert_allclose(
                value, whole[name][rows], rtol=tolerance, atol=tolerance * scale, err_msg=name
            )


def _columns(rows: list[dict[str, np.ndarray]]) -> dict[str, list[np.ndarray]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_scoring_is_pure(scorer: Scorer, draw: Any, numbers: Any) -> None:
    batch = draw(scorer.kind, 10, 7)
    kept = [array.copy() for array in (batch.flux, batch.ivar)]
    torch.manual_seed(1)
    first = numbers(scorer.score(batch))
    torch.manual_seed(2)
    second = numbers(scorer.score(batch))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert np.array_equal(batch.flux, kept[0]) and np.array_equal(batch.ivar, kept[1])


def test_an_untrained_network_changes_nothing(
    bundles: dict[str, Bundle],
    scorers: dict[str, Scorer],
    with_networks: Any,
    draw: Any,
    tmp_path: Path,
    numbers: Any,
) -> None:
    """Its last layers are zero: a model with it is the linear model, which is where its training starts."""
    bundle = with_networks(bundles["small"], 0.0)
    scorer = Scorer.from_bundle(bundle.save(tmp_path), "cpu")
    assert scorer.fitted.model.encoder is not None and scorers["small"].fitted.model.encoder is None
    batch = draw("spectrum", 10, 8)
    expected = numbers(scorers["small"].score(batch))
    for name, value in numbers(scorer.score(batch)).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-9, atol=1e-9, err_msg=name)


def change(kind: str, what: str) -> Callable[[Any], None]:
    """One way in which real files are odd."""

    def odd(batch: Any) -> None:
        if what == "no overlap with the grid":
            batch.first[:] = 50000
        elif what == "impossible redshifts":
            batch.redshift[:] = np.resize([np.nan, np.inf, -np.inf, -5, -1, 1e6], len(batch))
        elif what == "nothing measured":
            batch.ivar[:] = 0
        elif what == "one measured pixel":
            centre = tuple(side // 2 for side in batch.ivar.shape[1:])
            kept = batch.ivar[(slice(None), *centre)].max()
            batch.ivar[:] = 0
            batch.ivar[(slice(None), *centre)] = kept
        elif what == "an empty band":
            batch.ivar[:, 1] = 0
        elif what == "perfect measurements":
            batch.ivar[:] = 3e38
        elif what == "worthless measurements":
            batch.ivar[batch.ivar > 0] = 1e-44
        elif what == "huge flux and ivar":
            batch.flux[:], batch.ivar[:] = 3e38, 3e38
        else:
            batch.flux[:] = {"zero": 0, "constant": 7, "huge": 3e38, "huge negative": -3e38, "tiny": 1e-44}[
                what
            ]

    return odd


ANY = [
    "nothing measured", "one measured pixel", "perfect measurements", "worthless measurements", "huge flux and ivar",
    "zero", "constant", "huge", "huge negative", "tiny",
]  # fmt: skip
ODD = [
    *((kind, what) for kind in KINDS for what in ANY),
    ("spectrum", "no overlap with the grid"),
    ("spectrum", "impossible redshifts"),
    ("cutout", "an empty band"),
]


@pytest.mark.parametrize(("kind", "what"), ODD)
@pytest.mark.filterwarnings("error")
def test_every_number_is_finite(
    kind: str, what: str, scorers: dict[str, Scorer], draw: Any, numbers: Any
) -> None:
    """For a batch of odd objects, for one alone, and without a warning."""
    for name in (kind, f"networks-{kind}"):
        batch = draw(kind, 8, 9)
        change(kind, what)(batch)
        for some in (batch, take(batch, slice(0, 1))):
            scores = scorers[name].score(some)
            unsound = [key for key, value in numbers(scores).items() if not np.isfinite(value).all()]
            assert unsound == []
            assert ((scores.p_value > 0) & (scores.p_value <= 1)).all()


@pytest.mark.parametrize(
    ("kind", "what"),
    [("spectrum", "nothing measured"), ("spectrum", "no overlap with the grid"), ("cutout", "nothing measured"),
     ("cutout", "an empty band"), ("spectrum", "zero"), ("spectrum", "huge negative")],
)  # fmt: skip
def test_what_the_training_set_does_not_cover_is_said(
    kind: str, what: str, scorers: dict[str, Scorer], draw: Any
) -> None:
    batch = draw(kind, 6, 9)
    change(kind, what)(batch)
    assert all("outside-domain" in flags for flags in scorers[kind].score(batch).flags)


def test_normal_objects_are_inside(scorer: Scorer, draw: Any) -> None:
    flags = scorer.score(draw(scorer.kind, 200, 10)).flags
    assert sum("outside-domain" in f for f in flags) < 12  # 1 % is the definition, 6 % never


def test_a_galaxy_at_another_redshift_scores_the_same(bundles: dict[str, Bundle], spectra: Any) -> None:
    """Moved by whole bins, so that the rest-frame numbers are equal, exactly where the noise table is flat.

    With the learned table, which is of the observed frame, the noise differs by what was learned.
    """
    bundle = bundles["spectrum"]
    flat = replace(bundle, spec={**bundle.spec, "version": "0"}, arrays=dict(bundle.arrays))
    flat.arrays["vae.log_noise_scale"] = np.zeros_like(flat.arrays["vae.log_noise_scale"])
    batch = spectra(20, 11)
    shift = np.round(1e4 * np.log10(1 + batch.redshift)) + 10 * BIN
    moved = SpectrumBatch(batch.flux, batch.ivar, batch.first + 10 * BIN, 10 ** (1e-4 * shift) - 1)
    for one, tolerance in ((flat, 0.0), (bundle, 0.25)):
        scorer = Scorer.from_parts(one, torch.device("cpu"))
        a, b = scorer.score(batch), scorer.score(moved)
        np.testing.assert_allclose(a.chi2, b.chi2, rtol=tolerance)
        for name in ("misfit", "window", "rarity", "domain"):
            np.testing.assert_allclose(
                a.parts[name], b.parts[name], rtol=tolerance, atol=tolerance, err_msg=name
            )
        np.testing.assert_array_equal(a.snr, b.snr)


def test_no_redshift_is_scored_in_the_observed_frame(
    scorers: dict[str, Scorer], spectra: Any, numbers: Any
) -> None:
    batch = spectra(10, 12)
    batch.redshift[:] = 0
    at_rest = numbers(scorers["spectrum"].score(batch))
    batch.redshift[:] = np.nan
    for name, value in numbers(scorers["spectrum"].score(batch)).items():
        np.testing.assert_array_equal(value, at_rest[name], err_msg=name)


def test_anomalies_score_high(scorers: dict[str, Scorer], draw: Any) -> None:
    for kind in KINDS:
        batch = draw(kind, 60, 13)
        batch.flux[:10] = batch.flux[:10, ..., ::-1]
        if kind == "cutout":
            batch.flux[:10, :, 2:10, 2:10] += 20
        score = scorers[kind].score(batch).score
        assert np.median(score[:10]) > np.quantile(score[10:], 0.9)


def not_finite(batch: Any) -> Any:
    batch.flux.flat[0] = np.nan
    return batch


def negative_ivar(batch: Any) -> Any:
    batch.ivar.flat[0] = -1
    return batch


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_batches_are_refused_in_words(kind: str, scorers: dict[str, Scorer], draw: Any) -> None:
    scorer, other = scorers[kind], KINDS[1 - KINDS.index(kind)]
    with pytest.raises(ValueError, match=f"scores {kind} inputs, this batch is of kind {other}"):
        scorer.score(draw(other, 2, 1))
    with pytest.raises(ValueError, match="at least one object"):
        scorer.score(draw(kind, 0, 1))
    for spoil in (not_finite, negative_ivar):
        with pytest.raises(ValueError, match="finite and ivar ≥ 0"):
            scorer.score(spoil(draw(kind, 2, 1)))


def test_other_bands_are_refused_in_words(scorers: dict[str, Scorer], cutouts: Any) -> None:
    batch = cutouts(2, 1)
    with pytest.raises(ValueError, match=r"2 bands \(g, i\), this cutout has 1"):
        scorers["cutout"].score(CutoutBatch(batch.flux[:, :1], batch.ivar[:, :1]))


def test_a_missing_device_is_a_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="no usable CUDA device: use cpu or auto"):
        pick_device("cuda:1")


class Waits(TorchDispatchMode):
    """Notes the operations after which a program on a GPU has to wait for it: their result is needed on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::").removeprefix("_")
        masked = name.startswith("index") and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in pytree.tree_leaves(args[1:])
        )
        if masked or name in ("nonzero", "local_scalar_dense", "linalg_check_errors", "masked_select"):
            self.found.add(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["spectrum", "cutout", "networks-spectrum", "networks-cutout"])
def test_nothing_waits_for_the_device(name: str, scorers: dict[str, Scorer], draw: Any) -> None:
    scorer = scorers[name]
    data = scorer.prepare(draw(scorer.kind, 5, 14))
    with Waits() as waits, torch.no_grad():
        weigh(scorer.fitted, data)
    assert not waits.found
    with Waits() as waits:
        assert torch.linalg.cholesky(torch.eye(2)[None]).any()
    assert waits.found == {"linalg_check_errors", "local_scalar_dense"}  # the test knows one when it sees it


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", ["small", "networks-spectrum", "networks-cutout"])
def test_a_gpu_scores_the_same(
    name: str,
    bundles: Any,
    with_networks: Any,
    scorers: dict[str, Scorer],
    draw: Any,
    numbers: Any,
    tmp_path: Path,
) -> None:
    kind = scorers[name].kind
    bundle = bundles[name] if name in bundles else with_networks(bundles[kind])
    batch = draw(kind, 100, 14)
    cpu = numbers(scorers[name].score(batch))
    for key, value in numbers(Scorer.from_bundle(bundle.save(tmp_path), "cuda").score(batch)).items():
        np.testing.assert_allclose(
            value, cpu[key], rtol=1e-4, atol=1e-4 * np.abs(cpu[key]).max(), err_msg=key
        )
