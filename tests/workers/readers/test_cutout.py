"""Every layout of cutouts, their noise, masks, names and positions."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS

from workers.readers import Cutout, Rejection, read, reasons
from workers.readers.planes import role_of


def read_cutout(path: str) -> Cutout:
    sample = read(path)
    assert isinstance(sample, Cutout), sample
    assert sample.flux.shape == sample.ivar.shape and len(sample.bands) == len(sample.flux)
    for array in (sample.flux, sample.ivar):
        assert array.dtype == np.float32 and array.dtype.isnative and array.flags.c_contiguous
        assert np.isfinite(array).all()
    assert (sample.ivar >= 0).all() and (sample.flux[sample.ivar == 0] == 0).all()
    return sample


def extension(array: np.ndarray, name: str | None = None, **cards) -> fits.ImageHDU:
    hdu = fits.ImageHDU(array, name=name)
    hdu.header.update(cards)
    return hdu


def test_a_plain_image(make_image, save) -> None:
    array = make_image(40, 33)
    sample = read_cutout(save(fits.PrimaryHDU(array), "J0946+10.06.fits"))
    assert sample.object_id == "J0946+10.06" and sample.survey == "" and sample.bands == ("band0",)
    assert sample.ra is None and sample.dec is None
    assert sample.flags == {"noise-estimated"}
    np.testing.assert_array_equal(sample.flux, array[None])
    assert sample.ivar[0, 0, 0] ** -0.5 == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("size", [16, 512])
def test_sizes_at_the_limits(make_image, save, size) -> None:
    assert read_cutout(save(fits.PrimaryHDU(make_image(size, 64)))).flux.shape == (1, size, 64)


@pytest.mark.parametrize("dtype", [">f8", ">f4", ">i2", "u1", ">u2", ">i4"])
def test_any_number_type(make_image, save, dtype) -> None:
    array = np.clip(make_image() * 10 + 20, 0, 255).astype(dtype)
    sample = read_cutout(save(fits.PrimaryHDU(array)))
    np.testing.assert_array_equal(sample.flux[0], array.astype("f4"))


@pytest.mark.parametrize("packing", ["gz", "rice", "gzip tiles"])
def test_packed_images(make_image, save, packing) -> None:
    array = np.round(make_image() * 100).astype(np.int32)
    if packing == "gz":
        plain = Path(save(fits.PrimaryHDU(array), "plain.fits")).read_bytes()
        path = save(gzip.compress(plain[:2880]) + gzip.compress(plain[2880:]), "two-members.fits.gz")
    else:
        kind = "RICE_1" if packing == "rice" else "GZIP_2"
        hdu = fits.CompImageHDU(array, compression_type=kind, tile_shape=(8, 32))
        hdu.header.update({"FILTER": "r", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0})
        hdu.header.update({"CRVAL2": 5.0, "CRPIX1": 16.5, "CRPIX2": 16.5, "CDELT1": -1e-4, "CDELT2": 1e-4})
        path = save(fits.HDUList([fits.PrimaryHDU(), hdu]), "packed.fits.fz")
        sample = read_cutout(path)
        assert sample.bands == ("r",) and sample.object_id == "packed"
        assert (sample.ra, sample.dec) == (pytest.approx(10.0), pytest.approx(5.0))
    np.testing.assert_array_equal(read_cutout(path).flux[0], array.astype("f4"))


@pytest.mark.parametrize(
    ("cards", "bands"),
    [
        ({}, ("band0", "band1", "band2")),
        ({"BAND1": "g", "BAND2": "r", "BAND3": "i"}, ("g", "r", "i")),
        ({"BANDS": "g,r,i"}, ("g", "r", "i")),
        ({"FILTER1": "g", "FILTER3": "i"}, ("g", "band1", "i")),
    ],
)
def test_a_cube(make_image, save, cards, bands) -> None:
    cube = np.stack([make_image(seed=n) for n in range(3)])
    hdu = fits.PrimaryHDU(cube)
    hdu.header.update(cards)
    sample = read_cutout(save(hdu))
    assert sample.bands == bands
    np.testing.assert_array_equal(sample.flux, cube)


def test_a_cube_with_cubes_and_planes_of_noise(make_image, save) -> None:
    cube = np.stack([make_image(seed=n) for n in range(3)])
    variance = np.stack([np.full((32, 32), n + 1.0) for n in range(3)])
    mask = np.zeros((32, 32), np.int16)
    mask[3, 4] = 8
    hdus = fits.HDUList([fits.PrimaryHDU(cube), extension(variance, "VARIANCE"), extension(mask, "MASK")])
    sample = read_cutout(save(hdus))
    assert sample.flags == set()
    np.testing.assert_allclose(sample.ivar[:, 0, 0], [1, 1 / 2, 1 / 3])
    assert (sample.ivar[:, 3, 4] == 0).all() and np.count_nonzero(sample.ivar == 0) == 3


@pytest.mark.parametrize(
    ("name", "plane"),
    [
        ("IVAR", 4.0),
        ("INVVAR", 4.0),
        ("inverse_variance", 4.0),
        ("VAR", 0.25),
        ("Variance", 0.25),
        ("ERR", 0.5),
        ("ERROR", 0.5),
        ("RMS", 0.5),
        ("NOISE_MAP", 0.5),
        ("SIGMA", 0.5),
        ("VAR_g", 0.25),
    ],
)
def test_noise_planes(make_image, save, name, plane) -> None:
    noise = np.full((32, 32), plane)
    noise[0, :3] = 0, -1, np.nan
    primary = fits.PrimaryHDU(make_image())
    primary.header["FILTER"] = "g"
    sample = read_cutout(save(fits.HDUList([primary, extension(noise, name)])))
    assert sample.flags == set() and sample.bands == ("g",)
    assert (sample.ivar[0, 0, :3] == 0).all()
    assert (sample.ivar[0, 1:] == 4).all()


@pytest.mark.parametrize(("kind", "value"), [(StdDevUncertainty, 0.5), (VarianceUncertainty, 0.25)])
def test_ccddata_says_what_its_uncertainty_is(make_image, tmp_path, kind, value) -> None:
    path = tmp_path / "ccd.fits"
    CCDData(make_image(), unit="nJy", uncertainty=kind(np.full((32, 32), value))).write(path)
    assert (read_cutout(str(path)).ivar == 4).all()


def test_one_band_per_hdu(make_image, save) -> None:
    hdus = fits.HDUList([fits.PrimaryHDU()])
    for n, band in enumerate("gri"):
        hdus += [
            extension(make_image(seed=n), f"{band}_SCI"),
            extension(np.full((32, 32), n + 1.0), f"{band}_RMS"),
            extension(np.zeros((9, 9)), f"{band}_PSF"),
        ]
    sample = read_cutout(save(hdus))
    assert sample.bands == ("G", "R", "I")
    np.testing.assert_allclose(sample.ivar[:, 5, 5], [1, 1 / 4, 1 / 9])
    assert sample.flags == set()


@pytest.mark.parametrize("order", ["by band", "by kind"])
def test_noise_without_band_names_goes_by_order(make_image, save, order) -> None:
    science = [extension(make_image(seed=n), "SCI", FILTER=band, EXTVER=n + 1) for n, band in enumerate("gr")]
    errors = [extension(np.full((32, 32), n + 1.0), "ERR", EXTVER=n + 1) for n in range(2)]
    mixed = [science[0], errors[0], science[1], errors[1]] if order == "by band" else science + errors
    sample = read_cutout(save(fits.HDUList([fits.PrimaryHDU(), *mixed])))
    assert sample.bands == ("g", "r")
    np.testing.assert_allclose(sample.ivar[:, 5, 5], [1, 1 / 4])


def test_a_band_without_noise_is_estimated(make_image, save) -> None:
    hdus = [fits.PrimaryHDU()] + [extension(make_image(seed=n), band) for n, band in enumerate("gr")]
    sample = read_cutout(save(fits.HDUList([*hdus, extension(np.full((32, 32), 9.0), "VAR_R")])))
    assert sample.flags == {"noise-estimated"}
    assert sample.ivar[1, 0, 0] == pytest.approx(1 / 9)
    assert sample.ivar[0, 0, 0] == pytest.approx(100, rel=0.4)


def test_smaller_bands_are_dropped_and_said(make_image, save) -> None:
    hdus = fits.HDUList(
        [fits.PrimaryHDU(), extension(make_image(), "VIS"), extension(make_image(20, 20), "NIR")]
    )
    hdus += [extension(np.ones((32, 32)), "VIS_RMS"), extension(np.ones((20, 20)), "NIR_RMS")]
    sample = read_cutout(save(hdus))
    assert sample.bands == ("VIS",) and sample.flags == {"bands-dropped"} and (sample.ivar == 1).all()


def test_lsst_mask_keeps_detected_pixels(make_image, save) -> None:
    mask = np.zeros((32, 32), np.int32)
    mask[10:20, 10:20] = 1 << 5
    mask[12, 12] |= 1 << 1
    planes = extension(mask, "MASK", **{"MP_BAD": 0, "MP_SAT": 1, "HIERARCH MP_DETECTED": 5})
    sample = read_cutout(save(fits.HDUList([fits.PrimaryHDU(), extension(make_image(), "IMAGE"), planes])))
    assert np.argwhere(sample.ivar[0] == 0).tolist() == [[12, 12]]


def test_zero_weight_masks_but_weights_are_no_noise(make_image, save) -> None:
    weight = np.full((32, 32), 1500.0)
    weight[2, 2] = 0
    sample = read_cutout(save(fits.HDUList([fits.PrimaryHDU(make_image()), extension(weight, "WHT")])))
    assert sample.flags == {"noise-estimated"}
    assert np.argwhere(sample.ivar[0] == 0).tolist() == [[2, 2]]


def test_pixels_that_are_no_measurement(make_image, save) -> None:
    array = make_image()
    array[0, :2] = np.nan, np.inf
    array[1, :5] = 1e6
    sample = read_cutout(save(fits.PrimaryHDU(array)))
    assert sample.flags == {"noise-estimated", "sentinel-masked"}
    assert np.count_nonzero(sample.ivar == 0) == 7


def test_an_error_of_1e16_is_no_measurement(make_image, save) -> None:
    rms = np.ones((32, 32))
    rms[4, 4] = 1e16
    sample = read_cutout(save(fits.HDUList([fits.PrimaryHDU(make_image()), extension(rms, "RMS")])))
    assert np.argwhere(sample.ivar[0] == 0).tolist() == [[4, 4]]


@pytest.mark.parametrize(
    ("name", "role", "band"),
    [
        ("", "science", ""),
        ("COMPRESSED_IMAGE", "science", ""),
        ("DES_G_BGSUB", "science", "DES_G"),
        ("DES_G_RMS", "error", "DES_G"),
        ("F814W", "science", "F814W"),
        ("VAR2", "variance", ""),
        ("INV_VAR-z", "ivar", "z"),
        ("NIR_Y_PSF", "other", "NIR_Y"),
        ("BAD_PIXEL_MASK", "mask", ""),
        ("VARIABLE", "science", "VARIABLE"),
    ],
)
def test_roles(name, role, band) -> None:
    assert role_of(name) == (role, band)


@pytest.mark.parametrize(
    ("cards", "name", "identity"),
    [
        ({"OBJID": 1237648720}, "a.fits", "1237648720"),
        ({"OBJECT": "J0946+1006"}, "a.fits", "J0946+1006"),
        ({"OBJECT": "UNKNOWN"}, "lens-7.fits", "lens-7"),
        ({"OBJID": 0, "NAME": ""}, "lens-7.FITS.gz", "lens-7"),
        ({}, "lens-7.fits.fz", "lens-7"),
    ],
)
def test_identity(make_image, save, cards, name, identity) -> None:
    hdu = fits.PrimaryHDU(make_image())
    hdu.header.update(cards)
    assert read_cutout(save(hdu, name)).object_id == identity


def test_a_name_that_many_files_share_takes_its_folder(make_image, tmp_path) -> None:
    (tmp_path / "slacs0946").mkdir()
    fits.PrimaryHDU(make_image()).writeto(tmp_path / "slacs0946" / "data.fits")
    assert read_cutout(str(tmp_path / "slacs0946" / "data.fits")).object_id == "slacs0946-data"


@pytest.mark.parametrize(
    ("cards", "survey"),
    [({"TELESCOP": "HST", "SURVEY": "KiDS"}, "KiDS"), ({"TELESCOP": "HST"}, "HST"), ({}, "")],
)
def test_survey(make_image, save, cards, survey) -> None:
    hdu = fits.PrimaryHDU(make_image())
    hdu.header.update(cards)
    assert read_cutout(save(hdu)).survey == survey


@pytest.mark.parametrize(
    ("ra", "dec", "position"),
    [
        (150.5, -2.25, (150.5, -2.25)),
        ("150.5", "-2.25", (150.5, -2.25)),
        ("10:02:00.0", "-02:15:00", (150.5, -2.25)),
        ("north", "south", None),
        (150.5, 95.0, None),
        ((np.pi / 2, "/ radians"), (-0.1, "/ radians"), (90.0, np.degrees(-0.1))),
        ((-0.01, "radians"), (0.0, "radians"), (360 - np.degrees(0.01), 0.0)),
    ],
)
def test_position_from_keys(make_image, save, ra, dec, position) -> None:
    hdu = fits.PrimaryHDU(make_image())
    hdu.header["RA"], hdu.header["DEC"] = ra, dec
    sample = read_cutout(save(hdu))
    if position is None:
        assert sample.ra is None and sample.dec is None
    else:
        assert (sample.ra, sample.dec) == (pytest.approx(position[0]), pytest.approx(position[1]))


@pytest.mark.parametrize(
    ("axes", "crval"), [(("RA---TAN", "DEC--TAN"), (30.0, -5.0)), (("GLON-TAN", "GLAT-TAN"), (0.0, 0.0))]
)
def test_position_from_the_wcs(make_image, save, axes, crval) -> None:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt, wcs.wcs.crpix = axes, crval, (-1e-4, 1e-4), (1, 1)
    expected = wcs.pixel_to_world(19.5, 9.5).icrs
    sample = read_cutout(save(fits.PrimaryHDU(make_image(20, 40), wcs.to_header())))
    assert (sample.ra, sample.dec) == (pytest.approx(expected.ra.deg), pytest.approx(expected.dec.deg))


def test_a_broken_wcs_costs_only_the_position(make_image, save) -> None:
    hdu = fits.PrimaryHDU(make_image())
    hdu.header.update({"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--TAN", "CD1_1": 0.0, "CD2_2": 0.0})
    assert read_cutout(save(hdu)).ra is None


def digit() -> np.ndarray:
    array = np.zeros((28, 28), np.uint8)
    array[6:22, 12:16] = np.arange(64).reshape(16, 4) + 190
    return array


@pytest.mark.parametrize(
    ("array", "low", "high"),
    [
        (digit(), 0.25, 0.3),
        (digit() / 255, 1e-4, 1e-2),
        (np.where(np.hypot(*np.mgrid[-32:32, -32:32]) < 9, 1.0, 0.0), 1e-4, 1e-2),
        (np.eye(32) * 1e-12, 1e-16, 1e-14),
    ],
    ids=["8 bits, zero border", "scaled to one", "noise-free", "nearly constant and tiny"],
)
def test_noise_is_never_zero(save, array, low, high) -> None:
    sample = read_cutout(save(fits.PrimaryHDU(array)))
    assert (sample.ivar > 0).all()
    assert low <= sample.ivar.max() ** -0.5 <= high


def test_noise_beside_padding(make_image, save) -> None:
    array = make_image(64, 64)
    array[:, :40] = 0
    array[:, 40:] += np.random.default_rng(5).normal(0, 0.1, (64, 24))
    assert read_cutout(save(fits.PrimaryHDU(array))).ivar.max() ** -0.5 == pytest.approx(0.14, rel=0.35)


@pytest.mark.parametrize("name", ["psf.fits", "noise_map.fits"])
def test_pictures_of_no_object(make_image, save, name) -> None:
    rejection = read(save(fits.PrimaryHDU(make_image()), name))
    assert isinstance(rejection, Rejection) and rejection.reason == reasons.NOT_SCIENCE
