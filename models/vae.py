"""The variational auto-encoder: a linear-Gaussian core with an exact posterior, and a network for the rest.

Generative model, for one object with values x_d, inverse variances ivar_d and latent z of L dimensions:

    z ~ N(0, I)
    x_d | z ~ N(mean_d + (W z)_d + f(z)_d,  s²_{i(d)} / ivar_d + j_d²)

s is a learned scale of the pipeline's noise (by observed wavelength, or band), j a learned jitter, W an
ivar-weighted linear basis, and f a network. With f = 0 this is factor analysis with known, heteroscedastic noise,
whose posterior N(m, A⁻¹), A = I + Wᵀ Ψ⁻¹ W, m = A⁻¹ Wᵀ Ψ⁻¹ (x − mean), is exact and treats missing values exactly.
The encoder is that posterior plus a network's correction to its mean and its width, so that training starts from
the linear optimum with a tight ELBO (Kingma & Welling 2014; Rubin & Thayer 1982 for the linear part).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.prepared import Prepared

LOG_2PI = math.log(2 * math.pi)
MAX_LOG_SCALE = 0.7
"""The pipeline's noise is believed within a factor of 2: few objects at the edge of the grid must not say otherwise."""
NETWORK_DTYPE = torch.float32
"""The networks stay in single precision, also where sums and linear algebra run in double."""


@dataclass(slots=True)
class Posterior:
    """q(z|x) = N(mean, C⁻ᵀ diag(stretch) C⁻¹) for n objects."""

    mean: Tensor
    """(n, L)."""
    whitener: Tensor
    """(n, L, L) C⁻¹, lower triangular, the inverse Cholesky factor of the linear posterior's precision."""
    stretch: Tensor
    """(n, L) variances along the whitened axes; 1 where the linear posterior holds."""

    @property
    def covariance(self) -> Tensor:
        """(n, L, L)."""
        return torch.einsum("nki,nk,nkj->nij", self.whitener, self.stretch, self.whitener)

    @property
    def variance(self) -> Tensor:
        """(n, L), the diagonal of the covariance."""
        return torch.einsum("nki,nk->ni", self.whitener**2, self.stretch)

    def sample(self, eps: Tensor) -> Tensor:
        """z = mean + C⁻ᵀ √stretch ε for ε of shape (n, L) or (L,)."""
        return self.mean + torch.einsum("nki,nk->ni", self.whitener, self.stretch.sqrt() * eps)

    def log_prob(self, eps: Tensor) -> Tensor:
        """log q at the point that ``sample(eps)`` returns, (n,) nats."""
        log_scale = self.stretch.log().sum(1) / 2 + self._log_diagonal()
        return -0.5 * (eps**2).sum(-1) - 0.5 * self.mean.shape[1] * LOG_2PI - log_scale

    def kl(self) -> Tensor:
        """KL(q ‖ N(0, I)), (n,) nats."""
        log_det = self.stretch.log().sum(1) + 2 * self._log_diagonal()
        return 0.5 * (self.variance.sum(1) + (self.mean**2).sum(1) - self.mean.shape[1] - log_det)

    def _log_diagonal(self) -> Tensor:
        return torch.diagonal(self.whitener, dim1=1, dim2=2).log().sum(1)


class VAE(nn.Module):
    """A VAE over flat rows of ``n_values`` values; see the module's docstring for the model.

    ``encoder`` maps (n, 2, n_values) whitened residuals and mask, and (n, L) the linear posterior mean, to (n, 2 L)
    corrections; ``decoder`` maps (n, L) to (n, n_values). Both may be None: then this is factor analysis.
    """

    def __init__(
        self,
        mean: Tensor,
        basis: Tensor,
        n_noise: int,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.mean = nn.Parameter(mean)
        self.basis = nn.Parameter(basis)
        self.log_noise_scale = nn.Parameter(torch.zeros(n_noise))
        self.log_jitter = nn.Parameter(torch.full_like(mean, math.log(0.05)))
        self.encoder = encoder
        self.decoder = decoder

    @property
    def n_latent(self) -> int:
        return self.basis.shape[1]

    def variance(self, data: Prepared) -> tuple[Tensor, Tensor]:
        """(variance, weight) of every value, (n, n_values); the weight is 1/variance, exactly 0 where unmeasured."""
        good = data.ivar > 0
        scale = (2 * self.log_noise_scale.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE)).exp()[data.noise_index]
        variance = scale / torch.where(good, data.ivar, 1.0) + (2 * self.log_jitter).exp()
        return torch.where(good, variance, 1.0), torch.where(good, 1 / variance, 0.0)

    def linear_posterior(self, residual: Tensor, weight: Tensor) -> Posterior:
        """The exact posterior of the linear part for residuals x − mean; all shapes (n, n_values)."""
        # Wᵀ Ψ⁻¹ W for all objects as one matrix product over the upper triangle of its L × L entries
        i, j = torch.triu_indices(self.n_latent, self.n_latent, device=residual.device)
        upper = weight @ (self.basis[:, i] * self.basis[:, j])
        # L × L algebra in double precision: a bright object's precision matrix spans eight decades
        eye = torch.eye(self.n_latent, dtype=torch.float64, device=residual.device)
        precision = eye.repeat(len(residual), 1, 1)
        precision[:, i, j] += upper.double()
        precision[:, j, i] = precision[:, i, j]
        factor = torch.linalg.cholesky(precision)
        mean = torch.cholesky_solve(((weight * residual) @ self.basis).double().unsqueeze(2), factor).squeeze(
            2
        )
        whitener = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
        dtype = residual.dtype
        return Posterior(mean.to(dtype), whitener.to(dtype), torch.ones_like(mean, dtype=dtype))

    def encode(self, data: Prepared) -> Posterior:
        """q(z|x)."""
        _, weight = self.variance(data)
        residual = torch.where(weight > 0, data.x - self.mean, 0.0)
        q = self.linear_posterior(residual, weight)
        if self.encoder is None:
            return q
        left = (residual - q.mean @ self.basis.T) * weight.sqrt()
        # tanh: one wild pixel must not decide the correction
        seen = torch.stack([torch.tanh(left / 5), (weight > 0).to(left.dtype)], 1)
        correction = self.encoder(seen.to(NETWORK_DTYPE), q.mean.to(NETWORK_DTYPE)).to(left.dtype)
        shift, log_stretch = correction.chunk(2, 1)
        return Posterior(q.mean + shift, q.whitener, torch.exp(3 * torch.tanh(log_stretch / 3)))

    def decode(self, z: Tensor) -> Tensor:
        """Expected values, (n, n_values), for latents (n, L)."""
        linear = self.mean + z @ self.basis.T
        return linear if self.decoder is None else linear + self.decoder(z.to(NETWORK_DTYPE)).to(z.dtype)

    def log_likelihood(self, data: Prepared, z: Tensor) -> Tensor:
        """log p(x|z) over the measured values, (n,) nats."""
        variance, weight = self.variance(data)
        residual = torch.where(weight > 0, data.x - self.decode(z), 0.0)
        normaliser = (torch.where(weight > 0, variance.log() + LOG_2PI, 0.0)).sum(1)
        return -0.5 * ((weight * residual**2).sum(1) + normaliser)

    def linear_log_px(self, data: Prepared) -> Tensor:
        """log p(x) of the model without its decoder network, exactly, (n,) nats."""
        variance, weight = self.variance(data)
        residual = torch.where(weight > 0, data.x - self.mean, 0.0)
        q = self.linear_posterior(residual, weight)
        left = residual - q.mean @ self.basis.T
        quadratic = (weight * left**2).sum(1) + (q.mean**2).sum(1)
        normaliser = (torch.where(weight > 0, variance.log() + LOG_2PI, 0.0)).sum(1)
        return -0.5 * (quadratic + normaliser) + q._log_diagonal()

    def elbo(self, data: Prepared, eps: Tensor) -> Tensor:
        """E_q[log p(x|z)] − KL(q ‖ p), (n,) nats, with the expectation over the rows of ``eps`` (k, n, L)."""
        q = self.encode(data)
        return torch.stack([self.log_likelihood(data, q.sample(e)) for e in eps]).mean(0) - q.kl()
