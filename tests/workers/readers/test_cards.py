"""Headers, images, columns and positions without astropy are what astropy makes of them."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from workers.readers import sky
from workers.readers.cards import Header
from workers.readers.fits import FitsFile, parse

from .conftest import spectrum_hdus, to_bytes

MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=150).filter(
    # astropy takes a value such as 'A: 1' for a record, and ends a string at a quote before a blank or a slash
    lambda text: ": " not in text and not any(odd in text + " " for odd in ("' ", "'/"))
)
VALUES = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none(),
)
KEYS = st.from_regex(r"\A[A-Z][A-Z0-9_-]{0,7}\Z").filter(
    lambda key: key not in ("COMMENT", "HISTORY", "CONTINUE", "END", "HIERARCH")
)


def file_of(*hdus: Any) -> FitsFile:
    return parse("a.fits", to_bytes(fits.HDUList(list(hdus))), "")


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


@MANY
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=30), st.dictionaries(KEYS, TEXT, max_size=5))
def test_cards_as_astropy_writes_them(values: dict[str, Any], comments: dict[str, str]) -> None:
    header = fits.Header()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key, value in values.items():
            header[key] = (value, None if isinstance(value, str) else comments.get(key, "")[:20])
        raw = header.tostring().encode("ascii")
        expected = fits.Header.fromstring(raw)
    found = Header(raw)
    for key in values:
        value = expected[key]
        value = None if isinstance(value, fits.card.Undefined) else value
        assert same(found.get(key), value), (key, value, found.get(key))
        assert key in found
    assert found.get("NOT_HERE") is None and "NOT_HERE" not in found


@pytest.mark.parametrize(
    "card",
    [
        "A       = 1.5D3", "A       =                 -0.0", "A       = +7 / seven", "A       =   007",
        "A       = 'it''s' / text", "A       = ''", "A       = '   '", "A       =", "A       =          / nothing",
        "A       =                    T", "A       = F/no", "A       = .5", "A       = 5.", "A       = 1e400",
        "A       = 1 2", "A       = nan", "A       = 'open", "A       = (1, 2)", "A       = T F", "A       = - 5",
        "A       =5", "A         5", "a       = 5", "A       = 1.5 E3", "A       = '\xe9'",
    ],
)  # fmt: skip
def test_cards_of_any_form(card: str) -> None:
    raw = (card.ljust(80) + "A       = 'second'".ljust(80) + "END".ljust(80)).encode("latin-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = fits.Header.fromstring(raw)["A"]
        except (fits.VerifyError, ValueError):
            expected = None
    expected = None if isinstance(expected, fits.card.Undefined) else expected
    assert same(Header(raw).get("A"), expected)


def test_a_long_string_goes_on_in_other_cards() -> None:
    header = fits.Header({"LONG": "a 'quoted' word & " * 20, "SHORT": "ends with &"})
    found = Header(header.tostring().encode())
    assert found.get("LONG") == header["LONG"].rstrip() and found.get("SHORT") == "ends with &"


def test_long_names_are_found() -> None:
    header = fits.Header({"HIERARCH OBJECT_ID": "J1", "HIERARCH MP_DETECTED": 5, "B": 1})
    found = Header(header.tostring().encode())
    assert (found.get("OBJECT_ID"), found.get("B"), found.get("C")) == ("J1", 1, None)
    assert found.names[:2] == ["OBJECT_ID", "MP_DETECTED"]


PIXELS = st.one_of(
    *(
        arrays.arrays(dtype, arrays.array_shapes(min_dims=1, max_dims=4, max_side=5))
        for dtype in ("u1", "i2", "i4", "i8", "f4", "f8", "u2", "u4", "i1")
    )
)


@MANY
@given(
    PIXELS, st.sampled_from([{}, {"BLANK": 0}, {"BSCALE": 2.0, "BZERO": -1.0}, {"BSCALE": 1.0, "BZERO": 0.0}])
)
def test_images_are_astropys_bit_for_bit(pixels: np.ndarray, cards: dict[str, float]) -> None:
    content = to_bytes(fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(pixels)]))
    for key, value in cards.items():
        if pixels.dtype.str[1:] not in ("u2", "u4", "i1"):  # these are written scaled
            end = content.index(b"END".ljust(80), 2880)
            content = (
                content[:end]
                + f"{key:8}= {value:20}".ljust(80).encode()
                + content[end : end + 80]
                + content[end + 160 :]
            )
    with warnings.catch_warnings(), fits.open(io.BytesIO(content)) as hdus:
        warnings.simplefilter("ignore")
        expected = hdus[1].data
        found = parse("a.fits", content, "").hdus[1].image()
    assert found.dtype == expected.dtype.newbyteorder("=") and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@st.composite
def tables(draw: Any) -> np.ndarray:
    forms = draw(
        st.lists(
            st.sampled_from(["u1", ">i2", ">i4", ">i8", ">f4", ">f8", "S7", "3>f4", "?"]),
            min_size=1,
            max_size=40,
        )
    )
    parts = [
        (f"c{n}", form[1:], (int(form[0]),)) if form[0].isdigit() else (f"c{n}", form)
        for n, form in enumerate(forms)
    ]
    table = np.zeros(draw(st.integers(1, 6)), parts)
    random = np.random.default_rng(draw(st.integers(0, 99)))
    for name in table.dtype.names or ():
        column = table[name]
        column[...] = random.normal(0, 50, column.shape) if column.dtype.kind != "S" else b"a b"
    return table


@MANY
@given(tables())
def test_columns_are_astropys_bit_for_bit(table: np.ndarray) -> None:
    hdu = file_of(fits.PrimaryHDU(), fits.BinTableHDU(table)).hdus[1]
    for name in table.dtype.names or ():
        expected = table[name]
        if expected.dtype.kind in "Sb":
            assert hdu.column(name) is None
        else:
            found = hdu.column(name)
            assert found is not None and found.dtype.isnative
            np.testing.assert_array_equal(found, expected.reshape(len(table), -1))
        if expected.ndim == 1:
            value = None if expected.dtype.kind == "b" else expected[0].item()
            assert hdu.cell(name) == (value.decode() if isinstance(value, bytes) else value)


PROJECTION = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 1.0, "CRVAL2": 2.0, "CRPIX1": 3.0, "CRPIX2": 4.0,
}  # fmt: skip


@MANY
@given(
    ra=st.floats(0, 360), dec=st.floats(-89.9, 89.9), x=st.floats(-300, 300), y=st.floats(-300, 300),
    scale=st.floats(1e-6, 1e-3), angle=st.floats(0, 7), form=st.sampled_from(["CD", "PC", "CDELT"]),
)  # fmt: skip
def test_a_plain_projection_is_astropys(
    ra: float, dec: float, x: float, y: float, scale: float, angle: float, form: str
) -> None:
    cards: dict[str, Any] = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": ra,
        "CRVAL2": dec,
        "CRPIX1": x,
        "CRPIX2": y,
    }
    turn = np.array([[-math.cos(angle), math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    factor = scale if form == "CD" else 1.0
    if form != "CDELT":
        cards |= {f"{form}{i + 1}_{j + 1}": factor * turn[i, j] for i in range(2) for j in range(2)}
    if form != "CD":
        cards |= {"CDELT1": -scale, "CDELT2": scale, "CUNIT1": "deg", "RADESYS": "ICRS"}
    hdu = fits.PrimaryHDU(np.zeros((16, 40), "f4"), fits.Header(cards))
    lon, lat = WCS(hdu.header, fix=False).all_pix2world(19.5, 7.5, 0)
    found = sky._tangent(file_of(hdu).hdus[0], 19.5, 7.5)
    assert found is not None
    assert abs((found[0] - lon + 180) % 360 - 180) * math.cos(math.radians(dec)) < 1e-9
    assert abs(found[1] - lat) < 1e-9


@pytest.mark.parametrize(
    "card",
    [
        {"CTYPE1": "RA---TAN-SIP"}, {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, {"LONPOLE": 0.0},
        {"CTYPE3": "FREQ"}, {"PV1_1": 0.1}, {"A_ORDER": 2}, {"CRVAL2": 90.0}, {"CUNIT1": "arcsec"},
        {"CD1_1": 0.1, "PC1_1": 1.0}, {"RADESYS": "FK4"}, {"CROTA2": 3.0}, {"CRPIX1": "x"}, {"CD1_1": 0.0},
    ],
)  # fmt: skip
def test_what_is_more_than_plain_is_left_to_astropy(card: dict[str, Any]) -> None:
    hdus = [
        fits.PrimaryHDU(np.zeros((16, 40), "f4"), fits.Header(cards))
        for cards in (PROJECTION, PROJECTION | card)
    ]
    assert [sky._tangent(file_of(hdu).hdus[0], 1, 1) is None for hdu in hdus] == [False, True]


def test_plain_files_are_read_without_astropy(save: Any, make_image: Any) -> None:
    planes = [fits.ImageHDU(make_image(), name="VAR"), fits.ImageHDU(np.zeros((32, 32), "i2"), name="MASK")]
    paths = [
        save(spectrum_hdus(), "a.fits"),
        save(fits.HDUList([fits.PrimaryHDU(make_image(), fits.Header(PROJECTION)), *planes]), "b.fits"),
    ]
    program = (
        "import sys; from workers.readers import read\n"
        "print([read(path).kind for path in sys.argv[1:]], 'astropy' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['spectrum', 'cutout'] False", ran.stderr
