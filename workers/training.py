"""Files in, a trained and registered bundle out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
import torch

from models.batch import CutoutBatch, SpectrumBatch
from models.bundle import Bundle
from models.fit import SMALLEST, fingerprint, fit_cutouts, fit_spectra, split
from models.scorer import Scorer
from service.catalog.drift import reference
from service.catalog.engine import open_catalog
from service.catalog.labels import not_ordinary
from service.catalog.registry import register_model
from service.catalog.rows import ModelRow
from service.catalog.schema import clean
from service.settings import Settings
from workers.batching import Sample, make_batch
from workers.readers.sample import Cutout, Rejection
from workers.reading import read_inputs

OTHER_KINDS = {"cutout": "a cutout, not a spectrum", "spectrum": "a spectrum, not a cutout"}
MAX_REFERENCE = 5000
"""Objects of the calibration set that drift is measured against."""
LABELLED = "labelled by a person as not ordinary"
Report = Callable[[str, int, int], None]
"""Called with the stage's name, how much is done, and how much there is."""


@dataclass(slots=True)
class Trained:
    """What came of a training."""

    bundle: Bundle
    n_inputs: int
    left_out: Counter[str] = field(default_factory=Counter)
    """Inputs that were not trained on, by reason."""


def train(
    settings: Settings, kind: str, paths: list[str], name: str, epochs: int | None = None, seed: int = 0,
    report: Report = lambda *_: None, promote: bool = False, by: str = "training",
) -> Trained:  # fmt: skip
    """Train a bundle on files, write it under ``settings.model_dir`` and register it in the catalog.

    Objects that a person labelled as not ordinary neither train nor calibrate it. It comes into force where its kind
    has no model in force, or with ``promote``. An interrupted training of the same files with the same options goes
    on where it was.

    :raises ValueError: too few usable files, or files that do not differ; the message says what is needed.
    """
    engine = open_catalog(settings.database_url, create=True)
    samples, left_out = read_samples(kind, paths, report)
    unreadable = left_out.total() - sum(left_out[reason] for reason in OTHER_KINDS.values())
    rejected = unreadable / max(1, len(samples) + unreadable)
    samples = _without_labelled(engine, kind, samples, left_out)
    hashes = [s.sha256 for s in samples]
    settings.model_dir.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {
        "fingerprint": fingerprint(hashes),
        "epochs": epochs,
        "seed": seed,
        "progress": lambda stage, done, total, _figure: report(f"fitting the {stage} model", done, total),
        "checkpoint": settings.model_dir / f".{name}.checkpoint",
    }
    try:
        if not samples:
            raise ValueError(f"training needs at least {SMALLEST} objects, got 0")
        if kind == "spectrum":
            batch = make_batch(samples)
            if not isinstance(batch, SpectrumBatch):
                raise TypeError(f"spectra give a spectrum batch, got {type(batch)}")
            bundle = fit_spectra(batch, name, **options)
        else:
            samples, bands = _same_bands(samples, left_out)
            bundle = fit_cutouts(list(cutout_batches(samples)), bands, name, **options)
    except ValueError as error:
        because = "; ".join(f"{n} × {reason}" for reason, n in left_out.most_common(3))
        raise ValueError(
            f"{error}" + (f" ({len(paths)} files given, left out: {because})" if because else "")
        ) from error
    folder = bundle.save(settings.model_dir)
    training = bundle.spec["training"]
    register_model(
        engine,
        ModelRow(
            id=bundle.id,
            name=name,
            kind=kind,
            path=str(folder.absolute()),
            n_training=training["n_train"] + training["n_held_out"],
            smallest_p=bundle.spec["held_out"]["smallest_p"],
            cluster_weights=[float(w) for w in bundle.arrays["mixture.weights"]],
            held_out=bundle.spec["held_out"],
            domain={
                k: v
                for k, v in bundle.spec["preprocessing"].items()
                if not isinstance(v, list) or len(v) < 20
            },
            reference=reference(_calibration_latents(bundle, samples, seed), rejected),
        ),
        promote,
        by,
    )
    return Trained(bundle, len(paths), left_out)


def read_samples(
    kind: str, paths: list[str], report: Report = lambda *_: None
) -> tuple[list[Sample], Counter[str]]:
    """The samples of one kind among some files, in the files' order, and why the others were left out."""
    samples: list[Sample] = []
    left_out: Counter[str] = Counter()
    for done, result in enumerate(read_inputs(paths, 0 if len(paths) < 200 else _n_readers()), start=1):
        if isinstance(result, Rejection):
            left_out[result.reason] += 1
        elif result.kind != kind:
            left_out[OTHER_KINDS[result.kind]] += 1
        else:
            samples.append(result)
        if done % 20 == 0 or done == len(paths):
            report("reading", done, len(paths))
    return samples, left_out


def _without_labelled(
    engine: sa.Engine, kind: str, samples: list[Sample], left_out: Counter[str]
) -> list[Sample]:
    labelled = not_ordinary(engine, kind)
    kept = [s for s in samples if (clean(s.survey), clean(s.object_id)) not in labelled]
    if len(kept) < len(samples):
        left_out[LABELLED] += len(samples) - len(kept)
    return kept


def _calibration_latents(bundle: Bundle, samples: list[Sample], seed: int) -> np.ndarray:
    """(m, L) of the calibration set: like tonight's objects, and unlike the training set, the model never saw them."""
    chosen = split(len(samples), seed).calibration[:MAX_REFERENCE]
    scorer = Scorer.from_parts(bundle, torch.device("cpu"))
    kept = [samples[i] for i in sorted(chosen)]
    return np.concatenate([scorer.score(batch).latent for batch in batches(bundle.spec["kind"], kept)])


def batches(kind: str, samples: list[Sample]) -> Iterable[SpectrumBatch | CutoutBatch]:
    """Samples of one kind as batches, in their order."""
    if kind == "cutout":
        return cutout_batches(samples)
    return (make_batch(samples[k : k + 256]) for k in range(0, len(samples), 256))


def cutout_batches(samples: list[Sample]) -> Iterable[CutoutBatch]:
    """Cutouts as batches of runs of one shape, in their order."""
    start = 0
    for end in range(1, len(samples) + 1):
        if end == len(samples) or samples[end].flux.shape != samples[start].flux.shape:
            batch = make_batch(samples[start:end])
            if isinstance(batch, CutoutBatch):
                yield batch
            start = end


def _same_bands(samples: list[Sample], left_out: Counter[str]) -> tuple[list[Sample], tuple[str, ...]]:
    """The cutouts with the commonest number of bands, sorted by shape, and the names of those bands."""
    if not samples:
        return [], ()
    count = Counter(s.flux.shape[0] for s in samples).most_common(1)[0][0]
    chosen = [s for s in samples if s.flux.shape[0] == count]
    if len(chosen) < len(samples):
        left_out[f"another number of bands than the commonest, {count}"] += len(samples) - len(chosen)
    names = Counter(s.bands for s in chosen if isinstance(s, Cutout))
    return sorted(chosen, key=lambda s: s.flux.shape), names.most_common(1)[0][0]


def _n_readers() -> int:
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
