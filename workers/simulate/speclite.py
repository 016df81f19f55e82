"""The survey's spec-lite file: PRIMARY, COADD (one row a pixel), SPECOBJ (one row), SPZLINE (one row a line).

Layout: https://data.sdss.org/datamodel/files/SPECTRO_REDUX/RUN2D/spectra/lite/PLATE4/spec.html
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from astropy.io import fits

from workers.simulate.fitsbytes import HeaderTemplate, padded
from workers.simulate.grid import Array

COADD = np.dtype(
    {
        "names": ["flux", "loglam", "ivar", "and_mask", "or_mask", "wdisp", "sky", "model"],
        "formats": [">f4", ">f4", ">f4", ">i4", ">i4", ">f4", ">f4", ">f4"],
    }
)
"""One row a pixel: fluxes in 1e-17 erg/s/cm²/Å, loglam in log10 Å, wdisp in pixels."""

SPECOBJ_COLUMNS = """
SURVEY 6A; INSTRUMENT 4A; CHUNK 16A; PROGRAMNAME 23A; PLATERUN 16A; PLATEQUALITY 8A; PLATESN2 E; DEREDSN2 E;
LAMBDA_EFF E; BLUEFIBER J; ZOFFSET E; SNTURNOFF E; NTURNOFF J; SPECPRIMARY B; SPECLEGACY B; SPECSEGUE B;
SPECSEGUE1 B; SPECSEGUE2 B; SPECBOSS B; BOSS_SPECOBJ_ID J; SPECOBJID 22A; FLUXOBJID 19A; BESTOBJID 19A;
TARGETOBJID 22A; PLATEID 19A; NSPECOBS I; FIRSTRELEASE 3A; RUN2D 3A; RUN1D 1A; DESIGNID J; CX D; CY D; CZ D;
XFOCAL E; YFOCAL E; SOURCETYPE 19A; TARGETTYPE 8A; PRIMTARGET J; SECTARGET J; LEGACY_TARGET1 J; LEGACY_TARGET2
J; SPECIAL_TARGET1 K; SPECIAL_TARGET2 K; SEGUE1_TARGET1 J; SEGUE1_TARGET2 J; SEGUE2_TARGET1 J; SEGUE2_TARGET2
J; MARVELS_TARGET1 J; MARVELS_TARGET2 J; BOSS_TARGET1 K; BOSS_TARGET2 K; ANCILLARY_TARGET1 K;
ANCILLARY_TARGET2 K; SPECTROGRAPHID I; PLATE J; TILE J; MJD J; FIBERID J; OBJID 5J; PLUG_RA D; PLUG_DEC D;
CLASS 6A; SUBCLASS 21A; Z E; Z_ERR E; RCHI2 E; DOF J; RCHI2DIFF E; TFILE 24A; TCOLUMN 10J; NPOLY J; THETA 10E;
VDISP E; VDISP_ERR E; VDISPZ E; VDISPZ_ERR E; VDISPCHI2 E; VDISPNPIX E; VDISPDOF J; WAVEMIN E; WAVEMAX E;
WCOVERAGE E; ZWARNING J; SN_MEDIAN_ALL E; SN_MEDIAN 5E; CHI68P E; FRACNSIGMA 10E; FRACNSIGHI 10E; FRACNSIGLO
10E; SPECTROFLUX 5E; SPECTROFLUX_IVAR 5E; SPECTROSYNFLUX 5E; SPECTROSYNFLUX_IVAR 5E; SPECTROSKYFLUX 5E;
ANYANDMASK J; ANYORMASK J; SPEC1_G E; SPEC1_R E; SPEC1_I E; SPEC2_G E; SPEC2_R E; SPEC2_I E; ELODIE_FILENAME
25A; ELODIE_OBJECT 21A; ELODIE_SPTYPE 10A; ELODIE_BV E; ELODIE_TEFF E; ELODIE_LOGG E; ELODIE_FEH E; ELODIE_Z
E; ELODIE_Z_ERR E; ELODIE_Z_MODELERR E; ELODIE_RCHI2 E; ELODIE_DOF J; Z_NOQSO E; Z_ERR_NOQSO E; ZWARNING_NOQSO
J; CLASS_NOQSO 1A; SUBCLASS_NOQSO 1A; RCHI2DIFF_NOQSO E; Z_PERSON E; CLASS_PERSON J; Z_CONF_PERSON J;
COMMENTS_PERSON 1A; CALIBFLUX 5E; CALIBFLUX_IVAR 5E
"""
SPZLINE_COLUMNS = """
PLATE J; MJD J; FIBERID J; LINENAME 13A; LINEWAVE D; LINEZ E; LINEZ_ERR E; LINESIGMA E; LINESIGMA_ERR E;
LINEAREA E; LINEAREA_ERR E; LINEEW E; LINEEW_ERR E; LINECONTLEVEL E; LINECONTLEVEL_ERR E; LINENPIXLEFT J;
LINENPIXRIGHT J; LINEDOF E; LINECHI2 E
"""
EMISSION_LINES = (
    ("Ly_alpha", 1215.67), ("N_V 1240", 1240.81), ("C_IV 1549", 1549.48), ("He_II 1640", 1640.42),
    ("C_III] 1908", 1908.734), ("Mg_II 2799", 2800.315), ("[O_II] 3725", 3727.092), ("[O_II] 3727", 3729.875),
    ("[Ne_III] 3868", 3869.857), ("H_epsilon", 3890.151), ("[Ne_III] 3970", 3971.123), ("H_delta", 4102.892),
    ("H_gamma", 4341.684), ("[O_III] 4363", 4364.435), ("He_II 4685", 4686.991), ("H_beta", 4862.683),
    ("[O_III] 4959", 4960.295), ("[O_III] 5007", 5008.240), ("He_II 5411", 5413.024),
    ("[O_I] 5577", 5578.888), ("[O_I] 6300", 6302.046), ("[S_III] 6312", 6313.806), ("[O_I] 6363", 6365.535),
    ("[N_II] 6548", 6549.859), ("H_alpha", 6564.614), ("[N_II] 6583", 6585.268), ("[S_II] 6716", 6718.294),
    ("[S_II] 6730", 6732.678), ("[Ar_III] 7135", 7137.757),
)  # fmt: skip
"""The pipeline's lines and their vacuum wavelengths, Å."""

_LETTERS = {"E": ">f4", "D": ">f8", "J": ">i4", "I": ">i2", "K": ">i8", "B": "u1"}

# One plate stands for all: what the simulation does not vary carries the same value in every file.
_PRIMARY_CARDS: tuple[tuple[str, Any, str], ...] = (
    ("TAI", 4.5e9, "1st row - Number of seconds since Nov 17 1858"),
    ("RA", 0.0, "RA of telescope boresight (deg)"), ("DEC", 0.0, "DEC of telescope boresight (deg)"),
    ("EQUINOX", 2000.0, ""), ("RADECSYS", "FK5", ""), ("TIMESYS", "tai", "TAI, not UTC"),
    ("MJD", 51578, "MJD of observation"), ("MJDLIST", "51578", ""), ("VERSION", "v3_19_1", "version of IOP"),
    ("CAMVER", "SPEC2 v4_5", "Camera code version"), ("OBSERVER", "simulate", ""), ("OBSCOMM", "science", ""),
    ("TELESCOP", "SDSS 2.5-M", "Sloan Digital Sky Survey"), ("NEXP_B1", 3, "b1 camera number of exposures"),
    ("NEXP_R1", 3, "r1 camera number of exposures"), ("EXPT_B1", 2700.0, "b1 camera exposure time (seconds)"),
    ("EXPT_R1", 2700.0, "r1 camera exposure time (seconds)"),
    ("EXPTIME", 2700.0, "Minimum of exposure times for all cameras"),
    ("FLAVOR", "science", "exposure type, SDSS spectro style"),
    ("QUALITY", "excellent", "night/image quality"), ("RADEG", 0.0, "Right Ascension. (degrees)"),
    ("DECDEG", 0.0, "Declination. (degrees)"), ("PLATEID", 266, "Plate Id"), ("TILEID", 266, "Tile Id"),
    ("CARTID", 4, "Cartridge used in this plugging"),
    ("NAME", "0266-51578-01", "Name of target; PlateId-MJD-Mapper ReRun"),
    ("COLBIN", 1, "Binning factor perpendicular to the columns"),
    ("ROWBIN", 1, "Binning factor perpendicular to the rows"), ("AIRTEMP", 8.0, "weatherData(airtemp)"),
    ("HUMIDITY", 22.0, "weatherData(humidity)"),
    ("VERS2D", "v5_3_12", "Version of idlspec2d for 2D reduction"),
    ("VERSCOMB", "v5_3_12", "Version of idlspec2d for combining exposures"),
    ("HELIO_RV", 0.0, "Heliocentric correction (added to velocities)"),
    ("VACUUM", True, "Wavelengths are in vacuum"), ("SFLATTEN", True, "Superflat has been applied"),
    ("PSFSKY", 3, "Order of PSF skysubtraction"), ("SKYCHI2", 1.12, "Mean chi^2 of sky-subtraction"),
    ("PREJECT", 0.2, "Profile area rejection threshold"),
    ("SPEC1_G", 18.0, "(S/N)^2 for spec 1 at mag 20.20"),
    ("SPEC1_R", 18.0, "(S/N)^2 for spec 1 at mag 20.25"),
    ("SPEC1_I", 18.0, "(S/N)^2 for spec 1 at mag 19.90"),
    ("SPEC2_G", 18.0, "(S/N)^2 for spec 2 at mag 20.20"),
    ("SPEC2_R", 18.0, "(S/N)^2 for spec 2 at mag 20.25"),
    ("SPEC2_I", 18.0, "(S/N)^2 for spec 2 at mag 19.90"), ("NSTD", 16, "Number of (good) std stars"),
    ("LOWREJ", 5, "Extraction: low rejection"), ("HIGHREJ", 8, "Extraction: high rejection"),
    ("XCHI2", 1.3, "Extraction: Mean chi^2"), ("NWORDER", 2, "Linear-log10 coefficients"),
    ("WFITTYPE", "LOG-LINEAR", "Linear-log10 dispersion"),
    ("COEFF0", 3.5797, "Central wavelength (log10) of first pixel"),
    ("COEFF1", 1e-4, "Log10 dispersion per pixel"), ("FBADPIX", 0.05, "Fraction of bad pixels"),
    ("WAT0_001", "system=linear", ""), ("WAT1_001", "wtype=linear label=Wavelength units=Angstroms", ""),
    ("DC-FLAG", 1, "Log-linear flag"), ("BUNIT", "1E-17 erg/cm^2/s/Ang", ""),
    ("PLUG_RA", 0.0, "RA of object [deg]"), ("PLUG_DEC", 0.0, "dec of object [deg]"),
    ("SPEC_ID", " " * 22, "Unique object identifier"), ("FIBERID", 1, "Fiber number (1-640)"),
    ("NEXP", 6, "Number of individual exposures"), ("SIMULATE", True, "This file is simulated"),
)  # fmt: skip
_CONSTANT = {
    "SURVEY": "sdss", "INSTRUMENT": "SDSS", "CHUNK": "chunk8", "PROGRAMNAME": "legacy",
    "PLATERUN": "dr2000.9", "PLATEQUALITY": "good", "PLATESN2": 18.0, "LAMBDA_EFF": 5000.0, "BLUEFIBER": -1,
    "SNTURNOFF": -9999.0, "NTURNOFF": -1, "SPECPRIMARY": 1, "SPECLEGACY": 1, "NSPECOBS": 1,
    "FIRSTRELEASE": "dr7", "RUN2D": "26", "DESIGNID": -1, "TARGETTYPE": "SCIENCE", "NPOLY": 3,
    "SPEC1_G": 18.0, "SPEC1_R": 18.0, "SPEC1_I": 18.0, "SPEC2_G": 18.0, "SPEC2_R": 18.0, "SPEC2_I": 18.0,
    "VDISPZ": 0.0,
}  # fmt: skip


def table_dtype(columns: str) -> np.dtype:
    """The big-endian dtype of columns written as ``NAME TFORM; NAME TFORM``."""
    parts: list[tuple[Any, ...]] = []
    for column in columns.replace("\n", " ").split(";"):
        name, form = column.split()
        if form.endswith("A"):
            parts.append((name, f"S{form[:-1]}"))
        else:
            parts.append(
                (name, _LETTERS[form[-1]], (int(form[:-1]),)) if form[:-1] else (name, _LETTERS[form])
            )
    return np.dtype(parts)


@lru_cache(maxsize=1)
def _layout() -> tuple[list[HeaderTemplate], np.ndarray, np.ndarray]:
    """The four headers, a filled SPECOBJ row (1,) and SPZLINE rows (29,)."""
    primary = fits.PrimaryHDU()
    for keyword, value, comment in _PRIMARY_CARDS:
        primary.header[keyword] = (value, comment)
    row = np.zeros(1, table_dtype(SPECOBJ_COLUMNS))
    for name, value in _CONSTANT.items():
        row[name] = value
    lines = np.zeros(len(EMISSION_LINES), table_dtype(SPZLINE_COLUMNS))
    lines["LINENAME"] = [name for name, _ in EMISSION_LINES]
    lines["LINEWAVE"] = [wave for _, wave in EMISSION_LINES]
    headers = [primary.header]
    tables = {"COADD": np.zeros(1, COADD), "SPECOBJ": row, "SPZLINE": lines}
    for (name, data), comment in zip(
        tables.items(),
        ("Coadded spectrum", "Metadata from specObj row", "Line fits from spZline"),
        strict=True,
    ):
        header = fits.BinTableHDU(data, name=name).header
        header.add_comment(comment)
        for keyword in [key for key in header if key.startswith("TDIM")]:
            del header[keyword]  # the survey's own files have none for its vectors
        headers.append(header)
    return [HeaderTemplate(header) for header in headers], row, lines


def specobjid(plate: int, mjd: int, fibre: int) -> int:
    """The survey's 64-bit identifier (DR8 and later, run2d 26): plate, fibre, MJD in bit fields."""
    return ((plate & 0x3FFF) << 50) | (fibre << 38) | (((mjd - 50000) & 0x3FFF) << 24) | (26 << 10)


def spec_file(
    *, plate: int, mjd: int, fibre: int, ra: float, dec: float, plate_ra: float, plate_dec: float,
    coadd: np.ndarray, spectrum_row: dict[str, Any], lines: dict[str, Array],
) -> bytes:  # fmt: skip
    """The bytes of one spec-lite file.

    ``coadd`` is (n_pixels,) of dtype COADD; ``spectrum_row`` are values of SPECOBJ columns; ``lines`` are
    SPZLINE columns (29,); positions in degrees.
    """
    (primary, coadd_head, object_head, line_head), row, line_rows = _layout()
    identifier = specobjid(plate, mjd, fibre)
    row, line_rows = row.copy(), line_rows.copy()
    cos_dec = math.cos(math.radians(dec))
    own = {
        "PLATE": plate, "MJD": mjd, "FIBERID": fibre, "TILE": plate, "PLUG_RA": ra, "PLUG_DEC": dec,
        "CX": cos_dec * math.cos(math.radians(ra)), "CY": cos_dec * math.sin(math.radians(ra)),
        "CZ": math.sin(math.radians(dec)), "SPECOBJID": f"{identifier:22d}",
        "PLATEID": str(specobjid(plate, mjd, 0)), "SPECTROGRAPHID": 1 + (fibre > 320),
        "XFOCAL": 217.7 * math.sin(math.radians(ra - plate_ra)) * cos_dec * 57.3,
        "YFOCAL": 217.7 * (dec - plate_dec),
    }  # fmt: skip
    for name, value in (own | spectrum_row).items():
        row[name] = value
    for name, value in ({"PLATE": plate, "MJD": mjd, "FIBERID": fibre} | lines).items():
        line_rows[name] = value
    head = primary.bytes(
        TAI=(mjd + 0.3) * 86400.0, RA=round(plate_ra, 6), DEC=round(plate_dec, 6), MJD=mjd, MJDLIST=str(mjd),
        RADEG=round(plate_ra, 6), DECDEG=round(plate_dec, 6), PLATEID=plate, TILEID=plate,
        NAME=f"{plate:04d}-{mjd}-01", COEFF0=round(float(coadd["loglam"][0]), 4), PLUG_RA=round(ra, 7),
        PLUG_DEC=round(dec, 7), SPEC_ID=f"{identifier:22d}", FIBERID=fibre,
    )  # fmt: skip
    parts = (head, coadd_head.bytes(NAXIS2=len(coadd)), padded(coadd), object_head.bytes(), padded(row))
    return b"".join((*parts, line_head.bytes(), padded(line_rows)))
