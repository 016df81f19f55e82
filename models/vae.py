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

from models.mixture import Mixture, cholesky
from models.networks import Decoder
from models.prepared import Prepared

LOG_2PI = math.log(2 * math.pi)
MAX_LOG_SCALE = 0.7
"""The pipeline's noise is believed within a factor of 2: few objects at the edge of the grid must not say otherwise."""


@dataclass(slots=True)
class Posterior:
    """q(z|x) = N(mean, C⁻ᵀ diag(stretch) C⁻¹) for n objects, in double precision."""

    mean: Tensor
    """(n, L)."""
    whitener: Tensor
    """(n, L, L) C⁻¹, lower triangular, the inverse Cholesky factor of the linear posterior's precision."""
    factor: Tensor
    """(n, L, L) C, lower triangular."""
    stretch: Tensor
    """(n, L) variances along the whitened axes; 1 where the linear posterior holds."""

    @property
    def covariance(self) -> Tensor:
        """(n, L, L)."""
        return torch.einsum("nki,nk,nkj->nij", self.whitener, self.stretch, self.whitener)

    @property
    def precision(self) -> Tensor:
        """(n, L, L), the inverse of the covariance."""
        return (self.factor / self.stretch.unsqueeze(1)) @ self.factor.transpose(1, 2)

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

    def log_evidence_gain(self, mixture: Mixture, log_joint: Tensor) -> Tensor:
        """log p(x) under a mixture as prior of the latents over that under N(0, I), (n,) nats.

        log Σ_k w_k ∫ q(z) N(z; μ_k, Σ_k) / N(z; 0, I) dz in closed form, for q the posterior under N(0, I), over the
        three components of the largest ``log_joint`` (n, K), which leave nothing to the others.
        """
        k = log_joint.topk(min(3, log_joint.shape[1]), dim=1).indices
        sharpness = torch.linalg.inv_ex(mixture.covariances).inverse
        pull = (sharpness @ mixture.means.unsqueeze(2)).squeeze(2)
        constant = mixture.weights.clamp(min=1e-300).log() + 0.5 * (
            torch.linalg.slogdet(sharpness).logabsdet - (pull * mixture.means).sum(1)
        )
        own, eye = (
            self.precision,
            torch.eye(self.mean.shape[1], dtype=self.mean.dtype, device=self.mean.device),
        )
        own_pull = (own @ self.mean.unsqueeze(2)).squeeze(2)
        # a network may widen q beyond the prior; where no Gaussian is left of the integrand, nothing is gained
        factor, failed = torch.linalg.cholesky_ex((own - eye).unsqueeze(1) + sharpness[k])
        white = torch.linalg.solve_triangular(
            factor, (own_pull.unsqueeze(1) + pull[k]).unsqueeze(3), upper=False
        )
        integral = constant[k] + 0.5 * (white**2).sum((2, 3)) - _log_diagonal(factor)
        gain = torch.where(failed > 0, -torch.inf, integral).logsumexp(1)
        log_det = -2 * _log_diagonal(self.whitener) - self.stretch.log().sum(1)
        gain = gain + 0.5 * (log_det - (self.mean * own_pull).sum(1))
        return torch.where(gain.isfinite(), gain, 0.0)

    def _log_diagonal(self) -> Tensor:
        return _log_diagonal(self.whitener)


def _log_diagonal(factor: Tensor) -> Tensor:
    """Σ log of the diagonal of matrices (…, L, L)."""
    return torch.diagonal(factor, dim1=-2, dim2=-1).log().sum(-1)


class VAE(nn.Module):
    """A VAE over flat rows of ``n_values`` values; see the module's docstring for the model.

    ``encoder`` maps (n, 2, n_values) whitened residuals and mask, and (n, L) the linear posterior mean, to (n, 2 L)
    corrections; ``decoder`` maps (n, L) to (n, n_values). Both may be None: then this is factor analysis.

    Values, weights and networks are in single precision, the L × L algebra and all sums over values in double: a bright
    object's precision matrix spans eight decades, and a row must not depend on the rows beside it.
    """

    _upper: Tensor
    """(2, L (L + 1) / 2) row and column of the entries of a symmetric matrix that are kept."""
    _entry: Tensor
    """(L · L,) which of them each entry of the whole matrix is."""

    def __init__(
        self,
        mean: Tensor,
        basis: Tensor,
        n_noise: int,
        encoder: nn.Module | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        super().__init__()
        self.mean = nn.Parameter(mean)
        self.basis = nn.Parameter(basis)
        self.log_noise_scale = nn.Parameter(torch.zeros(n_noise))
        self.log_jitter = nn.Parameter(torch.full_like(mean, math.log(0.05)))
        self.encoder = encoder
        self.decoder = decoder
        i, j = torch.triu_indices(self.n_latent, self.n_latent)
        entry = torch.empty(self.n_latent, self.n_latent, dtype=torch.int64)
        entry[i, j] = entry[j, i] = torch.arange(len(i))
        self.register_buffer("_upper", torch.stack([i, j]), persistent=False)
        self.register_buffer("_entry", entry.flatten(), persistent=False)
        self._frozen: tuple[tuple[Tensor, Tensor], Tensor] | None = None

    @property
    def n_latent(self) -> int:
        return self.basis.shape[1]

    def freeze(self) -> VAE:
        """Itself, for scoring only: what is made of the parameters is kept instead of being made for every batch."""
        self.eval().requires_grad_(False)
        self._frozen = self._products(), self._drawing()
        return self

    def weight(self, data: Prepared) -> Tensor:
        """Inverse variance of every value given the latent, (n, n_values); exactly 0 where unmeasured."""
        table = (2 * self.log_noise_scale.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE)).exp()
        scale = table.expand(len(data.noise_index), -1).gather(1, data.noise_index)
        return data.ivar / (scale + (2 * self.log_jitter).exp() * data.ivar)

    def linear_posterior(self, residual: Tensor, weight: Tensor) -> Posterior:
        """The exact posterior of the linear part for residuals x − mean; all shapes (n, n_values)."""
        basis, products = self._frozen[0] if self._frozen else self._products()
        # Wᵀ Ψ⁻¹ W for all objects as one matrix product over the upper triangle of its L × L entries
        upper = weight.double() @ products
        eye = torch.eye(self.n_latent, dtype=torch.float64, device=residual.device)
        factor = cholesky(eye + upper[:, self._entry].unflatten(1, eye.shape))
        right = ((weight * residual).double() @ basis).unsqueeze(2)
        mean = torch.cholesky_solve(right, factor).squeeze(2)
        whitener = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
        return Posterior(mean, whitener, factor, torch.ones_like(mean))

    def encode(self, data: Prepared, weight: Tensor) -> Posterior:
        """q(z|x), given ``self.weight(data)``."""
        residual = data.x - self.mean
        q = self.linear_posterior(residual, weight)
        if self.encoder is None:
            return q
        linear = q.mean.float()
        # detached: what the networks see must not teach the noise scales
        left = (residual - linear @ self.basis.T) * weight.detach().sqrt()
        # tanh: one wild pixel must not decide the correction
        seen = torch.stack([torch.tanh(left / 5), weight.detach().sign()], 1)
        shift, log_stretch = self.encoder(seen, linear).double().chunk(2, 1)
        return Posterior(q.mean + shift, q.whitener, q.factor, torch.exp(3 * torch.tanh(log_stretch / 3)))

    def decode(self, z: Tensor) -> Tensor:
        """Expected values, (n, n_values), for latents (n, L)."""
        return torch.mm(*self._drawn(z))

    def left_over(self, x: Tensor, z: Tensor) -> Tensor:
        """x − decode(z), both (n, n_values), in one go."""
        return torch.addmm(x, *self._drawn(z), alpha=-1)

    def misfit(self, data: Prepared, weight: Tensor, z: Tensor) -> Tensor:
        """Σ weight (x − decode(z))² over the measured values, (n,) float64."""
        return (weight * self.left_over(data.x, z) ** 2).sum(1, dtype=torch.float64)

    def linear_log_px(self, data: Prepared) -> Tensor:
        """log p(x) of the model without its decoder network, exactly, (n,) nats."""
        weight = self.weight(data)
        residual = data.x - self.mean
        q = self.linear_posterior(residual, weight)
        left = residual - q.mean.float() @ self.basis.T
        quadratic = (weight * left**2).sum(1, dtype=torch.float64) + (q.mean**2).sum(1)
        return -0.5 * (quadratic + normaliser(weight)) + q._log_diagonal()

    def elbo(self, data: Prepared, eps: Tensor) -> Tensor:
        """E_q[log p(x|z)] − KL(q ‖ p), (n,) nats, with the expectation over the rows of ``eps`` (k, n, L)."""
        weight = self.weight(data)
        q = self.encode(data, weight)
        misfit = torch.stack([self.misfit(data, weight, q.sample(e)) for e in eps]).mean(0)
        return -0.5 * (misfit + normaliser(weight)) - q.kl()

    def _products(self) -> tuple[Tensor, Tensor]:
        """The basis W, (n_values, L), and W_i · W_j for i ≤ j, (n_values, L (L + 1) / 2), in double precision."""
        basis = self.basis.double()
        i, j = self._upper
        return basis, basis[:, i] * basis[:, j]

    def _drawn(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What is said of each object, (n, m), and the (m, n_values) matrix that makes values of it."""
        said = [z.float(), torch.ones_like(z[:, :1], dtype=torch.float32)]
        if self.decoder is not None:
            said.append(self.decoder.hidden(said[0]))
        return torch.cat(said, 1), self._frozen[1] if self._frozen else self._drawing()

    def _drawing(self) -> Tensor:
        """The basis, the mean and the decoder's last layer as one matrix, (m, n_values)."""
        if self.decoder is None:
            return torch.cat([self.basis, self.mean[:, None]], 1).T
        last = self.decoder.last
        return torch.cat([self.basis, (self.mean + last.bias)[:, None], last.weight], 1).T


def normaliser(weight: Tensor) -> Tensor:
    """Σ log(2π / weight) over the measured values, (n,) nats: −2 log p(x|z) of a perfect reconstruction."""
    seen = weight.detach().sign()
    return (LOG_2PI * seen - (weight + (1 - seen)).log()).sum(1, dtype=torch.float64)
