"""The one door through which readers open FITS files: bytes are read once, checked, and only then
interpreted.

``read_bytes`` reads a file, ``parse`` undoes gzip up to a limit and walks the headers, so that no size claimed
by a header is ever believed beyond the bytes that are there. What a reader sees afterwards is a list of Hdu
objects. Plain images and table columns are taken straight from the bytes, which is some fifty times as fast as
astropy on the 126–236 columns of an SDSS catalogue HDU. What is not plain (tile compression, scaled integers)
is left to astropy, which is imported only then.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import stat
import struct
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from isal import igzip, igzip_lib

from workers.readers import reasons
from workers.readers.cards import CARD, BrokenHeader, Column, Header, header_of
from workers.readers.reasons import Refused

if TYPE_CHECKING:
    from astropy.io.fits import HDUList

MAX_BYTES = 256 << 20
"""Largest file read, before and after decompression. 12 bands of 512 × 512 with float64 variance and mask
planes take 75 MiB, SDSS spectra with all exposures under 20 MiB."""
MAX_HDUS = 1000
MAX_CARDS = 50_000
BLOCK = 2880

_NUMBERS = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_ENDING = re.compile(r"(\.(fits|fit|fts))?(\.(gz|fz))?$", re.IGNORECASE)
_CELLS = {"B": "B", "I": ">h", "J": ">i", "K": ">q", "E": ">f", "D": ">d"}
_PIXELS = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_END = b"END".ljust(CARD)
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
    header: Header
    data_start: int
    size: int
    """Bytes of data, without padding; never reaches past the end of the file."""

    def get(self, key: str) -> Any:
        """Value of a header card; None when it is absent, undefined or unreadable."""
        return self.header.get(key)

    def text(self, key: str) -> str:
        value = self.header.get(key)
        return "" if value is None else str(value).strip()

    def number(self, key: str) -> float | None:
        return finite(self.header.get(key))

    @property
    def name(self) -> str:
        return self.text("EXTNAME")

    @property
    def is_compressed(self) -> bool:
        return self.header.is_compressed

    @property
    def is_image(self) -> bool:
        return self.index == 0 or self.get("XTENSION") == "IMAGE" or self.is_compressed

    @property
    def is_table(self) -> bool:
        return self.get("XTENSION") == "BINTABLE" and not self.is_compressed

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image, after decompression, slowest axis first; () without data. Raises Refused."""
        try:
            return self.header.shape
        except BrokenHeader as error:
            raise self._broken(error) from error

    @property
    def _row_size(self) -> int:
        try:
            return self.header.row_size
        except BrokenHeader as error:
            raise self._broken(error) from error

    def _broken(self, error: BrokenHeader) -> Refused:
        return Refused(reasons.BROKEN_HEADER, f"HDU {self.index}: {error}")

    def image(self) -> np.ndarray:
        """Pixels in native byte order, scaled and decompressed. Check ``shape`` first: this allocates
        them."""
        if self.header.is_plain:
            dtype = np.dtype(_PIXELS[self.get("BITPIX")])
            image = np.ndarray(self.shape, dtype, self.content.data, self.data_start)
            return image.astype(dtype.newbyteorder("="))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = self.content.astropy[self.index].data
                image = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))
        # astropy's decompressors raise whatever they trip over, and broken data is an ordinary case here.
        except Exception as error:
            words = f"HDU {self.index}: {type(error).__name__}: {str(error)[:200]}"
            raise Refused(reasons.BROKEN_DATA, words) from error
        if image.shape != self.shape or image.dtype.kind not in "iufb":
            raise Refused(reasons.BROKEN_DATA, f"HDU {self.index} holds {image.dtype}{image.shape}")
        return image

    @property
    def columns(self) -> dict[str, Column]:
        """Columns of a table by upper-case name; the first of two that share a name. Raises Refused."""
        try:
            return self.header.columns
        except BrokenHeader as error:
            raise self._broken(error) from error

    @property
    def n_rows(self) -> int:
        try:
            return self.header.n_rows
        except BrokenHeader as error:
            raise self._broken(error) from error

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
            strides=(self._row_size, dtype.itemsize),
        ).astype(dtype.newbyteorder("="))
        scale, zero = self._scaling(column)
        return values if scale is None else values * scale + zero

    def cell(self, name: str, row: int = 0) -> Any:
        """One row of a column: a Python number or text; None when absent, empty or an array."""
        column = self.columns.get(name.upper())
        if column is None or not self.size or row >= self.n_rows:
            return None
        start = self.data_start + column.offset + row * self._row_size
        if column.code == "A":
            text = self.content.data[start : start + column.repeat]
            return text.split(b"\0")[0].decode("ascii", "replace").strip()
        if column.code not in _NUMBERS or column.repeat != 1:
            return None
        value = struct.unpack_from(_CELLS[column.code], self.content.data, start)[0]
        scale, zero = self._scaling(column)
        return value if scale is None else value * scale + zero

    def _scaling(self, column: Column) -> tuple[float | None, float]:
        """TSCAL and TZERO of a column, None where it has neither."""
        if not self.header.is_scaled:
            return None, 0.0
        scale, zero = self.number(f"TSCAL{column.n}"), self.number(f"TZERO{column.n}")
        if scale is None and zero is None:
            return None, 0.0
        return 1.0 if scale is None else scale, zero or 0.0


@dataclass(eq=False)
class FitsFile:
    """A file in memory."""

    path: str
    sha256: str
    """Of the bytes on disk."""
    hdus: list[Hdu]

    @cached_property
    def stem(self) -> str:
        """File name without folder and FITS endings."""
        return _ENDING.sub("", PurePath(self.path).name)


@dataclass(eq=False)
class Content:
    """The bytes of a file after gzip, shared by its HDUs, and astropy's view of them."""

    data: bytes

    @cached_property
    def astropy(self) -> HDUList:
        from astropy.io import fits

        # Over bytes in memory, so there is no file to leave open.
        return fits.open(io.BytesIO(self.data), memmap=False, lazy_load_hdus=True)


def read_bytes(path: str) -> bytes:
    """Bytes of a regular file of at most MAX_BYTES. Raises Refused."""
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Refused(reasons.NOT_A_FILE)
            if status.st_size > MAX_BYTES:
                raise Refused(reasons.TOO_LARGE, f"{status.st_size} bytes")
            return stream.readall()
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
        with igzip.IGzipFile(fileobj=io.BytesIO(raw)) as stream:
            while chunk := stream.read(1 << 20):
                total += len(chunk)
                if total > MAX_BYTES:
                    raise Refused(reasons.TOO_LARGE, f"{len(raw)} bytes of gzip unpack to more")
                chunks.append(chunk)
    except EOFError as error:
        raise Refused(reasons.TRUNCATED, f"gzip ends after {total} bytes of content") from error
    except (OSError, igzip_lib.IsalError) as error:  # type: ignore[misc]  # the stubs call it a value
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
        end = _header_end(data, start, len(hdus))
        header = header_of(data[start:end])
        try:
            size = header.data_size
        except BrokenHeader as error:
            raise Refused(reasons.BROKEN_HEADER, f"HDU {len(hdus)}: {error}") from error
        if size and end + size > len(data):
            there = max(0, len(data) - end)
            raise Refused(
                reasons.TRUNCATED, f"HDU {len(hdus)} claims {size} bytes of data, {there} are there"
            )
        hdus.append(Hdu(content, len(hdus), header, end, size))
        start = end + -(-size // BLOCK) * BLOCK
        # Some writers leave the last block short, so that data may end with the file, but no later block may.
        if end + size < len(data) < start:
            raise Refused(reasons.TRUNCATED, f"the file ends within the padding of HDU {len(hdus) - 1}")
    return hdus


def _header_end(data: bytes, start: int, index: int) -> int:
    """Where the last block of the header at ``start`` ends. Raises Refused."""
    limit = start + MAX_CARDS * CARD
    at = data.find(_END, start, min(len(data), limit))
    while at >= 0 and (at - start) % CARD:  # the word stands within a card
        at = data.find(_END, at + 1, min(len(data), limit))
    end = start + -(-(at + CARD - start) // BLOCK) * BLOCK
    if at >= 0 and end <= len(data):
        return end
    if len(data) > limit:
        raise Refused(reasons.BROKEN_HEADER, f"the header of HDU {index} has more than {MAX_CARDS} cards")
    raise Refused(reasons.TRUNCATED, f"the header of HDU {index} has no end")
