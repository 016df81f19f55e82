"""Simulated cutouts: layout, noise, lenses that lens, and faults that show."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from workers.simulate.cutouts import KINDS, SKY_NOISE, Simulated, make_cutout
from workers.simulate.image_anomalies import COSMIC
from workers.simulate.lensing import deflected
from workers.simulate.light import AXIS, SCALE, SIZE, Profile, sersic


@pytest.fixture(scope="module")
def normal() -> list[Simulated]:
    return [make_cutout(5, index) for index in range(40)]


@pytest.mark.parametrize("kind", ["", *KINDS])
def test_layout(kind: str) -> None:
    made = make_cutout(5, 3, kind)
    with fits.open(io.BytesIO(made.content)) as hdus:
        hdus.verify("exception")
        assert [(hdu.name, hdu.data.shape) for hdu in hdus] == [
            (name, (3, SIZE, SIZE)) for name in ("SCI", "VAR", "MASK")
        ]
        assert [hdu.data.dtype.newbyteorder("=") for hdu in hdus] == ["f4", "f4", "i2"]
        head = hdus[0].header
        assert head["OBJID"] == made.truth.object_id and head["OBJID"].startswith("CUT-005-")
        assert [head[f"BAND{band}"] for band in (1, 2, 3)] == ["g", "r", "i"]
        assert (hdus["VAR"].data > 0).all()
        position = WCS(head).celestial.pixel_to_world((SIZE - 1) / 2, (SIZE - 1) / 2)
        assert position.ra.deg == pytest.approx(head["RA"], abs=1e-6)
        assert position.dec.deg == pytest.approx(head["DEC"], abs=1e-6)


def test_noise_is_what_the_variance_says(normal: list[Simulated]) -> None:
    for made in normal:
        good = (made.exposure.mask == 0) & np.isfinite(made.exposure.flux)
        pull = (made.exposure.flux - made.truth_flux) / np.sqrt(made.exposure.variance)
        assert 0.9 < pull[good].std() < 1.1


def test_sky_is_as_deep_as_a_survey_s(normal: list[Simulated]) -> None:
    noise = np.array([np.sqrt(made.exposure.variance.min((1, 2))) for made in normal])
    np.testing.assert_allclose(np.median(noise, axis=0), SKY_NOISE * 1.1, rtol=0.15)


def test_background_is_not_quite_flat(normal: list[Simulated]) -> None:
    """Block means scatter more than white noise alone would let them."""
    blocks = []
    for made in normal:
        residual = np.nan_to_num((made.exposure.flux - made.truth_flux) / np.sqrt(made.exposure.variance))
        residual[made.exposure.mask != 0] = 0
        blocks.append(residual.reshape(3, 2, 32, 2, 32).mean((2, 4)).ravel())
    assert 2 < np.std(blocks) * 32 < 8


def test_cosmic_rays_are_flagged(normal: list[Simulated]) -> None:
    assert any((made.exposure.mask & COSMIC).any() for made in normal)
    for made in normal:
        pull = np.abs(made.exposure.flux - made.truth_flux) / np.sqrt(made.exposure.variance)
        unflagged = pull[(made.exposure.mask == 0) & np.isfinite(pull)]
        assert (unflagged > 6).sum() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_anomaly_changes_the_image(kind: str) -> None:
    made = make_cutout(8, 12, kind)
    # The first draws are the same for a normal object of this number, so a fault stands on the same scene.
    normal = make_cutout(8, 12)
    assert made.truth.is_anomaly == 1 and made.truth.class_ == kind
    difference = np.nan_to_num(made.exposure.flux) - np.nan_to_num(normal.exposure.flux)
    assert (difference**2 / normal.exposure.variance).mean() > 0.05
    assert not np.array_equal(made.exposure.flux, normal.exposure.flux, equal_nan=True)


def test_ring_of_a_centred_source_has_the_einstein_radius() -> None:
    """Behind an almost round lens the source-plane position vanishes on the Einstein circle."""
    angle = np.linspace(0, 2 * math.pi, 50)
    u, v = deflected(5 * np.cos(angle), 5 * np.sin(angle), 5.0, 0.9999, 0.3)
    np.testing.assert_allclose(np.hypot(u, v), 0, atol=2e-3)


def test_lens_adds_light_near_its_einstein_radius() -> None:
    for index in range(12):
        made = make_cutout(3, index, "lens")
        sort, radius = made.truth.detail.split(";theta_e=")
        assert sort in ("arc", "ring", "quad", "double")
        assert 0.9 <= float(radius.removesuffix("arcsec")) <= 2.8
        assert made.truth.base == "early" and made.truth.strength >= 50


@pytest.mark.parametrize("index", [0.8, 1.0, 2.5, 4.0])
def test_sersic_profile_holds_its_flux(index: float) -> None:
    shape = Profile(flux=7.0, radius=4.0, index=index, axis_ratio=0.6, angle=0.4)
    assert sersic(shape, AXIS[None, :], AXIS[:, None]).sum() == pytest.approx(7.0, rel=0.09)


def test_pixels_are_a_ground_survey_s() -> None:
    assert 0.2 < SCALE < 0.4
