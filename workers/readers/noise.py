"""Noise of an image that comes without a variance plane, and pixels that only look like measurements."""

from __future__ import annotations

import numpy as np

MAD_TO_SIGMA = 1.4826
"""σ of a Gaussian over its median absolute deviation."""

FLOOR = 1e-3
"""Least noise over the range of the image (0.5th to 99.5th percentile), for images that were denoised,
padded with a constant, or rescaled to 8 bits: none of them knows its values better than that."""

MIN_PIXELS = 32
"""Fewest border pixels that give a noise."""

SENTINEL = 1e3
"""A value that several pixels share exactly, and this many times beyond all others, is a code for "no
data"."""


def estimate_noise(image: np.ndarray, good: np.ndarray, step: float = 0.0) -> float:
    """σ of the background noise of one band, in units of the image; 0 when nothing can be told.

    The estimate is 1.4826 MAD of a border a tenth of the image wide, where a centred object is faint.
    Differences of neighbouring pixels would be too small by a factor of two on resampled images, whose
    noise is correlated. Where half of the border has one value (padding, clipped sky), the border pixels
    that differ from it are taken; where those are too few, nothing is known but the floor.

    ``image`` (height, width); ``good`` of that shape, False for pixels to leave out; ``step`` is the
    distance of two values of an integer image, whose rounding alone gives step / √12. The result is at
    least that, and at least FLOOR times the range of the image.
    """
    values = image[good]
    if not values.size or values.min() == values.max():
        return 0.0
    rim = max(2, min(image.shape) // 10)
    border = good.copy()
    border[rim:-rim, rim:-rim] = False
    sigma = _mad(image[border])
    if sigma == 0 and border.any():
        others = image[border & (image != np.median(image[border]))]
        sigma = _mad(others) if others.size >= MIN_PIXELS else 0.0
    low, high = np.percentile(values, [0.5, 99.5])
    spread = high - low or values.max() - values.min()
    return float(max(sigma, FLOOR * spread, step / np.sqrt(12)))


def sentinels(images: np.ndarray, good: np.ndarray) -> np.ndarray:
    """True where a pixel of ``images`` (n_planes, height, width) holds a code such as 100, -9999 or 1e30 for
    "no data"."""
    size = np.abs(images)
    size[~good] = 0
    top = size.max(axis=(1, 2))
    coded = size == top[:, None, None]
    if np.count_nonzero(coded) == len(images):  # each plane has one brightest pixel
        return np.zeros(images.shape, bool)
    for image, band, code, highest in zip(images, size, coded, top, strict=True):
        rest = band[~code].max(initial=0) if np.count_nonzero(code) > 1 else 0
        if not (rest > 0 and highest > SENTINEL * rest and np.unique(image[code]).size == 1):
            code[:] = False
    return coded


def _mad(values: np.ndarray) -> float:
    if not values.size:
        return 0.0
    return float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))
