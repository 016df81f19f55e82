"""How many wanted anomalies a person finds among the first 100 they look at, when their labels change the ranking.

    pip install coniferest; python -m benchmarks.active_learning --cache FOLDER [--kinds spectrum,cutout] [--nights 3]

A model is trained on a simulated survey of seed 1, with the defaults of `peculiar train`, and scores simulated nights
of other seeds. A tenth of a night is anomalous, as the top of a far larger night's ranking would be. Each kind of
anomaly in turn is what the reviewer wants: they call it interesting and everything else an artefact, look at ten
objects at a time from the top, and the objects not seen yet are ranked anew after every ten. The first ten are always
those of the raw ranking. The ceiling is 100 or all of the kind that there are; beside it stands what a random forest
finds that has learnt from the true kinds of four fifths of the night, and so what latents and parts can tell.

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
"""Takes a night, the indices (m,) of what was looked at, whether it was wanted (m,), and a seed; ranks by scores (n,)."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--kinds", default="spectrum,cutout")
    parser.add_argument("--nights", type=int, default=3)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    for kind in options.kinds.split(","):
        nights = [night_of(options.cache, kind, seed) for seed in range(11, 11 + options.nights)]
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
    print(f"{n} of kind {kind}, seed {seed}, made and read in {time.perf_counter() - start:.0f} s", flush=True)
    return samples, np.array([kinds[sample.path] for sample in samples])


def compare(kind: str, nights: list[Night]) -> None:
    pass


if __name__ == "__main__":
    main()
