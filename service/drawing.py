"""Pictures of objects: spectrum or cutout, reconstruction, residual in σ, and the windows that stand out."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from models.explanation import Explanation, ImageWindow, SpectralWindow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DATA, MODEL, MARK = "#26415e", "#e07a1f", "#c43c39"
RESIDUAL_RANGE = 8.0
"""σ at which the residual images saturate."""
_one_at_a_time = threading.Lock()
"""Matplotlib is not made for threads."""


def picture(explanation: Explanation, title: str) -> bytes:
    """One object on a page of its own, as PNG."""
    into = io.BytesIO()
    with _one_at_a_time:
        draw_object(explanation, title).savefig(into, format="png", dpi=130)
    return into.getvalue()


def title_of(object_id: str, score: float, p_value: float) -> str:
    """What stands above an object's picture."""
    return f"{object_id}  score {score:.2f}  p = {p_value:.2g}"


def draw_object(explanation: Explanation, title: str) -> Figure:
    """One object on a page of its own."""
    if explanation.loglam is not None:
        figure = Figure(figsize=(10, 5), layout="constrained")
        draw_spectrum(figure.subplots(2, 1, sharex=True, height_ratios=(2, 1)), explanation)
    else:
        n_bands = len(explanation.bands)
        figure = Figure(figsize=(9, 2.7 * n_bands + 0.5), layout="constrained")
        draw_cutout(figure.subplots(n_bands, 3, squeeze=False), explanation)
    shares = ", ".join(f"{name} {share:.0%}" for name, share in ranked(explanation.shares) if share >= 0.01)
    # an object's name may hold a dollar sign, which is no formula
    figure.suptitle(f"{title}\nscore by part: {shares}", fontsize=10, parse_math=False)
    return figure


def draw_spectrum(axes: Any, explanation: Explanation) -> None:
    """Flux with its reconstruction above, residual in σ with the worst windows below; two axes, rest frame."""
    upper, lower = axes
    wavelength = explanation.wavelength
    flux, expected, residual = explanation.flux[0], explanation.expected[0], explanation.residual[0]
    seen = np.isfinite(flux)
    upper.plot(wavelength, flux, color=DATA, lw=0.6, label="spectrum")
    upper.plot(wavelength[seen], expected[seen], color=MODEL, lw=1, label="expected")
    upper.set_ylabel("flux / amplitude")
    upper.legend(loc="upper right", fontsize=8, frameon=False)
    if seen.any():
        upper.set_xlim(wavelength[seen][0], wavelength[seen][-1])
    lower.plot(wavelength, np.where(seen, residual, np.nan), color=DATA, lw=0.6)
    lower.axhline(0, color="0.6", lw=0.5)
    lower.set_ylabel("residual / σ")
    lower.set_xlabel("rest wavelength [Å]")
    named: list[float] = []
    for window in explanation.windows:
        if isinstance(window, SpectralWindow):
            step = wavelength[1] - wavelength[0]
            for axis in (upper, lower):
                axis.axvspan(window.low - step, window.high + step, color=MARK, alpha=0.15, lw=0)
            centre = (window.low + window.high) / 2
            if window.line and all(abs(centre - other) > 0.015 * centre for other in named):
                named.append(centre)
                upper.text(
                    centre, 0.98, window.line, rotation=90, ha="center", va="top",
                    fontsize=7, color=MARK, transform=upper.get_xaxis_transform(),
                )  # fmt: skip


def draw_cutout(axes: Any, explanation: Explanation) -> None:
    """A row of three axes for each band: image, reconstruction, residual in σ with the worst windows."""
    planes = (explanation.flux, explanation.expected, explanation.residual)
    # all three in pixels of the image, however coarse the grid of the density model
    side = explanation.flux.shape[-1]
    extent = (-0.5, side - 0.5, -0.5, side - 0.5)
    for row, band in enumerate(explanation.bands):
        flux = explanation.flux[row]
        low, high = (np.nanmin(flux), np.nanmax(flux)) if np.isfinite(flux).any() else (0.0, 1.0)
        for axis, plane in zip(axes[row], (p[row] for p in planes), strict=True):
            limits = (-RESIDUAL_RANGE, RESIDUAL_RANGE) if axis is axes[row][2] else (low, high)
            cmap = "RdBu_r" if axis is axes[row][2] else "gray"
            axis.imshow(
                plane, origin="lower", extent=extent, cmap=cmap, vmin=limits[0], vmax=limits[1],
                interpolation="nearest",
            )  # fmt: skip
            bare(axis)
        axes[row][0].set_ylabel(band)
        for window in explanation.windows:
            if isinstance(window, ImageWindow) and window.band == band:
                corner = (window.column - window.size / 2, window.row - window.size / 2)
                axes[row][2].add_patch(
                    Rectangle(corner, window.size, window.size, fill=False, edgecolor="k", lw=1)
                )
    for axis, name in zip(axes[0], ("cutout", "expected", "residual / σ"), strict=True):
        axis.set_title(name, fontsize=9)


def colour_image(explanation: Explanation) -> np.ndarray:
    """The stretched cutout as (height, width, 3) in 0–1, the reddest band red; one band repeats."""
    image = np.nan_to_num(explanation.flux)
    chosen = image[[min(2, len(image) - 1), min(1, len(image) - 1), 0]]
    low, high = np.percentile(chosen, [20, 99.8])
    return np.clip((chosen - low) / max(high - low, 1e-9), 0, 1).transpose(1, 2, 0)


def bare(axis: Axes) -> None:
    """No ticks: pixels say nothing here."""
    axis.set_xticks([])
    axis.set_yticks([])


def ranked(shares: dict[str, float]) -> list[tuple[str, float]]:
    """Largest share first."""
    return sorted(shares.items(), key=lambda item: -item[1])
