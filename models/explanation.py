"""What makes one object an outlier, small enough to keep: planes in a byte a value, windows, shares of the score.

Needs numpy and zlib alone, so whoever shows an explanation loads no model.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from isal import isal_zlib

SHOWN = {1: (0.2, 99.8, 0.35), 2: (2.0, 99.7, 0.0)}
"""By the number of axes: the percentiles of a channel's flux between which it is shown, and the room that is left
below and above as a share of that range. Flux beyond is clipped."""
LEVELS = 254
"""Steps of flux over the range shown; the value 0 is kept for what was not measured."""
MANY = 4096
"""Pixels of which percentiles are taken; of more, an even choice says the same."""
LARGEST_RESIDUAL = 12.0
"""σ at which residuals are clipped; 127 steps to either side."""


@dataclass(frozen=True, slots=True)
class SpectralWindow:
    """A stretch of a spectrum that departs from its reconstruction."""

    significance: float
    """Σ residual / √n in σ: positive for excess light."""
    low: float
    """Rest-frame wavelength range, Å."""
    high: float
    line: str
    """The nearest known line within 600 km/s, ``night sky`` at a sky line, or empty."""


@dataclass(frozen=True, slots=True)
class ImageWindow:
    """A square of a cutout that departs from its reconstruction."""

    significance: float
    band: str
    row: int
    column: int
    """Of the window's central pixel in the model's image, from 0."""
    size: int
    radius: float
    """Distance from the cutout's centre, pixels of the model's image."""
    position_angle: float
    """Degrees from up (+row) through left (−column): north through east on an image with north up, east left."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What to show of one object."""

    flux: np.ndarray
    """Normalised flux, NaN where unmeasured: (1, n_values) of a spectrum, the stretched (n_bands, side, side) image."""
    expected: np.ndarray
    """The reconstruction on the grid of the density model, which is coarser than a large image."""
    residual: np.ndarray
    """On the same grid, in σ; 0 where unmeasured."""
    windows: list[SpectralWindow] | list[ImageWindow]
    """At most five that do not overlap, of 4 σ or more, the worst first."""
    shares: dict[str, float]
    """Share of each combined part in the sum of their surprisals."""
    loglam: tuple[float, float] | None = None
    """log10 of the first rest-frame wavelength in Å, and the step; None for a cutout."""
    bands: tuple[str, ...] = ()
    """Of a cutout, in the order of the planes."""

    @property
    def wavelength(self) -> np.ndarray:
        """(n_values,) rest-frame vacuum wavelength of a spectrum, Å. Raises ValueError for a cutout."""
        if self.loglam is None:
            raise ValueError("a cutout has no wavelengths")
        first, step = self.loglam
        return 10 ** (first + step * np.arange(self.flux.shape[-1]))

    def named_windows(self) -> list[dict[str, Any]]:
        """The windows for JSON, each by the names of its fields."""
        return [{name: getattr(window, name) for name in window.__slots__} for window in self.windows]

    def to_bytes(self) -> bytes:
        """A line of JSON and the three planes, a byte a value, all through zlib.

        Flux and reconstruction keep 1/508 of the range shown of their channel, residuals 0.05 σ; both are clipped
        outside of ``SHOWN`` and ``LARGEST_RESIDUAL``.
        """
        limits = [_shown(channel) for channel in self.flux]
        step = LARGEST_RESIDUAL / 127
        planes = (
            _coded(self.flux, limits),
            _coded(self.expected, limits),
            np.clip(np.round(self.residual / step), -127, 127).astype(np.int8),
        )
        header = {
            "shapes": [list(plane.shape) for plane in planes],
            "limits": limits,
            "windows": self.named_windows(),
            "shares": self.shares,
            "loglam": self.loglam,
            "bands": list(self.bands),
        }
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        # in a seventh of the time of the standard library's fastest level, and a fiftieth larger
        return isal_zlib.compress(b"\n".join([text, b"".join(plane.tobytes() for plane in planes)]), 1)

    @classmethod
    def from_bytes(cls, data: bytes) -> Explanation:
        """The inverse of ``to_bytes``, but for what that rounds. Raises ValueError for bytes that it did not make."""
        try:
            text, _, body = zlib.decompress(data).partition(b"\n")
            header = json.loads(text)
            flux, expected, residual = _planes(body, header["shapes"])
            limits, bands, loglam = header["limits"], tuple(header["bands"]), header["loglam"]
            make: Any = ImageWindow if bands else SpectralWindow
            return cls(
                flux=_decoded(flux, limits),
                expected=_decoded(expected, limits),
                residual=residual.view(np.int8).astype(np.float32) * np.float32(LARGEST_RESIDUAL / 127),
                windows=[make(**window) for window in header["windows"]],
                shares=dict(header["shares"]),
                loglam=None if loglam is None else (float(loglam[0]), float(loglam[1])),
                bands=bands,
            )
        except (zlib.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"these bytes are no explanation of an object: {error}") from error


def _shown(channel: np.ndarray) -> tuple[float, float]:
    """The range of flux in which a channel (…) is shown."""
    measured = channel[np.isfinite(channel)]
    if not measured.size:
        return 0.0, 1.0
    measured = measured[:: max(1, measured.size // MANY)]
    lowest, highest, room = SHOWN[channel.ndim]
    ranks = [round(percent / 100 * (measured.size - 1)) for percent in (lowest, highest)]
    low, high = (float(value) for value in np.partition(measured, ranks)[ranks])
    least = 1e-3 * max(1.0, abs(low), abs(high))  # single precision still tells the two limits apart
    room *= max(high - low, least)
    return low - room, max(high + room, low + least)


def _coded(plane: np.ndarray, limits: list[tuple[float, float]]) -> np.ndarray:
    """(channels, …) as bytes: 1 to 255 within each channel's limits, 0 for NaN."""
    low, high = _columns(plane, limits)
    level = np.clip(np.round((plane - low) / (high - low) * LEVELS), 0, LEVELS) + 1
    return np.where(np.isfinite(plane), level, 0).astype(np.uint8)


def _decoded(coded: np.ndarray, limits: list[tuple[float, float]]) -> np.ndarray:
    low, high = _columns(coded, limits)
    values = low + (coded.astype(np.float32) - 1) / LEVELS * (high - low)
    return np.where(coded > 0, values, np.nan).astype(np.float32)


def _columns(plane: np.ndarray, limits: list[tuple[float, float]]) -> np.ndarray:
    """Low and high, each in a shape that goes with a plane of (channels, …)."""
    return np.array(limits, np.float32).T.reshape(2, len(plane), *(1,) * (plane.ndim - 1))


def _planes(body: bytes, shapes: list[list[int]]) -> Iterator[np.ndarray]:
    """Consecutive arrays of bytes. Raises ValueError where they do not fill the body."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    if sum(sizes) != len(body):
        raise ValueError(f"{len(body)} bytes of planes, {sum(sizes)} announced")
    flat = np.split(np.frombuffer(body, np.uint8), np.cumsum(sizes)[:-1])
    return (part.reshape(shape) for part, shape in zip(flat, shapes, strict=True))
