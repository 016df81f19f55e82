"""What the survey's pipeline says of an observed spectrum: a template fit, line fluxes, quality figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from workers.simulate.grid import BANDS, FIRST, N_PIXELS, STEP, WAVE, Array
from workers.simulate.source import Source
from workers.simulate.speclite import EMISSION_LINES
from workers.simulate.spectrograph import Observed

N_POLYNOMIALS = 3
_LINE_WAVES = np.array([wave for _, wave in EMISSION_LINES])


def fit_model(source: Source, seen: Observed) -> tuple[Array, Array]:
    """Weighted fit of the source's templates and a parabola: model (N_PIXELS,), coefficients (k + 3,)."""
    x = np.linspace(-1, 1, N_PIXELS)
    scale = max(float(np.median(np.abs(seen.flux))), 1e-3)
    rows = np.vstack([source.basis, np.stack([np.ones_like(x), x, x * x])])
    # einsum rather than a matrix product: its summation order does not depend on the number of threads.
    weighted = rows * seen.ivar
    normal = np.einsum("in,jn->ij", weighted, rows)
    normal[np.diag_indices_from(normal)] *= 1 + 1e-6
    normal[np.diag_indices_from(normal)] += 1e-6 * np.trace(normal) / len(normal) / scale
    theta = np.linalg.solve(normal, np.einsum("in,n->i", weighted, seen.flux))
    return np.einsum("i,in->n", theta, rows), theta


def band_means(values: Array, good: np.ndarray, median: bool = False) -> Array:
    """Mean or median of the good pixels of ``values`` (N_PIXELS,) in u, g, r, i, z, shape (5,)."""
    out = np.zeros(5)
    for k, (low, high) in enumerate(BANDS.values()):
        inside = values[good & (low <= WAVE) & (high > WAVE)]
        if inside.size:
            out[k] = np.median(inside) if median else inside.mean()
    return out


def describe(
    rng: np.random.Generator, source: Source, seen: Observed, model: Array, theta: Array, sky: Array,
    span: slice, lost: bool,
) -> dict[str, Any]:  # fmt: skip
    """Values of the SPECOBJ columns that follow from the spectrum; ``span`` are the pixels in the file.

    ``lost`` is an unplugged fibre, whose class and redshift mean nothing.
    """
    good = np.zeros(N_PIXELS, bool)
    good[span] = seen.ivar[span] > 0
    chi = (seen.flux - model)[good] * np.sqrt(seen.ivar[good])
    snr = seen.flux * np.sqrt(seen.ivar)
    snr_all = float(np.median(snr[good]))
    faint = abs(snr_all) < 1.8 and rng.random() < 0.5
    error = (
        1.2e-5
        * (1 + source.redshift)
        * max(1.0, 8 / max(abs(snr_all), 0.3))
        * (20 if source.spectral_class == "QSO" else 1)
    )
    thresholds = np.arange(1, 11)[:, None]
    coefficients = np.zeros(10)
    coefficients[: len(theta)] = theta[:10]
    columns = np.full(10, -1)
    columns[: len(theta) - N_POLYNOMIALS] = np.arange(len(theta) - N_POLYNOMIALS)
    zwarning = (4 if faint or lost else 0) | (128 if lost and rng.random() < 0.5 else 0)
    name = {"GALAXY": "Gal", "QSO": "QSO", "STAR": "Star"}[source.spectral_class]
    # 1 nanomaggy at 6165 Å is 0.286e-17 erg/s/cm²/Å; the pixel mean stands for the filter curve.
    to_nanomaggy = np.array([3551, 4686, 6165, 7481, 8931.0]) ** 2 / 6165**2 / 0.286
    fluxes = band_means(seen.flux, good) * to_nanomaggy
    return {
        "CLASS": source.spectral_class, "SUBCLASS": source.subclass,
        "Z": source.redshift + rng.normal(0, error), "Z_ERR": error, "RCHI2": float((chi**2).mean()),
        "DOF": int(good.sum()) - len(theta), "RCHI2DIFF": float(rng.gamma(2, 0.2)) if not faint else 0.005,
        "TFILE": f"spEigen{name}-53724.fits",
        "SOURCETYPE": {"GALAXY": "GALAXY", "QSO": "QSO", "STAR": "STAR_BHB"}[source.spectral_class],
        "PRIMTARGET": {"GALAXY": 64, "QSO": 2, "STAR": 8192}[source.spectral_class],
        "LEGACY_TARGET1": {"GALAXY": 64, "QSO": 2, "STAR": 8192}[source.spectral_class], "TCOLUMN": columns,
        "THETA": coefficients, "VDISP": 150.0 if source.spectral_class == "GALAXY" else 0.0,
        "VDISP_ERR": 30.0 if source.spectral_class == "GALAXY" else 0.0, "WAVEMIN": WAVE[span][0],
        "WAVEMAX": WAVE[span][-1], "WCOVERAGE": STEP * good.sum(), "ZWARNING": zwarning,
        "SN_MEDIAN_ALL": snr_all, "SN_MEDIAN": band_means(snr, good, median=True),
        "CHI68P": float(np.quantile(np.abs(chi), 0.683)), "FRACNSIGMA": (np.abs(chi) > thresholds).mean(1),
        "FRACNSIGHI": (chi > thresholds).mean(1), "FRACNSIGLO": (chi < -thresholds).mean(1),
        "SPECTROFLUX": fluxes, "SPECTROSYNFLUX": band_means(model, good) * to_nanomaggy,
        "SPECTROFLUX_IVAR": 1 / np.maximum(0.03 * fluxes, 0.05) ** 2,
        "SPECTROSYNFLUX_IVAR": 1 / np.maximum(0.03 * fluxes, 0.05) ** 2,
        "SPECTROSKYFLUX": band_means(sky, good) * to_nanomaggy,
        "ANYANDMASK": int(np.bitwise_or.reduce(seen.and_mask[span])),
        "ANYORMASK": int(np.bitwise_or.reduce(seen.or_mask[span])),
    }  # fmt: skip


def line_fits(seen: Observed, redshift: float, broad: bool, span: slice) -> dict[str, Array]:
    """The SPZLINE columns (29,): flux in a window around each line over the continuum beside it.

    Lines outside the spectrum hold 0, with errors and χ² of −1, as the pipeline leaves them.
    """
    sigma = 1500.0 if broad else 130.0
    half = 50 if broad else 8
    centre = np.round(np.log10(_LINE_WAVES * (1 + redshift)) / STEP).astype(int) - FIRST
    inside = (centre - 2 * half >= span.start) & (centre + 2 * half < span.stop)
    offsets = np.arange(-2 * half, 2 * half + 1)
    index = np.clip(centre[:, None] + offsets, 0, N_PIXELS - 1)
    core = np.abs(offsets) <= half
    flux, ivar = seen.flux[index], seen.ivar[index]
    level = np.median(flux[:, ~core], axis=1)
    step = WAVE[index[:, core]] * STEP * np.log(10)
    variance = np.where(ivar > 0, 1 / np.maximum(ivar, 1e-12), 0)[:, core]
    area = ((flux[:, core] - level[:, None]) * step).sum(1)
    area_error = np.sqrt((variance * step**2).sum(1))
    continuum = np.where(np.abs(level) > 1e-3, level, 1e-3)
    side = np.abs(level) / np.maximum(area_error, 1e-6)
    values = {
        "LINEZ": np.full(29, redshift), "LINEZ_ERR": np.full(29, 2e-5), "LINESIGMA": np.full(29, sigma),
        "LINESIGMA_ERR": np.full(29, 0.1 * sigma), "LINEAREA": area, "LINEAREA_ERR": area_error,
        "LINEEW": area / continuum, "LINEEW_ERR": area_error / np.abs(continuum), "LINECONTLEVEL": level,
        "LINECONTLEVEL_ERR": level / np.maximum(side, 1) / 10, "LINENPIXLEFT": np.full(29, half),
        "LINENPIXRIGHT": np.full(29, half), "LINEDOF": np.full(29, 2.0 * half),
        "LINECHI2": (((flux - level[:, None]) ** 2 * ivar)[:, ~core]).sum(1),
    }  # fmt: skip
    for name, value in values.items():
        value[~inside] = -1 if name.endswith("_ERR") or name == "LINECHI2" else 0
    return values
