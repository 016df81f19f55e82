"""From raw score parts to p-values: what is normal for this S/N and redshift, then a rank among held-out objects.

Three steps, all fitted on a calibration set that was drawn at random from the training inputs and never trained on:

1. each part is standardised by its location and upper spread at the object's S/N and redshift, so that faint or
   distant objects are compared with their like;
2. each standardised part becomes a surprisal −log₁₀ P(part ≥ value), from the calibration set's ranks, continued
   beyond its top tenth by a generalised Pareto tail (Pickands 1975), so that extreme objects keep their order;
3. the largest surprisal of an object is its score, and the score's rank in the calibration set its p-value
   (1 + #{calibration ≥ score}) / (1 + n), the split-conformal p-value (Vovk et al. 2005; Bates et al. 2023), uniform
   for objects drawn like the training set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COMBINED = {
    "spectrum": ("misfit", "window", "rarity", "domain"),
    "cutout": ("appearance", "domain"),
    "filled": ("appearance", "rarity", "remoteness", "domain"),
}
"""Parts that the score is the maximum of, for spectra, sources on a sky, and images that are filled, where place and
orientation matter, which ``appearance`` hardly sees; docs/science.md has the evidence."""
UNCONDITIONAL = ("domain",)
"""Parts that are zero for nearly everything and so have no typical value to be standardised by."""
TAIL_SHARE = 0.1
MAX_FOLDS = 40
"""Of the cross-fit that scores the calibration set; every object is a fold of its own in a smaller set."""
N_QUANTILES = 201
MIN_SPREAD = 0.02
"""Of a tail, in units of the part's own spread: what is never seen in the set is rare, not impossible."""


@dataclass(slots=True)
class Part:
    """The calibration of one part."""

    location: np.ndarray
    """(n_features,) regression of the part on the covariates' features."""
    log_spread: np.ndarray
    """(n_features,) regression of the log of its upper spread."""
    quantiles: np.ndarray
    """(N_QUANTILES,) of the standardised part up to the tail's threshold."""
    shape: float
    """ξ of the Pareto tail."""
    spread: float
    """β of the Pareto tail."""


@dataclass(slots=True)
class Calibration:
    """Calibration of all parts and of their combination."""

    centre: np.ndarray
    """(n_covariates,) and ``width``: standardise the covariates; ``low`` and ``high`` clip them to the set's range."""
    width: np.ndarray
    low: np.ndarray
    high: np.ndarray
    degree: int
    """Of the polynomial in the covariates: 0 to 2, by the size of the set."""
    combined: tuple[str, ...]
    """Names of the parts that the score is the maximum of."""
    parts: dict[str, Part]
    scores: np.ndarray
    """(n,) sorted combined scores of the calibration set."""

    @property
    def smallest_p(self) -> float:
        """The smallest p-value that this many calibration objects can resolve, 1 / (n + 1)."""
        return 1 / (len(self.scores) + 1)

    @classmethod
    def fit(
        cls, parts: dict[str, np.ndarray], covariates: np.ndarray, combined: tuple[str, ...]
    ) -> Calibration:
        """Calibrate on n held-out objects.

        Args:
            parts: (n,) values by name.
            covariates: (n, n_covariates).
            combined: names of the parts that make the score.

        Raises:
            ValueError: fewer than 5 objects, which could not resolve a p-value below 0.17.
        """
        n = len(covariates)
        if n < 5:
            raise ValueError(f"calibration needs at least 5 held-out objects, got {n}")
        low, high = np.quantile(covariates, [0.01, 0.99], axis=0)
        clipped = np.clip(covariates, low, high)
        centre, width = clipped.mean(0), np.maximum(clipped.std(0), 1e-9)
        degree = 0 if n < 60 else 1 if n < 300 else 2
        out = cls(centre, width, low, high, degree, combined, {}, np.zeros(0))
        # A test object had no part in the location and tail that it is judged by, so neither may a calibration
        # object: its score comes from a fit without it, or the ranks would be too easy to beat.
        score = np.empty(n)
        folds = np.arange(n) % min(n, MAX_FOLDS)
        for fold in np.unique(folds):
            mine = folds == fold
            out._fit_parts({name: value[~mine] for name, value in parts.items()}, covariates[~mine])
            left_out = {name: value[mine] for name, value in parts.items()}
            score[mine] = out.combine(out.surprisals(left_out, covariates[mine]))
        out._fit_parts(parts, covariates)
        out.scores = np.sort(score)
        return out

    def _fit_parts(self, parts: dict[str, np.ndarray], covariates: np.ndarray) -> None:
        features = self._features(covariates)
        self.parts = {
            name: _fit_part(value, features[:, :1] if name in UNCONDITIONAL else features)
            for name, value in parts.items()
        }

    def surprisals(self, parts: dict[str, np.ndarray], covariates: np.ndarray) -> dict[str, np.ndarray]:
        """−log₁₀ P(part ≥ value) of every part for n objects."""
        features = self._features(covariates)
        return {name: _surprisal(parts[name], features, part) for name, part in self.parts.items()}

    def combine(self, surprisals: dict[str, np.ndarray]) -> np.ndarray:
        """The score: the largest surprisal of the combined parts, (n,)."""
        return np.max([surprisals[name] for name in self.combined], axis=0)

    def p_value(self, score: np.ndarray) -> np.ndarray:
        """Split-conformal p-value of a combined score, in [smallest_p, 1]."""
        above = len(self.scores) - np.searchsorted(self.scores, score, side="left")
        return (1 + above) / (1 + len(self.scores))

    def part_p_values(self, surprisals: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """p-values of the single parts, bounded below like the score's."""
        return {name: np.maximum(10.0**-value, self.smallest_p) for name, value in surprisals.items()}

    def _features(self, covariates: np.ndarray) -> np.ndarray:
        c = (np.clip(covariates, self.low, self.high) - self.centre) / self.width
        columns = [np.ones(len(c))]
        if self.degree >= 1:
            columns += list(c.T)
        if self.degree >= 2:
            i, j = np.triu_indices(c.shape[1])
            columns += list((c[:, i] * c[:, j]).T)
        return np.stack(columns, 1)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """q-values of n p-values: the smallest false-discovery rate at which each is a discovery.

    Benjamini & Hochberg 1995, JRSS B 57, 289.
    """
    n = len(p)
    order = np.argsort(p)
    adjusted = p[order] * n / np.arange(1, n + 1)
    q = np.empty(n)
    q[order] = np.minimum(np.minimum.accumulate(adjusted[::-1])[::-1], 1.0)
    return q


def calibration_size(discoveries: int, n_objects: int, fdr: float) -> int:
    """Calibration objects needed for ``discoveries`` among ``n_objects`` to pass Benjamini–Hochberg at rate ``fdr``.

    The k-th smallest p-value must be at most fdr·k/n, so 1/(m + 1) must be too.
    """
    return int(np.ceil(n_objects / (fdr * discoveries))) - 1


def _fit_part(value: np.ndarray, features: np.ndarray) -> Part:
    location = _ridge(features, value, np.ones(len(value)))
    for _ in range(20):
        # Huber's weights (1964): anomalies in the calibration set must not bend the location
        residual = value - features @ location
        limit = 1.345 * 1.4826 * np.median(np.abs(residual)) + 1e-12
        location = _ridge(features, value, np.minimum(1, limit / np.maximum(np.abs(residual), 1e-12)))
    residual = value - features @ location
    # a part that is the same for most objects has no spread of its own, and keeps its natural unit
    typical = float(np.median(np.abs(residual)))
    typical = typical if typical > 1e-9 * (1 + float(np.abs(value).max())) else 1.0
    upper = residual > 0
    log_spread = np.zeros(features.shape[1])
    log_spread[0] = np.log(typical)
    if upper.sum() > 10 * features.shape[1]:
        log_spread = _ridge(features[upper], np.log(residual[upper] + 0.1 * typical), np.ones(upper.sum()))
    ordered = np.sort(residual / np.exp(features @ log_spread))
    threshold = np.quantile(ordered, 1 - TAIL_SHARE)
    shape, spread = _pareto(ordered[ordered > threshold] - threshold)
    quantiles = np.quantile(ordered, np.linspace(0, 1 - TAIL_SHARE, N_QUANTILES))
    return Part(location, log_spread, quantiles, shape, spread)


def _surprisal(value: np.ndarray, features: np.ndarray, part: Part) -> np.ndarray:
    features = features[:, : len(part.location)]
    u = (value - features @ part.location) / np.exp(features @ part.log_spread)
    threshold = part.quantiles[-1]
    # the left end of ties: many equal values (a part that is zero inside the domain) are no surprise
    rank = np.searchsorted(part.quantiles, u, side="left")
    step = (1 - TAIL_SHARE) / (N_QUANTILES - 1)
    left = part.quantiles[np.clip(rank - 1, 0, N_QUANTILES - 1)]
    right = part.quantiles[np.clip(rank, 0, N_QUANTILES - 1)]
    part_way = np.clip((u - left) / np.where(right > left, right - left, 1), 0, 1)
    below = np.clip((rank - 1 + part_way) * step, 0, 1 - TAIL_SHARE)
    over = np.maximum(u - threshold, 0) / part.spread
    tail = np.log1p(part.shape * over) / part.shape if part.shape > 0 else over
    return np.where(u > threshold, -np.log10(TAIL_SHARE) + tail / np.log(10), -np.log10(1 - below))


def _pareto(excess: np.ndarray) -> tuple[float, float]:
    """ξ ≥ 0 and β of a generalised Pareto tail by probability-weighted moments (Hosking & Wallis 1987, eq. 10)."""
    if len(excess) == 0:
        return 0.0, MIN_SPREAD
    mean = max(float(excess.mean()), MIN_SPREAD)
    if len(excess) < 10:
        return 0.0, mean
    ordered = np.sort(excess)
    n = len(ordered)
    weighted = float((ordered * (1 - (np.arange(1, n + 1) - 0.35) / n)).mean())
    ratio = mean / (mean - 2 * weighted) if mean > 2 * weighted else np.inf
    shape = float(np.clip(2 - ratio, 0.0, 0.9)) if np.isfinite(ratio) else 0.0
    return shape, mean * (1 - shape)


def _ridge(features: np.ndarray, value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    normal = (features * weight[:, None]).T @ features + 1e-6 * np.eye(features.shape[1])
    return np.linalg.solve(normal, features.T @ (weight * value))
