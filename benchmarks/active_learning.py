"""How many wanted anomalies a person finds among the first 100 they look at, when their labels change the ranking.

    pip install 'peculiar[bench]'
    python -m benchmarks.active_learning --cache FOLDER [--kinds spectrum,cutout] [--seeds 14,15,16]

A model is trained on a simulated survey of seed 1, with the defaults of `peculiar train`, and scores simulated nights
of other seeds. A tenth of a night is anomalous, as the top of a far larger night's ranking would be. Each kind of
anomaly in turn is what the reviewer wants: they call it interesting and everything else an artefact, look at ten
objects at a time from the top, and the objects not seen yet are ranked anew after every ten. The first ten are always
those of the raw ranking. The ceiling is 100 or all of the kind that there are; beside it stands what a random forest
finds that has learnt from the true kinds of two thirds of the night, and so what latents and parts can tell.

The constants of models/interest.py were chosen on cutouts of seeds 11 to 13 and spectra of seed 11; other seeds say
what they are worth.

Every method gets the same latents, p-values of the score's parts, and raw scores. FOLDER keeps the models and what
they said of each night, so that a second call only compares.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

N_TRAIN, N_NIGHT, RATE = 2500, 6000, 0.1
N_LOOKED, STEP = 100, 10


@dataclass(frozen=True, slots=True)
class Night:
    """n scored objects."""

    kind: np.ndarray
    """(n,) the kind of anomaly; empty for what is none."""
    raw: np.ndarray
    """(n,) scores."""
    latent: np.ndarray
    """(n, n_latent)"""
    part_p: np.ndarray
    """(n, n_parts)"""


Method = Callable[[Night, np.ndarray, np.ndarray, int], np.ndarray]
"""Takes a night, the indices (m,) of what was looked at, whether it was wanted (m,), and a seed; gives scores (n,)."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--kinds", default="spectrum,cutout")
    parser.add_argument("--seeds", default="14,15,16", help="of the nights")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    for kind in options.kinds.split(","):
        nights = [night_of(options.cache, kind, int(seed)) for seed in options.seeds.split(",")]
        compare(kind, nights)


def night_of(cache: Path, kind: str, seed: int) -> Night:
    """A night as the model sees it, from the cache or simulated, read and scored."""
    file = cache / f"{kind}-{seed}.npz"
    if not file.exists():
        from models.scorer import Scorer
        from workers.training import batches

        scorer = Scorer.from_bundle(trained(cache, kind), "cpu")
        samples, kinds = simulated(kind, N_NIGHT, seed, RATE)
        scores = [scorer.score(batch, explained_p=0) for batch in batches(kind, samples)]
        names = sorted(name for name in scores[0].parts if name.endswith("_p"))
        np.savez(
            file,
            kind=kinds,
            raw=np.concatenate([some.score for some in scores]),
            latent=np.concatenate([some.latent for some in scores]),
            part_p=np.stack([np.concatenate([some.parts[name] for some in scores]) for name in names], 1),
        )
    with np.load(file) as kept:
        return Night(**kept)


def trained(cache: Path, kind: str) -> Path:
    """The folder of the model."""
    from models.fit import fit_cutouts, fit_spectra
    from workers.batching import make_batch
    from workers.training import cutout_batches

    folder = cache / f"model-{kind}"
    if not folder.exists():
        samples, _ = simulated(kind, N_TRAIN, 1, 0.02)
        bundle = (
            fit_spectra(make_batch(samples), "one", fingerprint="")  # type: ignore[arg-type]  # spectra only
            if kind == "spectrum"
            else fit_cutouts(list(cutout_batches(samples)), ("g", "r", "i"), "one", fingerprint="")
        )
        bundle.save(folder)
    return next(folder.iterdir())


def simulated(kind: str, n: int, seed: int, rate: float) -> tuple[list, np.ndarray]:
    """Samples, and the kind of anomaly of each, (n,)."""
    from workers.simulate import simulate
    from workers.training import read_samples

    start = time.perf_counter()
    folder = Path(tempfile.mkdtemp())
    try:
        with simulate(kind, n, folder, seed, rate).open(newline="") as file:
            kinds = {
                str(folder / row["path"]): row["class"] if int(row["is_anomaly"]) else ""
                for row in csv.DictReader(file)
            }
        samples, left_out = read_samples(kind, list(kinds))
    finally:
        shutil.rmtree(folder)
    if left_out:
        raise RuntimeError(f"the reader refused simulated files: {dict(left_out)}")
    print(
        f"{n} of kind {kind}, seed {seed}, made and read in {time.perf_counter() - start:.0f} s", flush=True
    )
    return samples, np.array([kinds[sample.path] for sample in samples])


def compare(kind: str, nights: list[Night]) -> None:
    """Print the table of one kind of input."""
    print(f"\n{kind}: {len(nights)} nights of {len(nights[0].raw)} objects; found among the first {N_LOOKED}")
    cells = [(night, seed, wanted) for seed, night in enumerate(nights) for wanted in kinds_of(night)]
    found = {}
    for name, method in METHODS.items():
        start = time.process_time()
        found[name] = np.array([looked_at(night, wanted, method, seed) for night, seed, wanted in cells])
        seconds = (time.process_time() - start) / len(cells) / (N_LOOKED / STEP - 1)
        print(f"  {name:20s} {summary(found[name], found[RAW])}   {seconds:.2f} s a ranking", flush=True)
    there = np.array([min(N_LOOKED, (night.kind == wanted).sum()) for night, _, wanted in cells])
    taught = np.array([oracle(night, wanted) for night, _, wanted in cells])
    print(f"  {'a taught forest':20s} {summary(taught, found[RAW])}")
    print(f"  {'all there are':20s} {summary(there, found[RAW])}")
    print(f"  {'by kind':24s}" + "".join(f"{name:>20s}" for name in [*METHODS, "taught", "all"]))
    for wanted in kinds_of(nights[0]):
        of_kind = np.array([name == wanted for _, _, name in cells])
        means = [values[of_kind].mean() for values in [*found.values(), taught, there]]
        print(f"    {wanted:22s}" + "".join(f"{mean:20.1f}" for mean in means))


def kinds_of(night: Night) -> list[str]:
    return sorted({str(kind) for kind in night.kind} - {""})


def looked_at(night: Night, wanted: str, method: Method | None, seed: int) -> int:
    """How many of the ``wanted`` kind are among the first N_LOOKED that a reviewer sees."""
    is_wanted = night.kind == wanted
    order = np.argsort(-night.raw, kind="stable")
    if method is None:
        return int(is_wanted[order[:N_LOOKED]].sum())
    seen = order[:STEP]
    while len(seen) < N_LOOKED:
        ranked = np.argsort(-method(night, seen, is_wanted[seen], seed), kind="stable")
        seen = np.concatenate([seen, ranked[~np.isin(ranked, seen)][:STEP]])
    return int(is_wanted[seen].sum())


def summary(found: np.ndarray, raw: np.ndarray) -> str:
    """Mean over nights and wanted kinds and its ratio to the raw ranking's, with bootstrap intervals over both."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(raw), size=len(raw)) for _ in range(2000)]
    mean = np.quantile([found[draw].mean() for draw in draws], [0.025, 0.975])
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # a draw of kinds of which the raw ranking finds none
        ratios = [found[draw].mean() / raw[draw].mean() for draw in draws]
    ratio = np.nanquantile(ratios, [0.025, 0.975])
    return (
        f"{found.mean():5.1f} ({mean[0]:4.1f}-{mean[1]:4.1f})   "
        f"x{found.mean() / raw.mean():.2f} ({ratio[0]:.2f}-{ratio[1]:.2f})"
    )


def features(night: Night) -> np.ndarray:
    """What the forests get, (n, n_features); the scale of a column is nothing to them."""
    surprisal = -np.log10(np.clip(night.part_p, 1e-8, 1))
    return np.hstack([night.latent, surprisal, night.raw[:, None]]).astype(np.float64)


def gaussian_process(night: Night, seen: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    from models.interest import interest

    return interest(night.latent, night.part_p, night.raw, seen, wanted)


def random_forest(night: Night, seen: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    """Half the probability that a forest gives, half the place in the raw ranking."""
    from sklearn.ensemble import RandomForestClassifier

    place = rankdata(night.raw) / len(night.raw)
    if wanted.all() or not wanted.any():
        return place
    forest = RandomForestClassifier(200, class_weight="balanced", random_state=seed)
    x = features(night)
    return place + forest.fit(x[seen], wanted).predict_proba(x)[:, 1]


def isolation_forest(name: str) -> Method:
    """One of coniferest's, with its defaults."""

    def rank(night: Night, seen: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
        from coniferest.aadforest import AADForest
        from coniferest.label import Label
        from coniferest.pineforest import PineForest

        x = features(night)
        forest = {"PineForest": PineForest, "AADForest": AADForest}[name](n_jobs=1, random_seed=seed)
        forest.fit_known(x, x[seen], np.where(wanted, Label.ANOMALY, Label.REGULAR))
        return -forest.score_samples(x)

    return rank


def oracle(night: Night, wanted: str) -> int:
    """How many of the first N_LOOKED are of the kind after a forest has learnt the kinds of the other folds."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_predict

    forest = RandomForestClassifier(50, class_weight="balanced", min_samples_leaf=2, random_state=0)
    y = night.kind == wanted
    probability = cross_val_predict(forest, features(night), y, cv=3, method="predict_proba")[:, 1]
    return int(y[np.argsort(-probability, kind="stable")[:N_LOOKED]].sum())


RAW = "raw ranking"
METHODS: dict[str, Method | None] = {
    RAW: None,
    "Gaussian process": gaussian_process,
    "random forest": random_forest,
    "PineForest": isolation_forest("PineForest"),
    "AADForest": isolation_forest("AADForest"),
}


if __name__ == "__main__":
    main()
