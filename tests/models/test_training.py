"""Training: better than its start, the same for a seed, resumed after an interruption, honest about its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models import training
from models.prepared import Prepared
from models.training import Resume, choose_n_latent, fit_linear, fit_network, refit_noise
from models.vae import VAE

N_VALUES, L = 30, 2


EPOCHS = 37
"""Of ``short``, for 40 training objects."""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few epochs, for tests of anything but how good the fit is."""
    monkeypatch.setattr(training, "LINEAR_EPOCHS", 1)


def truth() -> tuple[Tensor, Tensor]:
    t = torch.linspace(0, 2 * np.pi, N_VALUES)
    return 1 + 0.5 * torch.sin(t), torch.stack([torch.cos(t), torch.sin(2 * t)], 1)


def draw(n: int, seed: int, noise: float = 1.0, bend: float = 0.0) -> Prepared:
    """x from a two-dimensional linear model; ``noise`` scales what ivar does not know of, ``bend`` adds z₀²."""
    g = torch.Generator().manual_seed(seed)
    mean, basis = truth()
    z = torch.randn((n, L), generator=g)
    ivar = 20 + 200 * torch.rand((n, N_VALUES), generator=g)
    ivar[torch.rand((n, N_VALUES), generator=g) < 0.1] = 0
    error = torch.randn((n, N_VALUES), generator=g) * noise / ivar.clamp(min=1).sqrt()
    x = torch.where(ivar > 0, mean + z @ basis.T + bend * z[:, :1] ** 2 + error, 0.0)
    index = torch.zeros((1, N_VALUES), dtype=torch.int64)
    return Prepared(x, ivar, index, torch.ones(n), torch.ones((n, 2)), torch.zeros(n))


def silent(*_: Any, **__: Any) -> None:
    """No progress."""


def linear(train: Prepared, held_out: Prepared, resume: Resume | None = None, progress: Any = silent) -> VAE:
    return fit_linear(train, held_out, 1, L, 0, progress, resume or Resume(None, ""))


def state(model: VAE) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_linear_model_finds_the_truth() -> None:
    """Within 1 % of the likelihood of the very model that the objects were drawn from."""
    held_out = draw(300, 2)
    mean, basis = truth()
    best = VAE(mean, basis, 1)
    fitted = linear(draw(300, 1), held_out)
    with torch.no_grad():
        best.log_jitter.fill_(-8)
        reached, possible = (float(m.linear_log_px(held_out).mean()) for m in (fitted, best))
    assert possible - reached < 0.01 * abs(possible) + 0.5
    angles = torch.linalg.svdvals(torch.linalg.qr(fitted.basis.detach()).Q.T @ torch.linalg.qr(basis).Q)
    assert float(angles.min()) > 0.995  # the same plane


@pytest.mark.parametrize("noise", [0.6, 1.0, 2.0])
def test_held_out_chi2_is_one_whatever_the_pipelines_errors_are_worth(noise: float) -> None:
    """The learned scale follows noise that ivar misjudges: new objects have a median χ² per degree of freedom of 1."""
    fitted = linear(draw(200, 1, noise), draw(200, 2, noise))
    with torch.no_grad():
        chi2 = training._chi2(fitted, draw(400, 3, noise))
    assert float(chi2.median()) == pytest.approx(1, abs=0.06)


def test_refitting_the_noise_ignores_anomalies() -> None:
    held_out = draw(200, 2)
    model = linear(draw(200, 1), held_out)
    clean = model.log_jitter.detach().clone()
    held_out.x[:10] += 50
    refit_noise(model, held_out)
    assert float((model.log_jitter.detach() - clean).abs().max()) < 1


def test_a_seed_decides_everything(short: None) -> None:
    train, held_out = draw(60, 1), draw(30, 2)
    a, b = state(linear(train, held_out)), state(linear(train, held_out))
    assert all(torch.equal(a[name], b[name]) for name in a)
    c = state(fit_linear(train, held_out, 1, L, 1, silent, Resume(None, "")))
    assert not torch.equal(a["basis"], c["basis"])


class Interrupted(Exception):
    """What the test's progress raises."""


@pytest.mark.parametrize("epoch", [1, 20, EPOCHS])
def test_an_interrupted_training_goes_on(epoch: int, short: None, tmp_path: Path) -> None:
    """To the same parameters, to the last bit, from the last whole epoch before the interruption."""
    train, held_out = draw(40, 1), draw(20, 2)
    seen: list[int] = []

    def interrupt(_stage: str, done: int, *_: Any) -> None:
        if done == epoch:
            raise Interrupted

    resume = Resume(tmp_path / "checkpoint", "these objects")
    with pytest.raises(Interrupted):
        linear(train, held_out, resume, interrupt)
    resumed = linear(train, held_out, resume, lambda _stage, done, *_: seen.append(done))
    assert seen == list(range(epoch, EPOCHS + 1))
    expected = state(linear(train, held_out))
    assert all(torch.equal(value, expected[name]) for name, value in state(resumed).items())


def test_a_checkpoint_of_other_objects_is_not_used(short: None, tmp_path: Path) -> None:
    train, held_out = draw(40, 1), draw(20, 2)
    linear(train, held_out, Resume(tmp_path / "checkpoint", "other objects"))
    seen: list[int] = []
    linear(
        train, held_out, Resume(tmp_path / "checkpoint", "mine"), lambda _stage, done, *_: seen.append(done)
    )
    assert seen[0] == 1


def test_a_checkpoint_is_safe_to_read(short: None, tmp_path: Path) -> None:
    """Tensors and numbers only: it loads without running anything that a file could hold."""
    linear(draw(40, 1), draw(20, 2), Resume(tmp_path / "checkpoint", "mine"))
    assert torch.load(tmp_path / "checkpoint", weights_only=True)["fingerprint"] == "mine"
    Resume(tmp_path / "checkpoint", "mine").done()
    assert list(tmp_path.iterdir()) == []


def network(train: Prepared, held_out: Prepared, epochs: int, start: VAE) -> tuple[VAE, dict[str, float]]:
    return fit_network(start, train, held_out, (1, N_VALUES), epochs, 0, silent, Resume(None, ""))


def test_a_network_that_learned_nothing_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figure must be the linear model's own, not flattered by the points that it is estimated from."""
    train, held_out = draw(600, 1), draw(100, 2)
    start = linear(train, held_out)

    monkeypatch.setattr(training, "_descend", silent)
    kept, figures = network(train, held_out, 1, start)
    assert kept is start
    assert figures["held_out_network_elbo"] == pytest.approx(figures["held_out_linear_log_px"])


def test_a_network_that_helps_is_kept() -> None:
    """A curved family: its bend is what no linear basis of two can say."""
    train, held_out = draw(600, 1, bend=0.7), draw(100, 2, bend=0.7)
    start = linear(train, held_out)
    kept, figures = network(train, held_out, 25, start)
    assert kept.decoder is not None
    assert figures["held_out_network_elbo"] > figures["held_out_linear_log_px"] + 1
    new = draw(200, 3, bend=0.7)
    eps = torch.randn((64, 200, L), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        gain = float((kept.elbo(new, eps) - start.linear_log_px(new)).mean())
    assert gain > 1  # on objects that had no part in any choice
    with torch.no_grad():
        chi2 = training._chi2(kept, held_out)
    # its residuals are not the linear model's, so its noise was refitted
    assert float(chi2.median()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("gain", "kept"), [(-1.0, False), (0.5, False), (4.0, True)])
def test_a_gain_must_be_over_twice_its_standard_error(
    gain: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gains of standard deviation 10 of 100 held-out objects: an error of 1 nat."""
    train, held_out = draw(600, 1), draw(100, 2)
    start = linear(train, held_out)
    gains = torch.from_numpy(np.random.default_rng(0).normal(size=100))
    gains = gain + 10 * (gains - gains.mean()) / gains.std()
    figures = iter([torch.zeros(100), torch.zeros(100), gains])  # linear, untrained, trained
    monkeypatch.setattr(training, "_descend", silent)
    monkeypatch.setattr(training, "_evaluate", lambda *_: next(figures))
    assert (network(train, held_out, 1, start)[0] is not start) == kept


def test_small_sets_stay_linear() -> None:
    train, held_out = draw(60, 1), draw(30, 2)
    start = linear(train, held_out)
    assert network(train, held_out, 5, start)[0] is start
    assert "held_out_network_elbo" not in network(train, held_out, 5, start)[1]


@pytest.mark.parametrize(("n", "expected"), [(1, 2), (14, 2), (60, 10), (144, 24), (10**6, 24)])
def test_latent_dimensions_grow_with_the_set(n: int, expected: int) -> None:
    assert choose_n_latent(n) == expected


def test_typical_figures_leave_out_the_lowest() -> None:
    assert float(training._typical(torch.tensor([-1e9] + [1.0] * 19))) == 1
