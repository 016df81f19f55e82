"""Simulated spectra: the survey's layout, its noise, and anomalies that show."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from workers.simulate import speclite
from workers.simulate.grid import WAVE
from workers.simulate.spectra import Simulated, identity, make_spectrum
from workers.simulate.spectral_anomalies import KINDS
from workers.simulate.spectrograph import BRIGHTSKY


@pytest.fixture(scope="module")
def normal() -> list[Simulated]:
    return [make_spectrum(5, index) for index in range(60)]


def opened(made: Simulated) -> fits.HDUList:
    return fits.open(io.BytesIO(made.content))


@pytest.mark.parametrize("kind", ["", *KINDS])
def test_astropy_finds_no_fault(kind: str) -> None:
    made = make_spectrum(5, 3, kind)
    with opened(made) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "COADD", "SPECOBJ", "SPZLINE"]
        primary, row = hdus[0].header, hdus["SPECOBJ"].data[0]
        coadd = hdus["COADD"].data
        assert len(hdus["SPECOBJ"].data) == 1 and len(hdus["SPZLINE"].data) == 29
        assert made.truth.object_id == f"{primary['PLATEID']:04d}-{primary['MJD']}-{primary['FIBERID']:04d}"
        assert row["PLUG_RA"] == pytest.approx(primary["PLUG_RA"], abs=1e-6)
        assert primary["COEFF0"] == pytest.approx(coadd["loglam"][0], abs=1e-6)
        assert row["CLASS"] == made.truth.base
        for name in ("flux", "ivar", "sky", "model", "wdisp"):
            assert np.isfinite(coadd[name]).all()
        assert (coadd["ivar"] >= 0).all()
        for column in hdus["SPZLINE"].columns.names[4:]:
            assert np.isfinite(hdus["SPZLINE"].data[column]).all()


def test_layout_is_that_of_a_real_file(real_data: Path, normal: list[Simulated]) -> None:
    with (real_data / "sdss" / "index.csv").open(newline="") as source:
        real = next(
            r for r in csv.DictReader(source) if r["label"] == "GALAXY" and r["spectrograph"] == "SDSS"
        )

    def columns(hdu: fits.BinTableHDU) -> list[tuple[str, str]]:
        # The width of a string column is each file's own.
        return [(c.name, "A" if c.format.endswith("A") else c.format) for c in hdu.columns]

    with fits.open(real_data / "sdss" / real["file"]) as theirs, opened(normal[0]) as ours:
        for number in (1, 2, 3):
            assert columns(ours[number]) == columns(theirs[number])
            assert ours[number].name == theirs[number].name
        assert ours[3].data["LINENAME"].tolist() == theirs[3].data["LINENAME"].tolist()
        np.testing.assert_allclose(ours[3].data["LINEWAVE"], theirs[3].data["LINEWAVE"], atol=1e-3)
        known = set(theirs[0].header) | {"HUMIDITY", "AIRTEMP", "SIMULATE"}
        assert set(ours[0].header) <= known


def test_noise_is_about_what_ivar_says(normal: list[Simulated]) -> None:
    scatter = []
    for made in normal:
        good = made.observed.ivar > 0
        scatter.append(((made.observed.flux - made.truth_flux) * np.sqrt(made.observed.ivar))[good].std())
    assert 0.85 < np.median(scatter) < 1.1
    assert np.quantile(scatter, 0.05) > 0.8 and np.quantile(scatter, 0.9) < 1.2


def test_stated_noise_is_wrong_by_wavelength(normal: list[Simulated]) -> None:
    """Too large in the middle and too small in the red, by 10 to 20 %."""
    chi = np.array([(m.observed.flux - m.truth_flux) * np.sqrt(m.observed.ivar) for m in normal])

    def scatter(low: float, high: float) -> float:
        part = chi[:, (low < WAVE) & (high > WAVE)]
        return float(np.quantile(np.abs(part[part != 0]), 0.683))

    middle, red = scatter(6000, 6800), scatter(8600, 9100)
    assert 1.05 < red / middle < 1.3


def test_signal_and_classes_are_the_survey_s(normal: list[Simulated]) -> None:
    snr = np.array([made.truth.snr for made in normal])
    assert 5 < np.median(snr) < 11
    assert snr.min() > 0.5 and snr.max() < 60
    classes = [make_spectrum(6, index).truth.base for index in range(300)]
    assert 0.84 < classes.count("GALAXY") / 300 < 0.95
    assert classes.count("QSO") > classes.count("STAR") > 0


def test_bright_sky_is_flagged_in_the_red_but_measured(normal: list[Simulated]) -> None:
    for made in normal[:10]:
        bright = (made.observed.and_mask >> BRIGHTSKY & 1).astype(bool)
        assert 0.04 < bright.mean() < 0.2
        assert bright[WAVE > 7200].mean() > 5 * bright[WAVE < 5500].mean()
        assert (made.observed.ivar[bright] > 0).mean() > 0.8


def test_some_files_have_pixels_without_a_measurement(normal: list[Simulated]) -> None:
    lost = [(made.observed.ivar[made.span] == 0).mean() for made in normal]
    assert 0.05 < np.mean(np.array(lost) > 0) < 0.5


def test_pipeline_model_fits_normal_objects(normal: list[Simulated]) -> None:
    rchi2 = [float(opened(made)["SPECOBJ"].data["RCHI2"][0]) for made in normal[:30]]
    assert 0.75 < np.median(rchi2) < 1.3


@pytest.mark.parametrize("kind", KINDS)
def test_anomaly_changes_the_light(kind: str) -> None:
    """Beside its own source without the anomaly, or, for a rare kind of source, beside a normal one."""
    made = make_spectrum(8, 11, kind)
    assert made.truth.is_anomaly == 1 and made.truth.class_ == kind
    normal = make_spectrum(8, 11)
    sigma = 1 / np.sqrt(np.where(made.observed.ivar > 0, made.observed.ivar, np.inf))
    scale = made.truth_flux.mean() / normal.truth_flux.mean() if kind != "unplugged" else 1.0
    difference = (made.truth_flux - scale * normal.truth_flux) / np.where(sigma > 0, sigma, np.inf)
    assert (difference**2).sum() > 60


def test_carbon_star_has_swan_bands() -> None:
    flux = make_spectrum(8, 2, "carbon_star").truth_flux
    before, after = (flux[(low < WAVE) & (low + 60 > WAVE)].mean() for low in (5090, 5185))
    assert before < 0.7 * after


def test_quasars_reach_high_redshift_with_a_forest() -> None:
    made = [make_spectrum(9, index, "broad_absorption") for index in range(20)]
    assert all(1.7 <= m.truth.z <= 3.6 for m in made)
    far = max(made, key=lambda m: m.truth.z)
    inside = (1060 * (1 + far.truth.z) < WAVE) & (1170 * (1 + far.truth.z) > WAVE)
    beyond = (1290 * (1 + far.truth.z) < WAVE) & (1330 * (1 + far.truth.z) > WAVE)
    relative = far.truth_flux[inside].std() / far.truth_flux[inside].mean()
    assert relative > 2 * far.truth_flux[beyond].std() / far.truth_flux[beyond].mean()


def test_identities_differ_between_objects_and_seeds() -> None:
    seeds = (0, 1, 47_999, 48_000, 96_001)
    seen = {identity(seed, index) for seed in seeds for index in (0, 1, 639, 640, 5000)}
    assert len(seen) == len(seeds) * 5


def test_every_column_of_the_row_is_documented_by_its_format() -> None:
    dtype = speclite.table_dtype(speclite.SPECOBJ_COLUMNS)
    assert len(dtype.names or ()) == 126
    assert dtype["THETA"].shape == (10,) and dtype["SPECOBJID"] == np.dtype("S22")
