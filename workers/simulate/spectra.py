"""One simulated spectrum: a source, perhaps with an anomaly, exposed, fitted, laid out as the survey does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from workers.simulate import pipeline, speclite, spectral_anomalies
from workers.simulate.grid import FIRST, N_PIXELS, STEP, Array
from workers.simulate.spectral_anomalies import PLANTERS, Scene, source_for
from workers.simulate.spectrograph import Fibre, Observed, fibre, observe
from workers.simulate.truth import Truth

KINDS = spectral_anomalies.KINDS
FIBRES = 640
"""Fibres of a plate."""
MAX_FILES = 1000 * FIBRES
"""Objects of one seed; more would take the plate numbers of another."""
BYTES_PER_FILE = 170_000
FAINTNESS = {"GALAXY": (19.15, 0.75), "QSO": (19.0, 0.6), "STAR": (18.9, 0.9)}
"""Mean and scatter of the r magnitude inside the fibre."""


@dataclass(slots=True)
class Simulated:
    """A spectrum and what went into it; of the arrays (N_PIXELS,) the file holds the pixels of ``span``."""

    truth_flux: Array
    """The noise-free flux, anomaly included."""
    observed: Observed
    fibre: Fibre
    span: slice
    content: bytes
    """The file."""
    truth: Truth


def identity(seed: int, index: int) -> tuple[int, int, int]:
    """Plate, MJD and fibre of an object: seeds differ in MJD and, every 48,000 seeds, in plate."""
    return 266 + index // FIBRES + 1000 * (seed // 48_000), 51_578 + seed % 48_000, 1 + index % FIBRES


def make_spectrum(seed: int, index: int, kind: str = "") -> Simulated:
    """Object ``index`` of a simulation; ``kind`` names the anomaly to plant, empty for a normal object."""
    rng = np.random.default_rng([seed, index, 1])
    plate, mjd, fibre_number = identity(seed, index)
    source = source_for(rng, kind)
    mean, scatter = FAINTNESS[source.spectral_class]
    magnitude = float(np.clip(rng.normal(mean, scatter), 16.0, 20.4))
    flux = source.flux * 0.286 * 10 ** (0.4 * (22.5 - magnitude))
    where = fibre(rng)
    strength, detail = 0.0, ""
    if kind:
        flux, strength, detail = PLANTERS[kind](rng, Scene(source, flux, where))
    seen = observe(rng, flux, where)
    first = int(rng.integers(14, 40))
    span = slice(first, min(N_PIXELS, first + int(rng.integers(3822, 3852))))
    model, theta = pipeline.fit_model(source, seen)
    columns = pipeline.describe(rng, source, seen, model, theta, where.sky, span, kind == "unplugged")
    coadd = np.empty(span.stop - span.start, speclite.COADD)
    coadd["loglam"] = STEP * np.arange(FIRST + span.start, FIRST + span.stop)
    for name, values in (
        ("flux", seen.flux), ("ivar", seen.ivar), ("and_mask", seen.and_mask), ("or_mask", seen.or_mask),
        ("wdisp", where.wdisp), ("sky", where.sky), ("model", model),
    ):  # fmt: skip
        coadd[name] = values[span]
    plate_rng = np.random.default_rng([seed, plate, 2])
    plate_ra, plate_dec = plate_rng.uniform(110, 260), math.degrees(math.asin(plate_rng.uniform(-0.05, 0.85)))
    away, turn = 1.45 * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
    dec = plate_dec + away * math.sin(turn)
    ra = plate_ra + away * math.cos(turn) / math.cos(math.radians(dec))
    content = speclite.spec_file(
        plate=plate, mjd=mjd, fibre=fibre_number, ra=ra, dec=dec, plate_ra=plate_ra, plate_dec=plate_dec,
        coadd=coadd, spectrum_row=columns,
        lines=pipeline.line_fits(seen, source.redshift, source.spectral_class == "QSO", span),
    )  # fmt: skip
    object_id = f"{plate:04d}-{mjd:05d}-{fibre_number:04d}"
    truth = Truth(
        path=f"{plate:04d}/spec-{object_id}.fits", object_id=object_id, is_anomaly=int(bool(kind)),
        class_=kind or source.spectral_class, base=source.spectral_class, z=source.redshift, mag=magnitude,
        snr=columns["SN_MEDIAN_ALL"], strength=strength, detail=detail,
    )  # fmt: skip
    return Simulated(flux, seen, where, span, content, truth)
