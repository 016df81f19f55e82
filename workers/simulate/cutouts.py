"""One simulated cutout: a scene in g, r, i, seen through the atmosphere, exposed, laid out as three HDUs.

PRIMARY (EXTNAME SCI) is a float32 cube (3, 64, 64) in nanomaggy per pixel with the position and a TAN WCS;
VAR is its variance in nanomaggy², float32; MASK is int16 with bit 0 bad, 1 saturated, 2 cosmic ray, 3 no
data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from astropy.io import fits

from workers.simulate import galaxy_images as scenes
from workers.simulate.fitsbytes import HeaderTemplate, padded
from workers.simulate.grid import log_uniform
from workers.simulate.image_anomalies import FAULTS, Exposure, blemishes
from workers.simulate.lensing import lensed
from workers.simulate.light import SCALE, SIZE, Image, Profile, nanomaggy, photograph, seeing
from workers.simulate.truth import Truth

KINDS = ("lens", "merger", *FAULTS)
MAX_FILES = 10_000_000
BYTES_PER_FILE = 145_000
SKY_NOISE = np.array([0.0040, 0.0045, 0.0092], np.float32)
"""Of a typical field in g, r, i, nanomaggy per pixel."""
GAIN = np.array([3.2e4, 5.0e4, 2.6e4], np.float32)
"""Electrons per nanomaggy."""
EARLY_SHARE = 0.4


@dataclass(slots=True)
class Simulated:
    """A cutout with everything that went into it; images (3, SIZE, SIZE)."""

    truth_flux: Image
    """The noise-free light, before faults of the image."""
    exposure: Exposure
    content: bytes
    """The file."""
    truth: Truth


@lru_cache(maxsize=1)
def _headers() -> list[HeaderTemplate]:
    """Headers of the three HDUs."""
    cube = np.zeros((3, SIZE, SIZE), np.float32)
    primary = fits.PrimaryHDU(cube)
    cards = (
        ("EXTNAME", "SCI", "flux"), ("OBJID", "CUT-0000000000-0000000", "survey identifier"),
        ("SURVEY", "SIM", "survey"), ("RA", 0.0, "[deg] of the object, ICRS"),
        ("DEC", 0.0, "[deg] of the object, ICRS"), ("BAND1", "g", "first plane"),
        ("BAND2", "r", "second plane"), ("BAND3", "i", "third plane"),
        ("BUNIT", "nanomaggy", "per pixel, sky subtracted"), ("MAGZERO", 22.5, "AB magnitude of 1 nanomaggy"),
        ("GAIN1", float(GAIN[0]), "electrons per nanomaggy"),
        ("GAIN2", float(GAIN[1]), "electrons per nanomaggy"),
        ("GAIN3", float(GAIN[2]), "electrons per nanomaggy"), ("FWHM1", 0.0, "[pix] seeing in g"),
        ("FWHM2", 0.0, "[pix] seeing in r"), ("FWHM3", 0.0, "[pix] seeing in i"),
        ("WCSAXES", 2, "the planes are bands"), ("CTYPE1", "RA---TAN", ""), ("CTYPE2", "DEC--TAN", ""),
        ("CUNIT1", "deg", ""), ("CUNIT2", "deg", ""), ("CRPIX1", SIZE / 2 + 0.5, ""),
        ("CRPIX2", SIZE / 2 + 0.5, ""), ("CRVAL1", 0.0, ""), ("CRVAL2", 0.0, ""),
        ("CDELT1", -SCALE / 3600, "[deg]"), ("CDELT2", SCALE / 3600, "[deg]"),
        ("RADESYS", "ICRS", ""), ("SIMULATE", True, "This file is simulated"),
    )  # fmt: skip
    for keyword, value, comment in cards:
        primary.header[keyword] = (value, comment)
    variance = fits.ImageHDU(cube, name="VAR")
    variance.header["BUNIT"] = "nanomaggy2"
    mask = fits.ImageHDU(cube.astype(np.int16), name="MASK")
    mask.header["COMMENT"] = "bit 0 bad pixel, 1 saturated, 2 cosmic ray, 3 no data"
    # The template must know that extensions follow.
    primary.header.set("EXTEND", True, after="NAXIS3")
    return [HeaderTemplate(hdu.header) for hdu in (primary, variance, mask)]


def merger(rng: np.random.Generator, scene: Image, magnitude: float, radius: float) -> tuple[float, str]:
    """Add a second nucleus and two tidal tails to ``scene`` in place; strength: its flux over the first's."""
    strength, turn, apart = (
        rng.uniform(0.3, 1.0),
        rng.uniform(0, 2 * math.pi),
        max(4.5, radius * rng.uniform(0.8, 1.8)),
    )
    x, y = apart * math.cos(turn), apart * math.sin(turn)
    scenes.MAKERS[str(rng.choice(["early", "late"]))](
        rng, scene, magnitude - 2.5 * math.log10(strength), x, y
    )
    tint = scenes.colours(rng.normal(0.5, 0.1), rng.normal(0.25, 0.05))
    sense = rng.choice([-1, 1])
    for start_x, start_y, away in ((0.0, 0.0, turn + math.pi), (x, y, turn)):
        share, length, bend = (
            log_uniform(rng, 0.03, 0.12),
            radius * rng.uniform(1.6, 3.0),
            rng.uniform(0.6, 1.6) * sense,
        )
        for step in np.linspace(0.25, 1, 14):
            direction = away + bend * step
            blob = Profile(
                nanomaggy(magnitude) * share / 14 * (1.4 - step), 0.28 * radius + 0.6, 0.7, 0.7, direction,
                start_x + length * step * math.cos(direction), start_y + length * step * math.sin(direction),
            )  # fmt: skip
            scenes.add_profile(scene, blob, tint)
    return strength, f"apart={apart:.1f}pix"


def background(rng: np.random.Generator, noise: Image) -> Image:
    """Sky that was not quite subtracted, (3, SIZE, SIZE): an offset, a slope and a faint wave per band."""
    ticks = np.linspace(-1, 1, SIZE, dtype=np.float32)
    offset, slope_x, slope_y, wave = rng.normal(0, 1, (4, 3)).astype(np.float32) * np.array(
        [[0.09], [0.05], [0.05], [0.05]], np.float32
    )
    turn = rng.uniform(0, 2 * math.pi, 3)
    ripple = [np.sin(2.5 * (ticks[None] * math.cos(t) + ticks[:, None] * math.sin(t)) + 7 * t) for t in turn]
    sky = offset[:, None, None] + slope_x[:, None, None] * ticks + slope_y[:, None, None] * ticks[:, None]
    return (noise[:, None, None] * (sky + wave[:, None, None] * np.array(ripple))).astype(np.float32)


def make_cutout(seed: int, index: int, kind: str = "") -> Simulated:
    """Object ``index`` of a simulation; ``kind`` names the anomaly to plant, empty for a normal object."""
    rng = np.random.default_rng([seed, index, 4])
    base = "early" if kind == "lens" or rng.random() < EARLY_SHARE else "late"
    brighter = 1.0 if kind in ("lens", "merger") else 0.0
    magnitude = float(np.clip(rng.normal(18.9 - brighter, 0.8), 16.0, 20.5))
    night = seeing(int(rng.integers(32)))
    scene = scenes.blank()
    x, y = rng.normal(0, 0.4, 2)
    radius = scenes.MAKERS[base](rng, scene, magnitude, x, y)
    strength, detail = 0.0, ""
    if kind == "merger":
        strength, detail = merger(rng, scene, magnitude, radius)
    scenes.add_neighbours(rng, scene)
    light = photograph(scene, night)
    noise = SKY_NOISE * float(rng.lognormal(0.1, 0.12))
    if kind == "lens":
        behind, detail = lensed(rng, scene)
        arcs = photograph(behind, night)
        strength = log_uniform(rng, 50, 350)  # signal-to-noise of the lensed light in r
        arcs *= strength / math.sqrt(float((arcs[1] ** 2 / (noise[1] ** 2 + light[1] / GAIN[1])).sum()))
        light = light + arcs
    variance = noise[:, None, None] ** 2 + np.maximum(light, 0) / GAIN[:, None, None]
    grain = rng.standard_normal(light.shape, np.float32)
    exposure = Exposure(
        flux=light + background(rng, noise) + np.sqrt(variance) * grain, variance=variance.astype(np.float32),
        mask=np.zeros(light.shape, np.int16), fwhm=night.fwhm, gain=GAIN,
    )  # fmt: skip
    blemishes(rng, exposure)
    if kind in FAULTS:
        strength, detail = FAULTS[kind](rng, exposure)
    object_id = f"CUT-{seed:03d}-{index:07d}"
    core = (1, slice(SIZE // 2 - 6, SIZE // 2 + 7), slice(SIZE // 2 - 6, SIZE // 2 + 7))
    snr = float(np.nansum(exposure.flux[core]) / math.sqrt(float(exposure.variance[core].sum())))
    truth = Truth(
        path=f"{index // 1000:04d}/{object_id}.fits", object_id=object_id, is_anomaly=int(bool(kind)),
        class_=kind or base, base=base, z=0.0, mag=magnitude, snr=snr, strength=float(strength),
        detail=detail,
    )  # fmt: skip
    return Simulated(light, exposure, _file(rng, object_id, exposure), truth)


def _file(rng: np.random.Generator, object_id: str, exposure: Exposure) -> bytes:
    """The bytes of one cutout file at a random place of the sky."""
    ra, dec = round(rng.uniform(0, 360), 7), round(math.degrees(math.asin(rng.uniform(-0.5, 0.9))), 7)
    primary, variance, mask = _headers()
    widths = {f"FWHM{band + 1}": round(width, 3) for band, width in enumerate(exposure.fwhm)}
    planes = (
        (
            primary.bytes(OBJID=object_id, RA=ra, DEC=dec, CRVAL1=ra, CRVAL2=dec, **widths),
            exposure.flux,
            ">f4",
        ),
        (variance.bytes(), exposure.variance, ">f4"),
        (mask.bytes(), exposure.mask, ">i2"),
    )
    return b"".join(header + padded(plane.astype(dtype)) for header, plane, dtype in planes)
