"""Bad files: each gives one rejection with its reason, quickly, quietly, and with nothing left open."""

from __future__ import annotations

import gc
import gzip
import hashlib
import os
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from workers.readers import Cutout, Rejection, Spectrum, read, reasons

from .conftest import image, spectrum_hdus, to_bytes

Case = tuple[Callable[[], bytes], str, str]


def spec(**change: np.ndarray | None) -> bytes:
    return to_bytes(spectrum_hdus(change=change))


def cutout(array: np.ndarray | None = None, *planes: fits.ImageHDU) -> bytes:
    return to_bytes(fits.HDUList([fits.PrimaryHDU(image() if array is None else array), *planes]))


def plane(array: np.ndarray, name: str) -> fits.ImageHDU:
    return fits.ImageHDU(array, name=name)


def card(content: bytes, key: str, value: str, after: bytes = b"SIMPLE") -> bytes:
    """Content with the value of one card replaced, the first such card after a word."""
    at = content.index(f"{key:<8}=".encode(), content.index(after))
    return content[:at] + f"{key:<8}= {value:>20}".ljust(80).encode() + content[at + 80 :]


def one_card_per_block() -> bytes:
    return b"SIMPLE  =                    T".ljust(80) + b"".join(
        b"COMMENT x".ljust(80) for _ in range(60_000)
    )


def many_hdus() -> bytes:
    empty = b"".join(
        line.ljust(80)
        for line in (
            b"XTENSION= 'IMAGE   '",
            b"BITPIX  =                    8",
            b"NAXIS   =                    0",
            b"PCOUNT  =                    0",
            b"GCOUNT  =                    1",
            b"END",
        )
    )
    return to_bytes(fits.PrimaryHDU()) + empty.ljust(2880) * 1001


def lamost(rows: int = 5, step: float = 1e-4, nan: bool = False) -> bytes:
    array = np.full((rows, 300), np.nan if nan else 1.0, np.float32)
    array[3:] = 0
    hdu = fits.PrimaryHDU(array)
    hdu.header.update({"TELESCOP": "LAMOST", "COEFF0": 3.5682, "COEFF1": step})
    return to_bytes(hdu)


def packed(**cards: str) -> bytes:
    content = to_bytes(fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image())]))
    for key, value in cards.items():
        content = card(content, key, value, after=b"XTENSION")
    return content


def scrambled_tiles() -> bytes:
    content = bytearray(packed())
    at = content.index(b"END     ", content.index(b"XTENSION")) // 2880 * 2880 + 2880
    content[at:] = b"\xff" * (len(content) - at)
    return bytes(content)


def without_end() -> bytes:
    content = cutout()
    return content.replace(b"END".ljust(80), b"".ljust(80), 1)[:2880]


CASES: dict[str, Case] = {
    # The file as such.
    "empty": (lambda: b"", reasons.EMPTY, ""),
    "empty gzip": (lambda: gzip.compress(b""), reasons.EMPTY, ""),
    "text": (lambda: b"path,label\na,1\n", reasons.NOT_FITS, ""),
    "html": (lambda: b"<html>404 Not Found</html>", reasons.NOT_FITS, ""),
    "hdf5": (lambda: b"\x89HDF\r\n\x1a\n" + b"\0" * 5000, reasons.NOT_FITS, ""),
    "zip": (lambda: b"PK\x03\x04" + b"\0" * 5000, reasons.NOT_FITS, ""),
    "zeros": (lambda: b"\0" * 5760, reasons.NOT_FITS, ""),
    "gzip of text": (lambda: gzip.compress(b"hello"), reasons.NOT_FITS, ""),
    "first card only": (lambda: b"SIMPLE  =                    T", reasons.TRUNCATED, ""),
    "header without end": (without_end, reasons.TRUNCATED, ""),
    "half a header": (lambda: spec()[:1000], reasons.TRUNCATED, ""),
    "half a table": (lambda: spec()[:8000], reasons.TRUNCATED, ""),
    "half a padding": (lambda: spec()[:10_000], reasons.TRUNCATED, ""),
    "half an extension header": (lambda: spec()[:3500], reasons.TRUNCATED, ""),
    "half an image": (lambda: cutout()[:4000], reasons.TRUNCATED, ""),
    "truncated gzip": (lambda: gzip.compress(spec())[:-300], reasons.TRUNCATED, ""),
    "gzip magic alone": (lambda: b"\x1f\x8b", reasons.TRUNCATED, ""),
    "gzip with a flipped byte": (lambda: gzip.compress(spec())[:-6] + b"\0" * 6, reasons.DAMAGED_GZIP, ""),
    "gzip with junk behind": (lambda: gzip.compress(spec()) + b"junk" * 9, reasons.DAMAGED_GZIP, ""),
    "image of terabytes": (lambda: card(cutout(), "NAXIS1", "1000000000000"), reasons.TRUNCATED, ""),
    "image beyond 64 bits": (lambda: card(cutout(), "NAXIS1", "9" * 19), reasons.TRUNCATED, ""),
    "table of terabytes": (
        lambda: card(spec(), "NAXIS2", "1000000000000", after=b"XTENSION"),
        reasons.TRUNCATED,
        "",
    ),
    "heap of terabytes": (
        lambda: card(spec(), "PCOUNT", "1000000000000", after=b"XTENSION"),
        reasons.TRUNCATED,
        "",
    ),
    "size without limit": (lambda: card(cutout(), "NAXIS1", "9" * 20), reasons.BROKEN_HEADER, ""),
    "negative size": (lambda: card(cutout(), "NAXIS1", "-32"), reasons.BROKEN_HEADER, ""),
    "size that is text": (lambda: card(cutout(), "NAXIS1", "'wide'"), reasons.BROKEN_HEADER, ""),
    "impossible BITPIX": (lambda: card(cutout(), "BITPIX", "12"), reasons.BROKEN_HEADER, ""),
    "a thousand axes": (lambda: card(cutout(), "NAXIS", "1000"), reasons.BROKEN_HEADER, ""),
    "axis not given": (lambda: card(cutout(), "NAXIS", "3"), reasons.BROKEN_HEADER, ""),
    "endless header": (one_card_per_block, reasons.BROKEN_HEADER, ""),
    "a thousand HDUs": (many_hdus, reasons.TOO_MANY_HDUS, ""),
    "nothing but a header": (lambda: to_bytes(fits.PrimaryHDU()), reasons.NO_DATA, ""),
    "tables of something else": (lambda: to_bytes(spectrum_hdus()[::2]), reasons.NO_DATA, ""),
    # Spectra.
    **{
        f"no {name}": (lambda name=name: spec(**{name: None}), reasons.MISSING_COLUMNS, "spectrum")
        for name in ("flux", "ivar", "loglam")
    },
    "flux of text": (lambda: spec(flux=np.full(200, "bright!!")), reasons.BAD_COLUMNS, "spectrum"),
    "no rows": (lambda: to_bytes(spectrum_hdus(n=0)), reasons.BAD_COLUMNS, "spectrum"),
    "broken TFORM": (
        lambda: card(spec(), "TFORM1", "'nonsense'", after=b"XTENSION"),
        reasons.BROKEN_HEADER,
        "",
    ),
    "columns beyond the row": (
        lambda: card(spec(), "TFORM1", "'9999E'", after=b"XTENSION"),
        reasons.BROKEN_HEADER,
        "",
    ),
    "no TFIELDS": (lambda: card(spec(), "TFIELDS", "-1", after=b"XTENSION"), reasons.BROKEN_HEADER, ""),
    "flux all NaN": (lambda: spec(flux=np.full(200, np.nan)), reasons.NO_GOOD_PIXELS, "spectrum"),
    "ivar all zero": (lambda: spec(ivar=np.zeros(200)), reasons.NO_GOOD_PIXELS, "spectrum"),
    "ivar all negative": (lambda: spec(ivar=np.full(200, -1.0)), reasons.NO_GOOD_PIXELS, "spectrum"),
    "all masked": (
        lambda: spec(and_mask=np.full(200, 1 << 24, np.int32)),
        reasons.NO_GOOD_PIXELS,
        "spectrum",
    ),
    "loglam in Å": (lambda: spec(loglam=np.linspace(3800, 9000, 200)), reasons.OFF_GRID, "spectrum"),
    "LAMOST with too few rows": (lambda: lamost(rows=2), reasons.LAMOST_ROWS, "spectrum"),
    "LAMOST on another grid": (lambda: lamost(step=2e-4), reasons.OFF_GRID, "spectrum"),
    "LAMOST without a value": (lambda: lamost(nan=True), reasons.NO_GOOD_PIXELS, "spectrum"),
    # Cutouts.
    "15 pixels": (lambda: cutout(image(15, 40)), reasons.TOO_SMALL, "cutout"),
    "513 pixels": (lambda: cutout(image(40, 513)), reasons.TOO_WIDE, "cutout"),
    "13 planes": (lambda: cutout(np.zeros((13, 32, 32), "f4")), reasons.TOO_MANY_PLANES, "cutout"),
    "a row of pixels": (lambda: cutout(np.zeros(400, "f4")), reasons.NOT_AN_IMAGE, "cutout"),
    "four dimensions": (lambda: cutout(np.zeros((2, 2, 32, 32), "f4")), reasons.NOT_AN_IMAGE, "cutout"),
    "image all NaN": (lambda: cutout(np.full((32, 32), np.nan, "f4")), reasons.NO_GOOD_PIXELS, "cutout"),
    "image all zero": (lambda: cutout(np.zeros((32, 32), "f4")), reasons.CONSTANT, "cutout"),
    "constant image": (lambda: cutout(np.full((32, 32), 7, "i2")), reasons.CONSTANT, "cutout"),
    "image all masked": (
        lambda: cutout(image(), plane(np.ones((32, 32), "i2"), "MASK")),
        reasons.NO_GOOD_PIXELS,
        "cutout",
    ),
    "variance all zero": (
        lambda: cutout(image(), plane(np.zeros((32, 32)), "VAR")),
        reasons.NO_GOOD_PIXELS,
        "cutout",
    ),
    "variance all NaN": (
        lambda: cutout(image(), plane(np.full((32, 32), np.nan), "VAR")),
        reasons.NO_GOOD_PIXELS,
        "cutout",
    ),
    "ivar plane all negative": (
        lambda: cutout(image(), plane(np.full((32, 32), -4.0), "IVAR")),
        reasons.NO_GOOD_PIXELS,
        "cutout",
    ),
    "variance of another shape": (
        lambda: cutout(image(), plane(np.ones((16, 16)), "VAR")),
        reasons.SHAPES_DIFFER,
        "cutout",
    ),
    "two variances for one image": (
        lambda: cutout(image(), plane(np.ones((32, 32)), "VAR"), plane(np.ones((32, 32)), "VAR")),
        reasons.UNPAIRED,
        "cutout",
    ),
    "noise without an image": (
        lambda: to_bytes(fits.HDUList([fits.PrimaryHDU(), plane(image(), "RMS")])),
        reasons.NO_DATA,
        "cutout",
    ),
    "flux in W/m²/Hz": (lambda: cutout(image().astype("f8") * 1e-32), reasons.UNITS, "cutout"),
    "compressed terabytes": (lambda: packed(ZNAXIS1="1000000000000"), reasons.TOO_WIDE, "cutout"),
    "compressed tiles of terabytes": (
        lambda: packed(ZTILE1="1000000000000"),
        reasons.BROKEN_HEADER,
        "",
    ),
    "unknown compression": (lambda: packed(ZCMPTYPE="'MAGIC_1'"), reasons.BROKEN_DATA, "cutout"),
    "scrambled tiles": (scrambled_tiles, reasons.BROKEN_DATA, "cutout"),
}


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


@pytest.mark.parametrize("case", CASES)
def test_one_rejection(case, save, capfd) -> None:
    make, reason, kind = CASES[case]
    path = save(make(), "bad.fits")
    gc.collect()  # what earlier tests left open must not be closed in between and hide or feign a leak
    before = open_files()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rejection = read(path)
        gc.collect()
    assert isinstance(rejection, Rejection), rejection
    assert (rejection.path, rejection.reason) == (path, reason), rejection
    assert not kind or rejection.kind == kind
    assert rejection.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert path not in rejection.reason and "\n" not in rejection.detail
    assert capfd.readouterr() == ("", "")
    assert open_files() == before


def test_what_the_cases_are_made_of_is_good(save) -> None:
    assert isinstance(read(save(spec(), "a.fits")), Spectrum)
    assert isinstance(read(save(cutout(), "b.fits")), Cutout)
    assert isinstance(read(save(lamost(), "c.fits")), Spectrum)
    assert isinstance(read(save(packed(), "d.fits")), Cutout)


def test_paths_that_are_no_file(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.fits")
    (tmp_path / "link.fits").symlink_to(tmp_path / "gone.fits")
    (tmp_path / "loop.fits").symlink_to(tmp_path / "loop.fits")
    for path, reason in (
        (tmp_path / "gone.fits", reasons.MISSING),
        (tmp_path / "link.fits", reasons.MISSING),
        (tmp_path / "loop.fits", reasons.UNREADABLE),
        (tmp_path / ("x" * 300), reasons.UNREADABLE),
        (tmp_path, reasons.NOT_A_FILE),
        (tmp_path / "pipe.fits", reasons.NOT_A_FILE),
        ("/dev/zero", reasons.NOT_A_FILE),
        ("nul\0byte.fits", reasons.UNREADABLE),
    ):
        rejection = read(path)
        assert isinstance(rejection, Rejection) and rejection.reason == reason, path
        assert rejection.path == str(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(save) -> None:
    path = save(cutout())
    Path(path).chmod(0)
    rejection = read(path)
    assert isinstance(rejection, Rejection) and rejection.reason == reasons.UNREADABLE


def test_a_file_larger_than_the_limit_is_not_read(tmp_path) -> None:
    path = tmp_path / "huge.fits"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)  # sparse: takes no room
    tracemalloc.start()
    rejection = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(rejection, Rejection) and rejection.reason == reasons.TOO_LARGE
    assert peak < 1 << 20


def test_a_gzip_bomb_is_given_up_at_the_limit(save, monkeypatch) -> None:
    monkeypatch.setattr("workers.readers.fits.MAX_BYTES", 4 << 20)
    path = save(gzip.compress(b"\0" * (64 << 20)), "bomb.fits.gz")
    tracemalloc.start()
    rejection = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(rejection, Rejection) and rejection.reason == reasons.TOO_LARGE
    assert peak < 16 << 20


def test_padding_and_junk_behind_the_last_hdu_do_no_harm(save) -> None:
    assert isinstance(read(save(cutout() + b"\0" * 5760)), Cutout)
    unpadded = to_bytes(fits.PrimaryHDU(image(20, 20)))[: 2880 + 1600]
    assert isinstance(read(save(unpadded)), Cutout)


def test_no_file_keeps_its_memory(save) -> None:
    path = save(cutout(image(512, 512), plane(np.ones((512, 512)), "VAR")))
    read(path)
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        for _ in range(10):
            read(path)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert kept < 10 << 20, "ten files of 3 MiB must not wait for the garbage collector"


def test_reasons_are_one_line_each_and_differ() -> None:
    texts = [value for name, value in vars(reasons).items() if name.isupper()]
    assert len(texts) == len(set(texts)) > 20
    for text in texts:
        assert "\n" not in text and len(text) < 120 and (":" in text or ";" in text), text


def test_damaged_bytes_never_raise(save) -> None:
    """Random damage to good files: a sample that keeps its promises, or a rejection."""
    random = np.random.default_rng(11)
    originals = [spec(), cutout(image(), plane(np.ones((32, 32)), "VAR")), lamost(), packed()]
    outcomes = set()
    for n in range(400):
        content = np.frombuffer(originals[n % len(originals)], np.uint8).copy()
        header = random.random() < 0.7
        at = random.integers(0, 5760 if header else content.size, random.integers(1, 20))
        content[at] = random.choice(np.frombuffer(b" 0123456789.'/=TFENDAX-+\xff\x00", np.uint8), at.size)
        found = read(save(content.tobytes()))
        outcomes.add(type(found))
        if not isinstance(found, Rejection):
            assert np.isfinite(found.flux).all() and np.isfinite(found.ivar).all()
            assert (found.ivar >= 0).all() and found.ivar.any()
            assert (found.flux[found.ivar == 0] == 0).all()
    assert Rejection in outcomes and len(outcomes) == 3
