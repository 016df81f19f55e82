"""What one person finds interesting, learnt from a few labels.

A Gaussian process (Rasmussen & Williams 2006, eq. 2.38) over latents and parts of the score. Its prior mean falls with
the place in the raw ranking, so that far from every label the raw order stays; near a label, objects follow the label.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

PLACES = 3000
"""So many places down the raw ranking weigh as much as an interesting object right beside."""
UNWANTED = -0.6
"""Target of an unwanted object; 1 is that of a wanted one. There are far more unwanted ones, of many sorts."""
LENGTH = 0.5
"""Of the exponential kernel, in units of the root mean square over latents and over parts."""
N_TREES = 100
NOISE = 0.1
"""Variance of a label."""
CLIPPED = 0.001
"""Share of the objects at either end of each latent that are clipped: beyond it an object is far, however far."""
SMALLEST_P = 1e-8


def interest(
    latent: np.ndarray, part_p: np.ndarray, raw: np.ndarray, labelled: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """The place in a person's ranking of n objects, (n,): larger is more interesting.

    Args:
        latent: (n, n_latent).
        part_p: (n, n_parts) p-values of the parts of the score.
        raw: (n,) scores, larger is more anomalous.
        labelled: (m,) indices of the objects that the person has labelled.
        wanted: (m,) whether they want to see more like it.

    Raises:
        ValueError: shapes that do not fit.
    """
    n = len(raw)
    if latent.shape[:1] != (n,) or part_p.shape[:1] != (n,):
        raise ValueError(
            f"latents, parts and scores need the same rows, got {latent.shape}, {part_p.shape}, {raw.shape}"
        )
    if labelled.shape != wanted.shape or (labelled >= n).any():
        raise ValueError(f"one label each for some of {n} objects, got {labelled.shape} and {wanted.shape}")
    prior = -(rankdata(-raw) - 1) / PLACES
    if not len(labelled):
        return prior
    kernel = _kernel(_features(latent, part_p), raw, labelled)
    noisy = kernel[labelled] + NOISE * np.eye(len(labelled))
    surprise = np.where(wanted, 1.0, UNWANTED) - prior[labelled]
    result: np.ndarray = prior + kernel @ cho_solve(cho_factor(noisy), surprise)
    return result


def _kernel(x: np.ndarray, raw: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """How alike the n objects are to the m labelled ones, (n, m), from 0 to 1.

    The mean of an exponential of the distance, and of the share of the trees of an isolation forest in which both end
    in the same leaf: fine where objects are many and coarse where they are rare (Ting et al. 2018).
    """
    from scipy.sparse import csr_array
    from sklearn.ensemble import IsolationForest

    columns = np.hstack([x, raw[:, None]]).astype(np.float32)
    trees = (
        IsolationForest(n_estimators=N_TREES, max_samples=min(256, len(x)), random_state=0)
        .fit(columns)
        .estimators_
    )
    leaves = np.stack([tree.tree_.apply(columns) for tree in trees], 1)
    width = leaves.max() + 1
    ends = csr_array(
        (
            np.ones(leaves.size, np.float32),
            (leaves + width * np.arange(N_TREES)).ravel(),
            np.arange(0, leaves.size + 1, N_TREES),
        ),
        shape=(len(x), width * N_TREES),
    )
    shared = (ends @ ends[labelled].T).toarray() / N_TREES
    result: np.ndarray = 0.5 * (shared + np.exp(-cdist(x, x[labelled])))
    return result


def _features(latent: np.ndarray, part_p: np.ndarray) -> np.ndarray:
    """(n, n_latent + n_parts), where a distance of 1 is far enough to differ."""
    clipped = np.clip(latent, *np.quantile(latent, [CLIPPED, 1 - CLIPPED], axis=0))
    z = (clipped - clipped.mean(0)) / np.maximum(clipped.std(0), 1e-12)
    surprisal = np.log1p(-np.log10(np.clip(part_p, SMALLEST_P, 1)))
    blocks = [block / np.sqrt(block.shape[1]) for block in (z, surprisal) if block.shape[1]]
    return np.hstack(blocks) / LENGTH
