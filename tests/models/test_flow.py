"""The flow is a density, of the latents that it was fitted to."""

from __future__ import annotations

import numpy as np
import torch

from models.flow import LatentFlow


def two_moons(n: int, seed: int) -> torch.Tensor:
    """Points on two arcs, which no normal distribution resembles."""
    rng = np.random.default_rng(seed)
    angle, side = rng.uniform(0, np.pi, n), rng.integers(0, 2, n)
    x = np.stack([np.cos(angle) + side, np.sin(angle) * (1 - 2 * side) + side / 2], 1)
    return torch.from_numpy((5 + 2 * (x + 0.1 * rng.normal(size=x.shape))).astype(np.float32))


def fitted(n: int = 2000, seed: int = 0) -> LatentFlow:
    return LatentFlow.fit(two_moons(n, 1), 1e-3 * torch.eye(2).expand(n, 2, 2), seed)


def test_it_is_a_density_and_beats_the_normal_one() -> None:
    flow, new = fitted(), two_moons(500, 2)
    axis = torch.linspace(-5, 15, 400)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        total = float(flow.log_prob(grid).double().exp().sum()) * float(axis[1] - axis[0]) ** 2
        reached = float(flow.log_prob(new).mean())
    assert abs(total - 1) < 0.02
    normal = torch.distributions.MultivariateNormal(new.mean(0), torch.cov(new.T))
    assert reached > float(normal.log_prob(new).mean()) + 0.2


def test_a_point_between_the_moons_is_rarer_than_one_on_them() -> None:
    flow = fitted()
    with torch.no_grad():
        between, beyond = flow.log_prob(torch.tensor([[6.0, 5.5], [1e4, 1e4]]))
        typical = flow.log_prob(two_moons(200, 3)).median()
    assert torch.isfinite(beyond) and beyond < between < typical - 1


def test_a_seed_decides_everything_and_arrays_keep_it() -> None:
    flow, again = fitted(60), fitted(60)
    a, b = flow.arrays(), again.arrays()
    assert all(np.array_equal(a[name], b[name]) for name in a)
    back = LatentFlow.from_arrays({name: torch.from_numpy(value) for name, value in a.items()})
    with torch.no_grad():
        assert torch.equal(back.log_prob(two_moons(10, 4)), flow.log_prob(two_moons(10, 4)))
