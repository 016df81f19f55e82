"""Every layout of SDSS spectra, and what becomes of their pixels."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from workers.readers import Rejection, Spectrum, read, reasons
from workers.readers.sdss import BAD_BITS


def read_spectrum(path: str) -> Spectrum:
    sample = read(path)
    assert isinstance(sample, Spectrum), sample
    return sample


@pytest.mark.parametrize("name", ["spec-0266-51602-0031.fits", "spec.fits.gz", "any thing"])
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("and_mask", [False, True])
def test_layouts_give_the_same_sample(make_spectrum, save, name, upper, named, and_mask) -> None:
    path = save(make_spectrum(upper=upper, named=named, and_mask=and_mask))
    if name.endswith(".gz"):
        path = save(gzip.compress(Path(path).read_bytes()), name)
    sample = read_spectrum(path)
    assert sample.path == path
    assert sample.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert (sample.object_id, sample.survey, sample.first) == ("0266-51602-0031", "SDSS", 35_500)
    assert (sample.ra, sample.dec) == (10.5, -1.25), "the fibre, not the plate's centre"
    assert (sample.redshift, sample.zwarning, sample.spectral_class) == (1.5, 4, "QSO")
    assert sample.object_type == "QSO"
    assert sample.flags == set()
    for array in (sample.flux, sample.ivar):
        assert array.dtype == np.float32 and array.dtype.isnative and array.flags.c_contiguous
    np.testing.assert_array_equal(sample.flux, np.linspace(1, 2, 200, dtype=np.float32))
    np.testing.assert_array_equal(sample.ivar, np.full(200, 4, np.float32))


@pytest.mark.parametrize(
    ("header", "row", "name", "identity", "survey"),
    [
        ({"PLATEID": 266, "MJD": 51602, "FIBERID": 31}, {}, "x.fits", "0266-51602-0031", "SDSS"),
        ({"PLATEID": 10000, "MJD": 57346, "FIBERID": 1000}, {}, "x.fits", "10000-57346-1000", "BOSS"),
        ({}, {"PLATE": 7339, "MJD": 56683, "FIBERID": 5}, "x.fits", "7339-56683-0005", "BOSS"),
        ({}, {}, "spec-4055-55359-0596.fits", "4055-55359-0596", "BOSS"),
        ({}, {}, "spec-10000-57346-0005.fits", "10000-57346-0005", "BOSS"),
        ({}, {}, "spec-015000-59146-4375786564.fits", "015000-59146-4375786564", "SDSS-V"),
        (
            {"MJD": 59146},
            {"FIELD": 15000, "CATALOGID": 4375786564},
            "spec-015000-59146-4375786564.fits",
            "015000-59146-4375786564",
            "SDSS-V",
        ),
        (
            {"FIELDID": 15000, "MJD": 59146, "HIERARCH CATALOGID": 4375786564, "FIBERID": 7},
            {},
            "renamed.fits",
            "15000-59146-4375786564",
            "SDSS-V",
        ),
        (
            {"PLATEID": 1, "MJD": 51602, "FIBERID": 2},
            {},
            "spec-0266-51602-0031.fits",
            "0001-51602-0002",
            "SDSS",
        ),
        ({}, {}, "My.Star.fits.gz", "My.Star", "SDSS"),
    ],
)
def test_identity(make_spectrum, save, header, row, name, identity, survey) -> None:
    sample = read_spectrum(save(make_spectrum(header=header, row=row), name))
    assert (sample.object_id, sample.survey) == (identity, survey)


def test_column_types_do_not_matter(make_spectrum, save) -> None:
    wide = {
        "flux": np.linspace(1, 2, 200),
        "loglam": (35_500 + np.arange(200)) * 1e-4,
        "ivar": np.full(200, 4, np.int32),
        "and_mask": np.zeros(200, np.int64),
    }
    sample = read_spectrum(save(make_spectrum(change=wide)))
    assert sample.first == 35_500 and sample.ivar.dtype == np.float32
    assert (sample.ivar == 4).all()


@pytest.mark.parametrize("bit", range(31))
def test_mask_bits(make_spectrum, save, bit) -> None:
    mask = np.zeros(200, np.int32)
    mask[7] = 1 << bit
    sample = read_spectrum(save(make_spectrum(change={"and_mask": mask})))
    bad = bit in BAD_BITS.values()
    assert sample.ivar[7] == (0 if bad else 4)
    assert (sample.flux[7] == 0) == bad
    assert np.count_nonzero(sample.ivar == 0) == bad


def test_bright_sky_is_kept_and_no_data_is_not() -> None:
    assert 23 not in BAD_BITS.values()
    assert {22, 24, 25, 27} <= set(BAD_BITS.values())


def test_bad_pixels_are_masked(make_spectrum, save) -> None:
    flux, ivar = np.ones(200), np.ones(200)
    flux[[1, 2]] = np.nan, np.inf
    ivar[[3, 4, 5, 6]] = 0, -1, np.nan, np.inf
    flux[8], ivar[9], ivar[10] = 1e300, 1e300, 1e-300
    sample = read_spectrum(save(make_spectrum(change={"flux": flux, "ivar": ivar})))
    assert set(np.flatnonzero(sample.ivar == 0)) == {1, 2, 3, 4, 5, 6, 8, 10}
    assert (sample.flux[sample.ivar == 0] == 0).all()
    assert np.isfinite(sample.ivar).all() and sample.ivar[9] > 1e38


def test_missing_pixels_become_gaps(make_spectrum, save) -> None:
    kept = np.delete(np.arange(200), [50, 51, 120])
    hdus = make_spectrum()
    hdus[1].data = hdus[1].data[kept]
    sample = read_spectrum(save(hdus))
    assert sample.flux.size == 200
    assert set(np.flatnonzero(sample.ivar == 0)) == {50, 51, 120}
    np.testing.assert_array_equal(sample.flux[kept], np.linspace(1, 2, 200, dtype=np.float32)[kept])


@pytest.mark.parametrize("shift", [0.0, 0.05, -0.09])
def test_index_is_the_nearest_grid_point(make_spectrum, save, shift) -> None:
    loglam = (35_500 + shift + np.arange(200)) * 1e-4
    assert read_spectrum(save(make_spectrum(change={"loglam": loglam}))).first == 35_500


@pytest.mark.parametrize(
    "loglam",
    [
        (35_500.3 + np.arange(200)) * 1e-4,
        (35_500 + 0.7 * np.arange(200)) * 1e-4,
        (35_500 - np.arange(200)) * 1e-4,
        np.full(200, 3.55),
        np.full(200, np.nan),
        np.linspace(3800, 3999, 200),
        np.array([*(35_500 + np.arange(199)), 9e9]) * 1e-4,
    ],
    ids=["shifted", "other step", "falling", "one wavelength", "nan", "angstrom", "stray"],
)
def test_off_grid_is_rejected(make_spectrum, save, loglam) -> None:
    rejection = read(save(make_spectrum(change={"loglam": loglam})))
    assert isinstance(rejection, Rejection)
    assert (rejection.reason, rejection.kind) == (reasons.OFF_GRID, "spectrum")


def test_without_a_catalogue_there_is_no_redshift(make_spectrum, save) -> None:
    sample = read_spectrum(save(make_spectrum()[:2]))
    assert sample.redshift is None and sample.spectral_class == "" and sample.zwarning == 0
    assert sample.flags == {"no-catalogue"}


@pytest.mark.parametrize("z", [np.nan, np.inf, -9999.0])
def test_redshift_that_is_none(make_spectrum, save, z) -> None:
    assert read_spectrum(save(make_spectrum(row={"Z": z}))).redshift is None


@pytest.mark.parametrize(
    ("header", "row", "position"),
    [
        ({"PLUG_RA": 1.0, "PLUG_DEC": 2.0, "RA": 3.0, "DEC": 4.0}, {}, (1, 2)),
        ({"RA": 3.0, "DEC": 4.0}, {"PLUG_RA": 5.0, "PLUG_DEC": 6.0}, (5, 6)),
        ({}, {"RACAT": 7.0, "DECCAT": 8.0}, (7, 8)),
        ({"RA": 3.0, "DEC": 4.0}, {}, (3, 4)),
        ({"RA": 3.0, "DEC": 4.0, "RADEG": 3.0, "CARTID": 11}, {}, (None, None)),
        ({"PLUG_RA": 1.0, "PLUG_DEC": 200.0}, {}, (None, None)),
        ({"PLUG_RA": -10.0, "PLUG_DEC": 0.0}, {}, (350, 0)),
        ({}, {}, (None, None)),
    ],
)
def test_position(make_spectrum, save, header, row, position) -> None:
    sample = read_spectrum(save(make_spectrum(header=header, row=row)))
    assert (sample.ra, sample.dec) == position


def test_exposures_of_a_full_file_are_not_taken_for_the_coadd(make_spectrum, save) -> None:
    hdus = make_spectrum()
    exposure = make_spectrum(n=90, first=36_000)[1]
    exposure.header["EXTNAME"] = "B1-00110133-00110130-00110131"
    hdus.append(exposure)
    assert read_spectrum(save(hdus)).flux.size == 200
