"""What anyone would try first, on the same normalised inputs as the model: the scores that it has to beat."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.mixture import BayesianGaussianMixture
from sklearn.neighbors import NearestNeighbors

from models.prepared import Prepared

N_COMPONENTS = 16
N_MIXTURE = 24


def baseline_scores(train: Prepared, test: Prepared, seed: int = 0) -> dict[str, np.ndarray]:
    """Anomaly scores (n_test,) of four baselines fitted on ``train``, by name.

    Unmeasured values are filled with the training mean, as PCA needs a full matrix. ``pca-error`` is the squared
    distance to the reconstruction from 16 components, the others work on those components: ``pca-mixture`` is minus
    the log density of a Dirichlet-process mixture truncated at 24, ``isolation-forest`` and ``neighbours`` (mean
    distance to the nearest 10) are scikit-learn's.

    Raises ValueError for fewer than 3 training objects.
    """
    if len(train) < 3:
        raise ValueError(f"baselines need at least 3 objects to be fitted on, got {len(train)}")
    mean = _mean(train)
    x_train, x_test = _filled(train, mean), _filled(test, mean)
    pca = PCA(min(N_COMPONENTS, len(train) - 1), svd_solver="randomized", random_state=seed).fit(x_train)
    z_train, z_test = pca.transform(x_train), pca.transform(x_test)
    scale = z_train.std(0) + 1e-12
    mixture = BayesianGaussianMixture(
        n_components=min(N_MIXTURE, max(1, len(train) // 10)),
        weight_concentration_prior_type="dirichlet_process",
        reg_covar=1e-4,
        random_state=seed,
        max_iter=200,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its last digits may not have converged; the ranking has
        mixture.fit(z_train / scale)
    near = NearestNeighbors(n_neighbors=min(10, len(train) - 1)).fit(z_train / scale)
    return {
        "pca-error": ((x_test - pca.inverse_transform(z_test)) ** 2).mean(1),
        "pca-mixture": -mixture.score_samples(z_test / scale),
        "isolation-forest": -IsolationForest(random_state=seed)
        .fit(z_train / scale)
        .score_samples(z_test / scale),
        "neighbours": near.kneighbors(z_test / scale)[0].mean(1),
    }


def _mean(data: Prepared) -> np.ndarray:
    good = data.ivar.numpy() > 0
    return np.where(good, data.x.numpy(), 0).sum(0) / np.maximum(good.sum(0), 1)


def _filled(data: Prepared, mean: np.ndarray) -> np.ndarray:
    # ±20: one hot pixel must not take a principal component for itself
    return np.clip(np.where(data.ivar.numpy() > 0, data.x.numpy(), mean), mean - 20, mean + 20).astype(
        np.float32
    )
