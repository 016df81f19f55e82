"""The one door through which readers open FITS files: bytes are read once, checked, and only then
interpreted.

``load`` reads a file, hashes it, undoes gzip up to a limit and walks the headers, so that no size claimed
by a header is ever believed beyond the bytes that are there. What a reader sees afterwards is a list of Hdu
objects. astropy does the interpreting: headers, scaled integers, tile compression. A faster engine replaces
the methods of Hdu and leaves the readers as they are. Table columns are already taken straight from the
bytes, because astropy spends 30 ms on the 126–236 columns of an SDSS catalogue HDU of which nine are
wanted.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import re
import stat
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np
from astropy.io import fits as astropy_fits

from workers.readers import reasons
from workers.readers.reasons import Refused

MAX_BYTES = 256 << 20
"""Largest file read, before and after decompression. 12 bands of 512 × 512 with float64 variance and mask
planes take 75 MiB, SDSS spectra with all exposures under 20 MiB."""
MAX_HDUS = 1000
MAX_CARDS = 50_000
BLOCK = 2880
CARD = 80

_FORM = re.compile(r"\s*(\d*)([LXBIJKAEDCMPQ])")
_WIDTHS = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_NUMBERS = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_LOOKS_LIKE = {
    b"\x89HDF": "HDF5",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"SIMPLE": "FITS-like",
}


@dataclass(eq=False)
class Hdu:
    """One header and the bytes of its data. Nothing is interpreted before it is asked for."""

    content: Content
    index: int
    header_start: int
    data_start: int
    size: int
    """Bytes of data, without padding; never reaches past the end of the file."""

    @cached_property
    def header(self) -> astropy_fits.Header:
        try:
            return astropy_fits.Header.fromstring(self.content.data[self.header_start : self.data_start])
        # astropy raises whatever its parser trips over, and a broken header is an ordinary case here.
        except Exception as error:
            raise Refused(reasons.BROKEN_HEADER, _words(self.index, error)) from error

    def get(self, key: str) -> Any:
        """Value of a header card; None when it is absent, undefined or unreadable."""
        try:
            value = self.header.get(key)
        # A card that cannot be parsed raises VerifyError, ValueError or worse; it is as good as absent.
        except (astropy_fits.VerifyError, ValueError, TypeError, KeyError, IndexError, AttributeError):
            return None
        return None if isinstance(value, astropy_fits.card.Undefined) else value

    def text(self, key: str) -> str:
        value = self.get(key)
        return "" if value is None else str(value).strip()

    def number(self, key: str) -> float | None:
        return finite(self.get(key))

    def comment(self, key: str) -> str:
        try:
            return str(self.header.comments[key])
        except (astropy_fits.VerifyError, ValueError, KeyError):
            return ""

    @property
    def name(self) -> str:
        return self.text("EXTNAME")

    @property
    def is_compressed(self) -> bool:
        return self.get("ZIMAGE") is True

    @property
    def is_image(self) -> bool:
        return self.index == 0 or self.text("XTENSION") == "IMAGE" or self.is_compressed

    @property
    def is_table(self) -> bool:
        return self.text("XTENSION") == "BINTABLE" and not self.is_compressed

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of an image, after decompression, slowest axis first; () without data."""
        prefix = "Z" if self.is_compressed else ""
        axes = [self._claim(f"{prefix}NAXIS{n + 1}") for n in range(self._claim(f"{prefix}NAXIS"))]
        # A tile is decompressed whole, so its claim is checked like that of the image; 16 Mpixel do no harm.
        tiles = [self._claim(key) for n in range(len(axes)) if self.get(key := f"ZTILE{n + 1}") is not None]
        if self.is_compressed and math.prod(tiles) > max(math.prod(axes), 1 << 24):
            raise Refused(reasons.BROKEN_HEADER, f"HDU {self.index} claims tiles of {tiles} in {axes} pixels")
        return tuple(reversed(axes)) if self.size else ()

    def _claim(self, key: str) -> int:
        value = self.get(key)
        if not isinstance(value, int) or value < 0:
            raise Refused(reasons.BROKEN_HEADER, f"HDU {self.index} has {key} = {value!r}")
        return value

    def image(self) -> np.ndarray:
        """Pixels in native byte order, scaled and decompressed. Check ``shape`` first: this allocates
        them."""
        try:
            data = self.content.astropy[self.index].data
            image = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))
        # astropy's decompressors raise whatever they trip over, and broken data is an ordinary case here.
        except Exception as error:
            raise Refused(reasons.BROKEN_DATA, _words(self.index, error)) from error
        if image.shape != self.shape or image.dtype.kind not in "iufb":
            raise Refused(reasons.BROKEN_DATA, f"HDU {self.index} holds {image.dtype}{image.shape}")
        return image

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Columns of a table by upper-case name; the first of two that share a name."""
        found: dict[str, Column] = {}
        offset = 0
        for n in range(1, self._claim("TFIELDS") + 1):
            form = _FORM.match(self.text(f"TFORM{n}"))
            if form is None:
                raise Refused(
                    reasons.BROKEN_HEADER, f"HDU {self.index} has TFORM{n} = {self.get(f'TFORM{n}')!r}"
                )
            repeat, code = int(form[1] or 1), form[2]
            found.setdefault(self.text(f"TTYPE{n}").upper(), Column(n, offset, repeat, code))
            offset += (repeat + 7) // 8 if code == "X" else repeat * _WIDTHS[code]
        if offset > self._claim("NAXIS1"):
            raise Refused(reasons.BROKEN_HEADER, f"HDU {self.index}: its columns are wider than its rows")
        return found

    @property
    def n_rows(self) -> int:
        return self._claim("NAXIS2")

    def column(self, name: str) -> np.ndarray | None:
        """Column of numbers, (n_rows, repeat) in native byte order; None when absent or not made of
        numbers."""
        column = self.columns.get(name.upper())
        if column is None or column.code not in _NUMBERS or not self.size:
            return None
        dtype = np.dtype(_NUMBERS[column.code])
        values = np.ndarray(
            (self.n_rows, column.repeat),
            dtype,
            buffer=self.content.data,
            offset=self.data_start + column.offset,
            strides=(self._claim("NAXIS1"), dtype.itemsize),
        ).astype(dtype.newbyteorder("="))
        scale, zero = self.number(f"TSCAL{column.n}"), self.number(f"TZERO{column.n}")
        if scale is not None or zero is not None:
            return values * (1.0 if scale is None else scale) + (zero or 0.0)
        return values

    def cell(self, name: str) -> Any:
        """First row of a column: a Python number or text; None when absent, empty or an array."""
        column = self.columns.get(name.upper())
        if column is None or not self.size or not self.n_rows:
            return None
        if column.code == "A":
            start = self.data_start + column.offset
            text = self.content.data[start : start + column.repeat]
            return text.split(b"\0")[0].decode("ascii", "replace").strip()
        values = self.column(name)
        return values[0, 0].item() if values is not None and values.shape[1] == 1 else None


@dataclass(frozen=True, slots=True)
class Column:
    """Where a table column lies in its row: ``repeat`` values of TFORM letter ``code``, ``offset`` bytes
    in."""

    n: int
    offset: int
    repeat: int
    code: str


@dataclass(eq=False)
class FitsFile:
    """A file in memory."""

    path: str
    sha256: str
    """Of the bytes on disk."""
    hdus: list[Hdu]

    @property
    def stem(self) -> str:
        """File name without folder and FITS endings."""
        return re.sub(r"(\.(fits|fit|fts))?(\.(gz|fz))?$", "", PurePath(self.path).name, flags=re.IGNORECASE)


@dataclass(eq=False)
class Content:
    """The bytes of a file after gzip, shared by its HDUs, and astropy's view of them."""

    data: bytes

    @cached_property
    def astropy(self) -> astropy_fits.HDUList:
        # Over bytes in memory, so there is no file to leave open.
        return astropy_fits.open(io.BytesIO(self.data), memmap=False, lazy_load_hdus=True)


def read_bytes(path: str) -> bytes:
    """Bytes of a regular file of at most MAX_BYTES. Raises Refused."""
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Refused(reasons.NOT_A_FILE)
            if status.st_size > MAX_BYTES:
                raise Refused(reasons.TOO_LARGE, f"{status.st_size} bytes")
            return stream.read(MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Refused(reasons.MISSING) from error
    except IsADirectoryError as error:
        raise Refused(reasons.NOT_A_FILE) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise Refused(reasons.UNREADABLE, str(error)) from error


def parse(path: str, raw: bytes, sha256: str) -> FitsFile:
    """FITS file from its bytes on disk, plain or gzip. Raises Refused."""
    content = Content(_gunzip(raw) if raw.startswith(b"\x1f\x8b") else raw)
    return FitsFile(path, sha256, _scan(content))


def sha256_of(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def finite(value: Any) -> float | None:
    """A finite float, or None for anything that is not one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _gunzip(raw: bytes) -> bytes:
    chunks: list[bytes] = []
    total = 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
            while chunk := stream.read(1 << 20):
                total += len(chunk)
                if total > MAX_BYTES:
                    raise Refused(reasons.TOO_LARGE, f"{len(raw)} bytes of gzip unpack to more")
                chunks.append(chunk)
    except EOFError as error:
        raise Refused(reasons.TRUNCATED, f"gzip ends after {total} bytes of content") from error
    except (OSError, zlib.error) as error:
        raise Refused(reasons.DAMAGED_GZIP, str(error)) from error
    return b"".join(chunks)


def _scan(content: Content) -> list[Hdu]:
    """Walk the headers; see FITS Standard 4.0, §3.3 and §4.4.1 for sizes. Raises Refused."""
    data = content.data
    if not data:
        raise Refused(reasons.EMPTY)
    if not data.startswith(b"SIMPLE  ="):
        kind = next((name for magic, name in _LOOKS_LIKE.items() if data.startswith(magic)), "")
        raise Refused(reasons.NOT_FITS, f"starts like {kind}" if kind else f"starts with {data[:12]!r}")
    hdus: list[Hdu] = []
    start = 0
    # What follows the last HDU and is no extension is padding or "special records", which mean nothing here.
    while start == 0 or data.startswith(b"XTENSION", start):
        if len(hdus) == MAX_HDUS:
            raise Refused(reasons.TOO_MANY_HDUS)
        claims, end = _claims(data, start, len(hdus))
        size = _data_size(claims, len(hdus))
        if size and end + size > len(data):
            there = max(0, len(data) - end)
            raise Refused(
                reasons.TRUNCATED, f"HDU {len(hdus)} claims {size} bytes of data, {there} are there"
            )
        hdus.append(Hdu(content, len(hdus), start, end, size))
        start = end + -(-size // BLOCK) * BLOCK
        # Some writers leave the last block short, so that data may end with the file, but no later block may.
        if end + size < len(data) < start:
            raise Refused(reasons.TRUNCATED, f"the file ends within the padding of HDU {len(hdus) - 1}")
    return hdus


def _claims(data: bytes, start: int, index: int) -> tuple[dict[bytes, bytes], int]:
    """Structural cards of the header at ``start``, unparsed, and where its last block ends."""
    claims: dict[bytes, bytes] = {}
    for n in range(MAX_CARDS):
        at = start + n * CARD
        if at >= len(data):
            raise Refused(reasons.TRUNCATED, f"the header of HDU {index} has no end")
        key = data[at : at + 8].rstrip()
        if key == b"END":
            end = start + -(-(n + 1) * CARD // BLOCK) * BLOCK
            if end > len(data):
                raise Refused(reasons.TRUNCATED, f"the file ends within the header of HDU {index}")
            return claims, end
        if key.startswith((b"NAXIS", b"BITPIX", b"PCOUNT", b"GCOUNT")):
            claims.setdefault(key, data[at + 10 : at + CARD].partition(b"/")[0].strip())
    raise Refused(reasons.BROKEN_HEADER, f"the header of HDU {index} has more than {MAX_CARDS} cards")


def _data_size(claims: dict[bytes, bytes], index: int) -> int:
    def claim(key: bytes, default: bytes = b"") -> int:
        text = claims.get(key, default)
        if not re.fullmatch(rb"[+-]?\d{1,19}", text):
            raise Refused(
                reasons.BROKEN_HEADER, f"HDU {index} has {key.decode()} = {text.decode('latin-1')!r}"
            )
        return int(text)

    bitpix, naxis = claim(b"BITPIX"), claim(b"NAXIS")
    if bitpix not in (8, 16, 32, 64, -32, -64) or not 0 <= naxis <= 999:
        raise Refused(reasons.BROKEN_HEADER, f"HDU {index} has BITPIX = {bitpix}, NAXIS = {naxis}")
    axes = [claim(b"NAXIS%d" % (n + 1)) for n in range(naxis)]
    extra, groups = claim(b"PCOUNT", b"0"), claim(b"GCOUNT", b"1")
    if min([*axes, extra, groups]) < 0:
        raise Refused(reasons.BROKEN_HEADER, f"HDU {index} has a negative size")
    return abs(bitpix) // 8 * groups * (extra + math.prod(axes)) if axes else 0


def _words(index: int, error: Exception) -> str:
    return f"HDU {index}: {type(error).__name__}: {str(error)[:200]}"
