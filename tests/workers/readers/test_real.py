"""Every real survey file: counts, identity, pixels and the pipeline's own values."""

from __future__ import annotations

import csv
import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from workers.readers import Cutout, Rejection, Spectrum, read, reasons
from workers.readers.fits import parse, read_bytes
from workers.readers.sdss import BAD_MASK


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def check_arrays(sample: Spectrum | Cutout) -> None:
    for array in (sample.flux, sample.ivar):
        assert array.dtype == np.float32 and array.dtype.isnative and array.flags.c_contiguous
        assert np.isfinite(array).all()
    assert (sample.ivar >= 0).all() and sample.ivar.any()
    assert (sample.flux[sample.ivar == 0] == 0).all()


def test_every_sdss_spectrum(real_data: Path) -> None:
    index = rows(real_data / "sdss")
    assert len(index) == len(list((real_data / "sdss").glob("*.fits.gz"))) > 0
    for row in index:
        sample = read(real_data / "sdss" / row["file"])
        assert isinstance(sample, Spectrum), sample
        check_arrays(sample)
        assert sample.object_id == f"{int(row['plate']):04d}-{row['mjd']}-{int(row['fiber']):04d}"
        assert sample.survey == row["spectrograph"]
        assert sample.sha256 == row["sha256_gz"]
        assert sample.flux.size == int(row["npix"])
        assert 10 ** (sample.first * 1e-4) == pytest.approx(float(row["lam_min"]), abs=0.06)
        assert sample.redshift == pytest.approx(float(row["z"]), rel=1e-6, abs=1e-9)
        assert sample.zwarning == int(row["zwarning"])
        assert sample.spectral_class == row["pipe_class"]
        assert (row["label"] == "SKY") == (sample.object_type == "SKY")
        assert (sample.ra, sample.dec) == (
            pytest.approx(float(row["ra"]), abs=1e-3),
            pytest.approx(float(row["dec"]), abs=1e-3),
        )
        masked = np.mean(sample.ivar == 0)
        assert float(row["frac_ivar0"]) - 1e-4 <= masked < float(row["frac_ivar0"]) + 0.02


def test_sdss_pixels_are_those_of_astropy(real_data: Path) -> None:
    for path in sorted((real_data / "sdss").glob("*.fits.gz"))[::20]:
        sample = read(path)
        assert isinstance(sample, Spectrum)
        with fits.open(path) as hdus:
            table = hdus[1].data
            index = np.rint(table["loglam"].astype(float) * 1e4).astype(int)
            good = (table["ivar"] > 0) & (table["and_mask"] & BAD_MASK == 0)
            np.testing.assert_array_equal(index, sample.first + np.arange(sample.flux.size))
            np.testing.assert_array_equal(sample.flux, np.where(good, table["flux"], 0))
            np.testing.assert_array_equal(sample.ivar, np.where(good, table["ivar"], 0))


def test_table_cells_are_those_of_astropy(real_data: Path) -> None:
    """Every column of the wide catalogue HDU of three files, not only those that a reader asks for."""
    checked = 0
    for path in sorted((real_data / "sdss").glob("*.fits.gz"))[::150]:
        hdu = parse(str(path), read_bytes(str(path)), "").hdus[2]
        with fits.open(path) as hdus:
            table = hdus[2].data
            for name in table.names:
                expected = table[name][0]
                if hdu.columns[name.upper()].code == "A" and isinstance(expected, str):
                    assert hdu.cell(name) == expected.strip()
                elif hdu.columns[name.upper()].code in "BIJKED":
                    np.testing.assert_array_equal(hdu.column(name)[0], np.ravel(expected))
                    checked += 1
    assert checked > 300


def test_every_lamost_spectrum(real_data: Path) -> None:
    index = rows(real_data / "lamost")
    assert index
    for row in index:
        path = real_data / "lamost" / row["file"]
        sample = read(path)
        assert isinstance(sample, Spectrum), sample
        check_arrays(sample)
        assert "spec-" + sample.object_id == path.name.removesuffix(".fits.gz")
        assert sample.survey == "LAMOST" and sample.flags == {"relative-flux"}
        assert (sample.first, sample.flux.size) == (35_682, 3904)
        assert sample.spectral_class == row["label"]
        assert sample.redshift == pytest.approx(float(row["z"]), abs=1e-9)
        assert sample.ra is not None and 0 <= sample.ra < 360


def test_every_lens_image(real_data: Path) -> None:
    samples: dict[str, list[Cutout]] = {}
    for path in sorted((real_data / "lenses").rglob("*.fits")):
        folder = path.relative_to(real_data / "lenses").parts[0]
        found = read(path)
        if folder == "des_grizY_46":
            assert isinstance(found, Rejection) and found.reason == reasons.TOO_MANY_PLANES
        elif path.name in ("psf.fits", "noise_map.fits"):
            assert isinstance(found, Rejection) and found.reason == reasons.NOT_SCIENCE
        else:
            assert isinstance(found, Cutout), found
            check_arrays(found)
            assert (found.ivar.reshape(len(found.flux), -1).max(axis=1) > 0).all()
            samples.setdefault(folder, []).append(found)
    with (real_data / "lenses" / "bologna_labels.csv").open(newline="") as stream:
        labelled = [row["path"].split("/")[0] for row in csv.DictReader(stream)]
    for folder in ("bologna_denoised", "bologna_raw", "bologna_ground"):
        assert len(samples[folder]) == labelled.count(folder) > 0
        assert all(sample.flux.shape == (1, 101, 101) for sample in samples[folder])
        assert all("noise-estimated" in sample.flags for sample in samples[folder])
    ids = [sample.object_id for group in samples.values() for sample in group]
    assert len(ids) == len(set(ids))


def test_positions_in_radians(real_data: Path) -> None:
    for path in sorted((real_data / "lenses" / "bologna_raw").glob("*.fits")):
        sample, header = read(path), fits.getheader(path)
        assert isinstance(sample, Cutout)
        assert sample.ra == pytest.approx(np.degrees(header["RA"]) % 360)
        assert sample.dec == pytest.approx(np.degrees(header["DEC"]))


def test_pixels_of_the_ground_images_that_hold_100_are_masked(real_data: Path) -> None:
    masked = 0
    for path in (real_data / "lenses" / "bologna_ground").glob("*.fits"):
        sample, holds = read(path), fits.getdata(path) == 100
        assert isinstance(sample, Cutout)
        assert (sample.ivar[0][holds] == 0).all() and (sample.ivar[0][~holds] > 0).all()
        assert ("sentinel-masked" in sample.flags) == holds.any()
        masked += np.count_nonzero(holds)
    assert masked > 0


def test_euclid_bands_and_errors(real_data: Path) -> None:
    (path,) = (real_data / "lenses" / "real" / "euclid_q1").glob("*.fits")
    sample = read(path)
    assert isinstance(sample, Cutout)
    assert sample.bands == ("DES_G", "DES_R", "VIS", "DES_I", "DES_Z", "NIR_Y", "NIR_J", "NIR_H")
    assert sample.flags == set() and sample.object_id == path.stem
    with fits.open(path) as hdus:
        for flux, ivar, band in zip(sample.flux, sample.ivar, sample.bands, strict=True):
            rms = hdus[f"{band}_RMS"].data.astype(float)
            measured = rms < 1e10
            np.testing.assert_allclose(ivar[measured], rms[measured] ** -2, rtol=1e-5)
            assert (ivar[~measured] == 0).all()
            np.testing.assert_array_equal(flux[measured], hdus[f"{band}_BGSUB"].data[measured])
        header = hdus["DES_G_BGSUB"].header
    assert abs(sample.dec - header["TARGETY"]) > 90, "the header's TARGETX and TARGETY are pixels"
    assert (sample.ra, sample.dec) == (pytest.approx(57.004, abs=1e-3), pytest.approx(-50.775, abs=1e-3))


def test_estimated_noise_is_near_the_published_noise(real_data: Path) -> None:
    folder = real_data / "lenses" / "real" / "hst_f814w_slacs" / "slacs0946+1006"
    sample = read(folder / "data.fits")
    assert isinstance(sample, Cutout)
    published = np.percentile(fits.getdata(folder / "noise_map.fits"), 25)
    assert sample.ivar.max() ** -0.5 == pytest.approx(published, rel=0.25)


def test_frames_are_too_large(real_data: Path) -> None:
    frames = real_data / "frames"
    paths = sorted(frames.rglob("*.fits"))
    assert len(paths) == 5
    for path in paths:
        found = read(path)
        if path.name == "VICS82-test_i.fits":
            assert isinstance(found, Cutout) and found.flux.shape == (1, 374, 374)
            assert (found.ra, found.dec) == (
                pytest.approx(355.941527, abs=1e-4),
                pytest.approx(0.270982, abs=1e-4),
            )
        else:
            assert isinstance(found, Rejection) and found.reason == reasons.TOO_WIDE


def test_real_files_cut_short(real_data: Path, tmp_path: Path) -> None:
    """Truncation at many lengths, plain and packed, with nothing said."""
    packed = sorted((real_data / "sdss").glob("*.fits.gz"))[0].read_bytes()
    plain = gzip.decompress(packed)
    path = tmp_path / "cut.fits"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for content in (packed, plain):
            for part in range(1, 20):
                # A file that ends exactly between two HDUs is a good file, so no such length is tried.
                path.write_bytes(content[: len(content) * part // 20 // 2880 * 2880 + 1300])
                found = read(path)
                assert isinstance(found, Rejection) and found.reason == reasons.TRUNCATED, (part, found)
