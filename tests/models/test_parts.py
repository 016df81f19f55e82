"""The parts of the score on residuals whose answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from models import parts
from models.fitted import Fitted
from models.mixture import Mixture
from models.parts import _quietest, _worst_window, weigh, window_sums
from models.prepared import Prepared
from models.scorer import Scorer
from models.vae import VAE


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


def test_the_worst_window_is_the_matched_one() -> None:
    """4 neighbouring bins of 3 σ are 3·4/√4 = 6 σ together; alternating signs cancel."""
    residual = torch.zeros((2, 100))
    residual[0, 40:44] = 3
    residual[1, 40:44] = torch.tensor([3.0, -3, 3, -3])
    assert _worst_window(residual, ones(2, 100), (1, 100)).tolist() == pytest.approx([6, 3])


def test_the_worst_window_may_be_a_lack_of_light_and_skips_the_unmeasured() -> None:
    """Three of the four bins are measured in the windows of 4 about the gap."""
    residual, seen = torch.zeros((1, 100)), ones(1, 100)
    residual[0, 40:42], residual[0, 43:45] = -5, -5
    seen[0, 42] = 0
    assert _worst_window(residual, seen, (1, 100)).item() == pytest.approx(5 * 3 / math.sqrt(3))


def test_an_image_window_is_of_one_band() -> None:
    residual = torch.zeros((1, 2, 20, 20))
    residual[0, 0, 5:9, 5:9], residual[0, 1, 5:9, 5:9] = 2, -2
    assert _worst_window(residual.flatten(1), ones(1, 800), (2, 20, 20)).item() == pytest.approx(2 * 16 / 4)


@pytest.mark.parametrize(
    ("shape", "lengths"),
    [((1, 100), [1, 2, 4, 8, 16, 32, 64]), ((1, 63), [1, 2, 4, 8, 16, 32]), ((2, 20, 20), [1, 2, 4, 8]),
     ((1, 8, 8), [1, 2, 4, 8]), ((2, 9, 3), [1, 2]), ((1, 1), [1])],
)  # fmt: skip
def test_windows_double_and_are_the_sums_of_what_is_in_them(
    shape: tuple[int, ...], lengths: list[int]
) -> None:
    image = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    found = list(window_sums(image))
    assert len(found) == len(lengths)
    for total, length in zip(found, lengths, strict=True):
        expected = image
        for axis in range(2, image.dim()):
            expected = expected.unfold(axis, length, 1)
        expected = expected.flatten(image.dim()).sum(-1)
        torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-4)


def test_a_perfect_or_empty_object_has_a_finite_worst_window() -> None:
    nothing, seen = torch.zeros((2, 100)), ones(2, 100)
    seen[1] = 0
    assert _worst_window(nothing, seen, (1, 100)).log().isfinite().all()


@pytest.mark.parametrize("shape", [(1, 400), (2, 24, 24)])
def test_quiet_data_scatter_less(shape: tuple[int, ...]) -> None:
    """White noise has a mean square difference of 1; a smoothed patch, less; noise that is too strong, no less."""
    g = torch.Generator().manual_seed(0)
    residual = torch.randn((3, *shape), generator=g)
    residual[1, 0, ..., :100] *= 0.1
    residual[2] *= 5
    quiet = _quietest(residual.flatten(1), ones(3, math.prod(shape)), shape)
    assert quiet[1] < 0.05 < 0.3 < quiet[0] <= 1
    assert quiet[2] == 1


@pytest.mark.parametrize("side", range(2, 20))
def test_a_lost_image_is_quiet_at_any_size(side: int) -> None:
    residual = torch.zeros((1, side**2))
    assert _quietest(residual, ones(1, side**2), (1, side, side)).item() == 0


def test_quiet_needs_half_a_window() -> None:
    """Zeros where nothing was measured are not quiet data."""
    residual, seen = torch.zeros((1, 400)), ones(1, 400)
    seen[0, ::3] = 0  # leaves a third of the neighbouring pairs
    assert _quietest(residual, seen, (1, 400)).item() == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 1, 1), (1, 5, 5), (1, 8, 8)])
def test_tiny_grids_have_parts_too(shape: tuple[int, ...]) -> None:
    residual = torch.full((2, math.prod(shape)), 4.0)
    assert (_worst_window(residual, ones(2, math.prod(shape)), shape) >= 4).all()
    assert (_quietest(residual, ones(2, math.prod(shape)), shape) <= 1).all()


N, N_VALUES, L = 8, 60, 3


def linear_world(noise: float) -> tuple[Fitted, Prepared]:
    """A linear model under a mixture of three components, and objects drawn from it with errors of about ``noise``."""
    g = torch.Generator().manual_seed(0)
    basis = torch.randn((N_VALUES, L), generator=g)
    factor = torch.randn((3, L, L), generator=g, dtype=torch.float64)
    mixture = Mixture(
        torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
        torch.randn((3, L), generator=g, dtype=torch.float64),
        0.1 * factor @ factor.transpose(1, 2) + 0.1 * torch.eye(L, dtype=torch.float64),
    )
    ivar = (0.5 + torch.rand((N, N_VALUES), generator=g)) / noise**2
    ivar[torch.rand((N, N_VALUES), generator=g) < 0.2] = 0
    z = mixture.means[torch.arange(N) % 3] + 0.3 * torch.randn((N, L), generator=g, dtype=torch.float64)
    x = 1 + z.float() @ basis.T + noise * torch.randn((N, N_VALUES), generator=g)
    model = VAE(torch.ones(N_VALUES), basis, 1)
    with torch.no_grad():
        model.log_jitter.fill_(-8)
    data = Prepared(
        torch.where(ivar > 0, x, 0.0), ivar, torch.zeros((1, N_VALUES), dtype=torch.int64),
        torch.ones(N), torch.ones((N, 2)), torch.zeros(N),
    )  # fmt: skip
    fitted = Fitted("spectrum", (1, N_VALUES), model, mixture, torch.zeros((20, L)), None, None)
    return fitted.for_scoring(torch.device("cpu")), data


def dense_evidence(fitted: Fitted, data: Prepared) -> np.ndarray:
    """log p(x) = log Σ_k w_k N(x; mean + W μ_k, W Σ_k Wᵀ + Ψ) over the measured values, (n,) nats."""
    model, mixture = fitted.model, fitted.mixture
    out = []
    for x, weight in zip(data.x.double(), model.weight(data).double(), strict=True):
        good = weight > 0
        basis, psi = model.basis[good].double(), torch.diag(1 / weight[good])
        joint = [
            float(w.log())
            + multivariate_normal(1 + basis @ m, basis @ c @ basis.T + psi).logpdf(x[good].numpy())
            for w, m, c in zip(mixture.weights, mixture.means, mixture.covariances, strict=True)
        ]
        out.append(logsumexp(joint))
    return np.array(out)


@pytest.mark.parametrize(("noise", "n_draws"), [(0.02, None), (0.3, None), (0.3, 4000), (1.0, 4000)])
def test_log_px_is_the_evidence_under_the_mixture(
    noise: float, n_draws: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the few draws of scoring where the data decide the latent, with many where they hardly do."""
    if n_draws:
        monkeypatch.setattr(parts, "N_DRAWS", n_draws)
    fitted, data = linear_world(noise)
    with torch.no_grad():
        found = weigh(fitted, data).log_px
    np.testing.assert_allclose(found, dense_evidence(fitted, data), rtol=0, atol=0.05)


def planted(kind: str, draw: Any) -> tuple[Any, dict[str, int]]:
    """60 normal objects, then for some parts one that it must rank above nearly all of them."""
    batch = draw(kind, 66, 77)
    sigma = 1 / np.sqrt(np.where(batch.ivar > 0, batch.ivar, np.inf))
    noise = np.random.default_rng(1).normal(size=batch.flux.shape) * sigma
    batch.flux[60] += 3 * noise[60]  # too much noise
    window = np.zeros(batch.flux.shape[1:])
    window[(..., slice(10, 18))] = 1
    batch.flux[61] += 6 * sigma[61] * (window if kind == "spectrum" else window * np.swapaxes(window, 1, 2))
    batch.ivar[62, ..., 2:] = 0  # hardly measured
    batch.flux[63] -= 0.9 * noise[63]
    names = {"misfit": 60, "surprise": 60, "window": 61, "domain": 62}
    if kind == "cutout":
        batch.flux[64, 0, 6:] = batch.flux[64, 0, 6:].mean()  # a lost half of an image
        names["quiet"] = 64
    return batch, names


@pytest.mark.parametrize("name", ["spectrum", "networks-spectrum", "cutout", "networks-cutout"])
def test_each_part_finds_what_it_is_for(name: str, scorers: dict[str, Scorer], draw: Any) -> None:
    scorer = scorers[name]
    batch, expected = planted(scorer.kind, draw)
    parts = scorer.score(batch).parts
    for part, row in expected.items():
        assert (parts[part][row] > parts[part][:60]).mean() >= 0.95, part
