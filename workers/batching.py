"""Samples in, the arrays that a Scorer takes out: grouped by kind and shape, padded to one length."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from models.batch import Batch, CutoutBatch, SpectrumBatch
from workers.readers.sample import Cutout, Spectrum

Sample = Spectrum | Cutout

MAX_PIXELS = 1 << 24
"""Pixels in one batch: flux and ivar in float32 make 128 MiB, whatever the size of the cutouts."""

MANY_OUTLIERS = 1 << 4
"""ZWARNING bit: more than 5 % of the pixels lie over 5 σ from the best template. The redshift is usually
right, and rare objects set it often."""


def trusted_redshift(sample: Spectrum) -> tuple[float, set[str]]:
    """Redshift to score a spectrum at, and the flags that its row gets for it.

    NaN where the pipeline gives none: the spectrum is then scored in the observed frame. A ZWARNING other
    than MANY_OUTLIERS leaves the pipeline's redshift in place and adds the flag ``zwarning``, so that a
    person who reads the catalog can set such rows aside.
    """
    redshift = math.nan if sample.redshift is None else sample.redshift
    return redshift, {"zwarning"} if sample.zwarning & ~MANY_OUTLIERS else set()


def groups(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """Split samples into lists that fit one batch: one kind, one cutout shape, at most MAX_PIXELS in all."""
    alike: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        shape = sample.flux.shape if isinstance(sample, Cutout) else ()
        alike.setdefault((sample.kind, shape), []).append(sample)
    for members in alike.values():
        size = max(1, MAX_PIXELS // max(sample.flux.size for sample in members))
        for start in range(0, len(members), size):
            yield members[start : start + size]


def make_batch(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one group.

    Spectra are padded on the right, with ivar 0, to the longest of them.
    """
    spectra = [sample for sample in samples if isinstance(sample, Spectrum)]
    if not spectra:
        return CutoutBatch(
            flux=np.stack([sample.flux for sample in samples]),
            ivar=np.stack([sample.ivar for sample in samples]),
        )
    longest = max(sample.flux.size for sample in spectra)
    flux = np.zeros((len(spectra), longest), np.float32)
    ivar = np.zeros((len(spectra), longest), np.float32)
    for row, sample in enumerate(spectra):
        flux[row, : sample.flux.size] = sample.flux
        ivar[row, : sample.flux.size] = sample.ivar
    return SpectrumBatch(
        flux=flux,
        ivar=ivar,
        first=np.array([sample.first for sample in spectra], np.int64),
        redshift=np.array([trusted_redshift(sample)[0] for sample in spectra], np.float64),
    )
