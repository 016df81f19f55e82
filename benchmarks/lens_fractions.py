"""Is the expected lens fraction calibrated? Simulated cutouts, half of them labelled, the other half counted.

    python -m benchmarks.lens_fractions [--train 1500] [--fresh 2000] [--rate 0.4] [--epochs 6]

Two models that differ only in their seed are trained on simulated cutouts, lenses and other anomalies among them: the
anomalies are of seven kinds in equal shares, so that a rate of 0.4 gives 5.7 % lenses. A random half of a fresh set is
labelled by the truth, and every object of the other half gets its expected lens fraction, as the catalog would give it
(service/catalog/lens.py). Printed are a reliability table, the Brier score beside that of the labelled half's overall
fraction, how many clusters' intervals hold what the other half shows, how far the two models' clusters agree, and how
well labelled neighbours in the latent space would have told lenses, which says what the clusters leave unused.
A 95 % interval of a cluster's fraction must hold the observed fraction less often than that, as a few objects show the
fraction only roughly; the beta-binomial interval of their count should hold it in 95 %.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from scipy.special import betaincinv
from scipy.stats import betabinom
from sklearn.metrics import adjusted_rand_score, brier_score_loss, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from models.fit import fit_cutouts
from models.scorer import Scorer
from service.catalog.lens import LensFraction, expected_lens_fractions
from workers.batching import Sample
from workers.simulate import simulate
from workers.training import cutout_batches, read_samples

MODEL = "one"
EDGES = (0, 0.01, 0.03, 0.1, 0.3, 1.0000001)
N_SPLITS = 20
N_NEIGHBOURS = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--fresh", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=0.4, help="share of anomalies; a seventh are lenses")
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        train, _ = simulated(Path(folder) / "train", options.train, 1, options.rate)
        fresh, is_lens = simulated(Path(folder) / "fresh", options.fresh, 2, options.rate)
    print(f"{len(train)} training cutouts, {len(fresh)} fresh ones, {is_lens.mean():.1%} of them lenses")
    found = []
    for seed in (0, 1):
        start = time.perf_counter()
        found.append(embedded(train, fresh, options.epochs, seed))
        sizes = sorted(Counter(found[-1][0].argmax(1).tolist()).values(), reverse=True)
        seconds = time.perf_counter() - start
        print(f"seed {seed}: {len(sizes)} clusters of {', '.join(map(str, sizes))} ({seconds:.0f} s)")
    agreement = adjusted_rand_score(*(some.argmax(1) for some, _ in found))
    print(f"adjusted Rand index of the two models' clusters on the fresh set: {agreement:.2f}")
    for seed, (some, latent) in enumerate(found):
        print(f"\nModel of seed {seed}")
        measure(some, latent, is_lens)


def simulated(folder: Path, n: int, seed: int, rate: float) -> tuple[list[Sample], np.ndarray]:
    """Simulated cutouts, and which of them are lenses, (n,) bool."""
    with simulate("cutout", n, folder, seed, rate).open(newline="") as file:
        classes = {str(folder / row["path"]): row["class"] for row in csv.DictReader(file)}
    samples, left_out = read_samples("cutout", list(classes))
    if left_out:
        raise RuntimeError(f"the reader refused simulated files: {dict(left_out)}")
    return samples, np.array([classes[sample.path] == "lens" for sample in samples])


def embedded(
    train: list[Sample], fresh: list[Sample], epochs: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Responsibilities (n, n_clusters) and latents (n, n_latent) of the fresh cutouts, float32."""
    bundle = fit_cutouts(
        list(cutout_batches(train)), ("g", "r", "i"), MODEL, fingerprint="", epochs=epochs, seed=seed
    )
    scorer = Scorer.from_parts(bundle, torch.device("cpu"))
    parts = (fresh[k : k + 256] for k in range(0, len(fresh), 256))
    batches = (batch for part in parts for batch in cutout_batches(part))
    scores = [scorer.score(batch) for batch in batches]
    return np.concatenate([s.responsibilities for s in scores]), np.concatenate([s.latent for s in scores])


def measure(some: np.ndarray, latent: np.ndarray, is_lens: np.ndarray) -> None:
    """Print the tables of one labelled half, and the mean Brier scores over N_SPLITS halves."""
    expected, other, fractions = halves(some, is_lens, 0)
    observed, clusters = is_lens[other], some[other].argmax(1)
    print("  expected        n   mean expected   observed (95 %)")
    for low, high in itertools.pairwise(EDGES):
        chosen = (expected >= low) & (expected < high)
        n, n_lens = int(chosen.sum()), int(observed[chosen].sum())
        if n:
            bottom, top = interval(n_lens, n)
            shown = f"{expected[chosen].mean():14.1%}   {n_lens / n:6.1%} ({bottom:.1%}–{top:.1%})"
        else:
            shown = "             –"
        print(f"  {low:4.0%} to {high:4.0%} {n:6d} {shown}")
    print(f"  {'all':12s} {len(expected):6d} {expected.mean():14.1%}   {observed.mean():6.1%}")

    n_clusters = in_interval = in_prediction = 0
    for k, fraction in fractions.items():
        members = observed[clusters == k]
        if not len(members):
            continue
        n_clusters += 1
        low, high = fraction.interval
        in_interval += low <= members.mean() <= high
        a, b = fraction.n_lens + 0.5, fraction.n_labelled - fraction.n_lens + 0.5
        low, high = betabinom.ppf([0.025, 0.975], len(members), a, b)
        in_prediction += low <= members.sum() <= high
    print(f"  the other half's fraction lies in {in_interval} of {n_clusters} clusters' 95 % intervals,")
    print(f"  its count in {in_prediction} of {n_clusters} beta-binomial 95 % intervals")

    brier, constant, auroc, near = [], [], [], []
    latent = latent / latent.std(0)
    for split in range(N_SPLITS):
        expected, other, fractions = halves(some, is_lens, split)
        observed = is_lens[other]
        overall = sum(f.n_lens for f in fractions.values()) / sum(f.n_labelled for f in fractions.values())
        brier.append(brier_score_loss(observed, expected))
        constant.append(brier_score_loss(observed, np.full(len(observed), overall)))
        auroc.append(roc_auc_score(observed, expected))
        labelled = np.setdiff1d(np.arange(len(some)), other)
        neighbours = KNeighborsClassifier(N_NEIGHBOURS).fit(latent[labelled], is_lens[labelled])
        near.append(roc_auc_score(observed, neighbours.predict_proba(latent[other])[:, 1]))
    gain = 1 - np.array(brier) / np.array(constant)
    print(
        f"  over {N_SPLITS} random halves: Brier {np.mean(brier):.4f}, skill {gain.mean():.3f} ± {gain.std():.3f}"
    )
    print(f"  beside {np.mean(constant):.4f} of the overall fraction; AUROC {np.mean(auroc):.3f}, beside")
    print(f"  {np.mean(near):.3f} of the share of lenses among the {N_NEIGHBOURS} nearest labelled latents")


def halves(
    some: np.ndarray, is_lens: np.ndarray, split: int
) -> tuple[np.ndarray, np.ndarray, dict[int, LensFraction]]:
    """Label a random half.

    Returns the other half's expected lens fractions and its indices, both (m,), and the lens fractions of the labelled
    half by cluster. Objects of clusters without labels have no expected fraction and are left out.
    """
    order = np.random.default_rng([split, 7]).permutation(len(some))
    labelled, other = np.array_split(order, 2)
    cluster = some.argmax(1)
    fractions = {
        int(k): LensFraction(
            int((cluster[labelled] == k).sum()), int(is_lens[labelled][cluster[labelled] == k].sum())
        )
        for k in np.unique(cluster[labelled])
    }
    rows = [(MODEL, int(cluster[i]), some[i].astype("<f4").tobytes()) for i in other]
    expected = expected_lens_fractions(rows, {MODEL: fractions})
    known = [k for k, value in enumerate(expected) if value is not None]
    return np.array([expected[k] for k in known], float), other[known], fractions


def interval(n_lens: int, n: int) -> tuple[float, float]:
    """Clopper–Pearson 95 % interval of a binomial share."""
    low = betaincinv(n_lens, n - n_lens + 1, 0.025) if n_lens else 0.0
    high = betaincinv(n_lens + 1, n - n_lens, 0.975) if n_lens < n else 1.0
    return float(low), float(high)


if __name__ == "__main__":
    main()
