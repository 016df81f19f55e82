"""Training a bundle from batches of arrays: split, fit the VAE, the mixtures and the calibration."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import sklearn
import torch

from models.appearance import Appearance
from models.batch import CutoutBatch, SpectrumBatch
from models.bundle import FORMAT, Bundle
from models.calibration import COMBINED, Calibration
from models.cutouts import CutoutPreprocessing
from models.fitted import Fitted
from models.flow import MIN_OBJECTS, LatentFlow
from models.mixture import choose_mixture
from models.parts import weigh
from models.prepared import Prepared
from models.scorer import CHUNK, Preprocessing, calibration_arrays
from models.spectra import SpectrumPreprocessing
from models.training import Progress, Resume, choose_n_latent, fit_linear, fit_network
from models.vae import VAE

SMALLEST = 20
"""Fewest training objects: 14 to fit 2 latent dimensions, 6 to calibrate."""
MAX_NEIGHBOURS = 5000
DEFAULT_EPOCHS = {"spectrum": 25, "cutout": 30}


@dataclass(slots=True)
class Split:
    """Indices of a random split: the calibration set is drawn at random, never by order."""

    train: np.ndarray
    held_out: np.ndarray
    """Stops the training early and judges the network."""
    calibration: np.ndarray


def split(n: int, seed: int) -> Split:
    """70 % to train, 10 % to stop the training early, 20 % to calibrate; small sets stop early on calibration objects.

    Raises ValueError for fewer than SMALLEST objects.
    """
    if n < SMALLEST:
        raise ValueError(f"training needs at least {SMALLEST} objects, got {n}")
    order = np.random.default_rng([seed, 1]).permutation(n)
    if n < 500:
        n_calibration = max(6, round(0.3 * n))
        return Split(order[n_calibration:], order[:n_calibration], order[:n_calibration])
    a, b = round(0.2 * n), round(0.3 * n)
    return Split(order[b:], order[a:b], order[:a])


def fit_spectra(
    batch: SpectrumBatch, name: str, *, fingerprint: str, epochs: int | None = None, seed: int = 0,
    progress: Progress = lambda *_: None, checkpoint: Path | None = None,
) -> Bundle:  # fmt: skip
    """Train a spectral bundle on n spectra.

    Args:
        fingerprint: hash of the training inputs, kept in the bundle.
        epochs: passes of the network's training; 0 keeps the linear model.
        checkpoint: file from which an interrupted training of the same inputs goes on.

    Raises:
        ValueError: too few spectra, no common wavelengths, or no variation.
    """
    part = split(len(batch), seed)
    rows = part.train
    preprocessing = SpectrumPreprocessing.fit(
        SpectrumBatch(batch.flux[rows], batch.ivar[rows], batch.first[rows], batch.redshift[rows])
    )
    return _fit(
        preprocessing, preprocessing(batch), part, name, fingerprint, epochs, seed, progress, checkpoint
    )


def fit_cutouts(
    batches: Sequence[CutoutBatch], bands: tuple[str, ...], name: str, *, fingerprint: str, epochs: int | None = None,
    seed: int = 0, progress: Progress = lambda *_: None, checkpoint: Path | None = None,
) -> Bundle:  # fmt: skip
    """Train a cutout bundle on batches that may differ in image size; otherwise as ``fit_spectra``."""
    n = sum(len(b) for b in batches)
    part = split(n, seed)
    chosen, offset = [], 0
    for b in batches:
        rows = part.train[(part.train >= offset) & (part.train < offset + len(b))] - offset
        if len(rows):
            chosen.append(CutoutBatch(b.flux[rows], b.ivar[rows]))
        offset += len(b)
    preprocessing = CutoutPreprocessing.fit(chosen, bands)
    size = 256
    prepared = Prepared.join(
        [
            preprocessing(CutoutBatch(b.flux[k : k + size], b.ivar[k : k + size]))
            for b in batches
            for k in range(0, len(b), size)
        ]
    )
    return _fit(preprocessing, prepared, part, name, fingerprint, epochs, seed, progress, checkpoint)


def _fit(
    preprocessing: Preprocessing, data: Prepared, part: Split, name: str, fingerprint: str, epochs: int | None,
    seed: int, progress: Progress, checkpoint: Path | None,
) -> Bundle:  # fmt: skip
    kind, shape = preprocessing.kind, preprocessing.shape
    train, held_out, calibration_set = (data.rows(i) for i in (part.train, part.held_out, part.calibration))
    highest = torch.where(train.ivar > 0, train.x, -torch.inf).amax(0)
    lowest = torch.where(train.ivar > 0, train.x, torch.inf).amin(0)
    # 1e-5: what rounding in single precision may add to equal objects
    if not (highest - lowest > 1e-5 * highest.abs()).any():
        raise ValueError("the training objects are all the same: a density model needs objects that differ")
    epochs = DEFAULT_EPOCHS[kind] if epochs is None else epochs
    n_latent = min(choose_n_latent(len(train)), preprocessing.n_values // 2)
    resume = Resume(checkpoint, f"{fingerprint} {kind} {seed} {epochs} {n_latent}")
    linear = fit_linear(train, held_out, preprocessing.n_noise, n_latent, seed, progress, resume)
    # a source on a sky has no preferred orientation; what fills its image may have one
    vary = None
    if isinstance(preprocessing, CutoutPreprocessing) and preprocessing.stretch == "asinh":
        vary = preprocessing.turned
    model, figures = fit_network(linear, train, held_out, shape, epochs, seed, progress, resume, vary)
    model = model.eval()
    latents, covariances = _embed(model, train, CHUNK[kind])
    mixture = choose_mixture(
        latents.double(), covariances.double(), _embed(model, held_out, CHUNK[kind])[0].double(), seed
    )
    some = np.random.default_rng([seed, 2]).permutation(len(latents))[:MAX_NEIGHBOURS]
    neighbours = latents[torch.from_numpy(some)]
    flow = LatentFlow.fit(latents, covariances, seed) if len(latents) >= MIN_OBJECTS else None
    appearance, combination = None, kind
    if isinstance(preprocessing, CutoutPreprocessing) and train.image is not None and train.seen is not None:
        combination = "filled" if preprocessing.stretch == "linear" else kind
        appearance = Appearance.fit(train.image[:MAX_NEIGHBOURS], train.seen[:MAX_NEIGHBOURS])
    fitted = Fitted(kind, shape, model, mixture.mixture, neighbours, flow, appearance)
    weighed, chi2 = _weigh_all(fitted.for_scoring(torch.device("cpu")), calibration_set)
    covariates, snr = calibration_set.covariates.numpy(), calibration_set.snr.numpy()
    calibration = Calibration.fit(weighed, covariates, COMBINED[combination])
    resume.done()
    thirds = np.array_split(chi2[np.argsort(snr)], 3)
    spec, arrays = calibration_arrays(calibration)
    return Bundle(
        {
            "format": FORMAT,
            "name": name,
            "version": "unsaved",
            "kind": kind,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "preprocessing": preprocessing.to_json(),
            "network": fitted.describe(),
            "calibration": spec,
            "training": {
                "fingerprint": fingerprint, "seed": seed, "epochs": epochs,
                "n_train": len(train), "n_held_out": len(held_out), "n_calibration": len(calibration_set),
            },
            "held_out": {
                **{k: round(v, 3) for k, v in figures.items()},
                "chi2_by_snr_third": [round(float(np.median(t)), 4) for t in thirds],
                "smallest_p": calibration.smallest_p,
                "latent_log_density": {str(k): round(v, 3) for k, v in mixture.held_out.items()},
                "dirichlet_weights": [round(w, 4) for w in mixture.dirichlet_weights],
            },
            "versions": {
                "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
                "scikit-learn": sklearn.__version__,
            },
        },
        fitted.arrays() | arrays,
    )  # fmt: skip


def fingerprint(hashes: Sequence[str]) -> str:
    """One hash of a training set from the hashes of its files, whatever their order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def _embed(model: VAE, data: Prepared, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        rows = [data.rows(slice(k, k + size)) for k in range(0, len(data), size)]
        q = [model.encode(some, model.weight(some)) for some in rows]
    return torch.cat([p.mean for p in q]).float(), torch.cat([p.covariance for p in q]).float()


def _weigh_all(fitted: Fitted, data: Prepared) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All parts by name, and χ² per degree of freedom, both (n,)."""
    size = CHUNK[fitted.kind]
    with torch.no_grad():
        found = [weigh(fitted, data.rows(slice(k, k + size))) for k in range(0, len(data), size)]
    parts = {name: torch.cat([e.parts[name] for e in found]).double().numpy() for name in found[0].parts}
    return parts, torch.cat([e.chi2 for e in found]).numpy()
