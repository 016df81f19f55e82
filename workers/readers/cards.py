"""Header cards by keyword, each parsed when it is asked for, and what they say about the data; without astropy.

Survey headers are mostly plain: this file reads the fixed and free formats of FITS Standard 4.0, §4.2
(strings with doubled quotes, CONTINUE, logicals, integers, floats also with exponent D, undefined values). A
card of any other form is handed to astropy, which is imported only then.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from astropy.io.fits import Header as AstropyHeader

CARD = 80
CACHED = 64
"""Headers kept parsed: the tables of one survey have equal headers in file after file."""
LARGEST_CACHED = 1 << 16
"""Bytes; SDSS's widest header, of 236 columns, has 58 kB."""

_VALUE = re.compile(
    rb"= *(?:'(?P<text>(?:[ -&(-~]|'')*)'|(?P<logical>[TF])|(?P<integer>[+-]?\d+)"
    rb"|(?P<real>[+-]?(?:\d+\.?\d*|\.\d+)(?:[EDed][+-]?\d+)?))? *(?:/[ -~]*)?"
)
_DOUBLE = bytes.maketrans(b"Dd", b"EE")


_FORM = re.compile(r"\s*(\d*)([LXBIJKAEDCMPQ])")
_WIDTHS = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}


class OddCard(Exception):
    """A card that is left to astropy."""


class BrokenHeader(ValueError):
    """What a header says of its data cannot be; the words name the card."""


@dataclass(frozen=True, slots=True)
class Column:
    """Where a table column lies in its row: ``repeat`` values of TFORM letter ``code``, ``offset`` bytes
    in."""

    n: int
    offset: int
    repeat: int
    code: str


class Header:
    """The cards of one header, from its bytes (whole blocks, or any number of whole cards)."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._values: dict[str, Any] = {}

    @cached_property
    def _index(self) -> dict[bytes, int]:
        """Number of the first card by keyword (8 bytes, upper case)."""
        n = len(self.raw) // CARD
        names = np.ndarray((n,), "S8", self.raw, strides=(CARD,)).tobytes().upper()
        order = np.frombuffer(names, "S8").tolist()
        return dict(zip(reversed(order), range(n - 1, -1, -1), strict=True))

    @cached_property
    def astropy(self) -> AstropyHeader:
        """astropy's view of the header. Raises whatever its parser trips over."""
        from astropy.io.fits import Header as AstropyHeader

        with warnings.catch_warnings():
            # astropy remarks on everything that a header does against the standard; survey files often do.
            warnings.simplefilter("ignore")
            return AstropyHeader.fromstring(self.raw)

    def __contains__(self, key: str) -> bool:
        return self._find(key) is not None or self._hides(key)

    def get(self, key: str) -> Any:
        """Value of the first card of this name; None when it is absent, undefined or unreadable."""
        try:
            return self._values[key]
        except KeyError:
            value = self._values[key] = self._read(key)
            return value

    def claim(self, key: str) -> int:
        """A whole number that is not negative, for a size. Raises BrokenHeader."""
        value = self.get(key)
        if type(value) is not int or not 0 <= value < 10**19:
            raise BrokenHeader(f"{key} = {value!r}")
        return value

    @cached_property
    def data_size(self) -> int:
        """Bytes of data without padding; FITS Standard 4.0, §4.4.1. Raises BrokenHeader."""
        bitpix, naxis = self.get("BITPIX"), self.claim("NAXIS")
        if bitpix not in (8, 16, 32, 64, -32, -64) or naxis > 999:
            raise BrokenHeader(f"BITPIX = {bitpix!r}, NAXIS = {naxis}")
        axes = [self.claim(f"NAXIS{n + 1}") for n in range(naxis)]
        extra = self.claim("PCOUNT") if "PCOUNT" in self else 0
        groups = self.claim("GCOUNT") if "GCOUNT" in self else 1
        return abs(bitpix) // 8 * groups * (extra + math.prod(axes)) if axes else 0

    @cached_property
    def is_compressed(self) -> bool:
        return self.get("ZIMAGE") is True

    @cached_property
    def is_plain(self) -> bool:
        """True where the bytes are the pixels: no compression, no scaling, no code for missing values."""
        return (
            not self.is_compressed
            and self.get("SIMPLE") in (True, None)
            and self.get("PCOUNT") in (0, None)
            and self.get("GCOUNT") in (1, None)
            and self.get("BSCALE") in (1, None)
            and self.get("BZERO") in (0, None)
            and not ("BLANK" in self or "GROUPS" in self)
        )

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of an image, after decompression, slowest axis first; () without data. Raises BrokenHeader."""
        prefix = "Z" if self.is_compressed else ""
        axes = [self.claim(f"{prefix}NAXIS{n + 1}") for n in range(self.claim(f"{prefix}NAXIS"))]
        # A tile is decompressed whole, so its claim is checked like that of the image; 16 Mpixel do no harm.
        keys = [f"ZTILE{n + 1}" for n in range(len(axes))] if prefix else []
        tiles = [self.claim(key) for key in keys if self.get(key) is not None]
        if prefix and math.prod(tiles) > max(math.prod(axes), 1 << 24):
            raise BrokenHeader(f"tiles of {tiles} in {axes} pixels")
        return tuple(reversed(axes)) if self.data_size else ()

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Columns of a table by upper-case name; the first of two that share a name. Raises BrokenHeader."""
        found: dict[str, Column] = {}
        offset = 0
        for n in range(1, self.claim("TFIELDS") + 1):
            form = _FORM.match(str(self.get(f"TFORM{n}") or ""))
            if form is None:
                raise BrokenHeader(f"TFORM{n} = {self.get(f'TFORM{n}')!r}")
            repeat, code = int(form[1] or 1), form[2]
            name = str(self.get(f"TTYPE{n}") or "").strip().upper()
            found.setdefault(name, Column(n, offset, repeat, code))
            offset += (repeat + 7) // 8 if code == "X" else repeat * _WIDTHS[code]
        if offset > self.claim("NAXIS1"):
            raise BrokenHeader("its columns are wider than its rows")
        return found

    @cached_property
    def is_scaled(self) -> bool:
        """True where columns of a table may have a scale or a zero point."""
        return b"TSCAL" in self.raw or b"TZERO" in self.raw

    @cached_property
    def n_rows(self) -> int:
        """Of a table. Raises BrokenHeader."""
        return self.claim("NAXIS2")

    @cached_property
    def row_size(self) -> int:
        """Bytes in a row of a table. Raises BrokenHeader."""
        return self.claim("NAXIS1")

    def says(self, key: str, word: str) -> bool:
        """True where the comment of a card of a number has this word, in any case."""
        at = self._find(key)
        return at is not None and word.encode() in self._card(at).partition(b"/")[2].lower()

    @cached_property
    def names(self) -> list[str]:
        """All keywords, also the long ones of the HIERARCH convention."""
        if b"HIERARCH" in self._index:
            return self._ask_astropy(lambda header: [str(name) for name in header]) or []
        return [name.decode("latin-1").rstrip() for name in self._index]

    def _read(self, key: str) -> Any:
        at = self._find(key)
        if at is not None:
            try:
                return self._value(at)
            except OddCard:
                pass
        elif not self._hides(key):
            return None
        value = self._ask_astropy(lambda header: header.get(key))
        return None if type(value).__name__ == "Undefined" else value

    def _find(self, key: str) -> int | None:
        # numpy drops NULs at the end of a name and keeps blanks
        return self._index.get(_padded(key))

    def _hides(self, key: str) -> bool:
        """True where a HIERARCH card may go by this name."""
        return b"HIERARCH" in self._index and bool(
            re.search(rb"HIERARCH +" + key.encode() + rb" *=", self.raw, re.IGNORECASE)
        )

    def _card(self, at: int) -> bytes:
        return self.raw[at * CARD : (at + 1) * CARD]

    def _value(self, at: int) -> Any:
        value = _parse(self._card(at))
        if isinstance(value, str) and value.endswith("&"):
            # Long strings: FITS Standard 4.0, §4.2.1.2
            while value.endswith("&") and (card := self._card(at := at + 1)).startswith(b"CONTINUE  "):
                part = _parse(card[:8] + b"=" + card[9:])
                if not isinstance(part, str):
                    raise OddCard
                value = value[:-1] + part
        return value

    def _ask_astropy(self, question: Callable[[AstropyHeader], Any]) -> Any:
        """Its answer, None where it has none: a card that nobody can read is as good as absent."""
        from astropy.io.fits import VerifyError

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return question(self.astropy)
            except (VerifyError, ValueError, TypeError, KeyError, IndexError, AttributeError):
                return None


@lru_cache(maxsize=4096)
def _padded(key: str) -> bytes:
    return key.ljust(8).encode()


@lru_cache(maxsize=CACHED)
def _cached(raw: bytes) -> Header:
    return Header(raw)


def header_of(raw: bytes) -> Header:
    """The header with these bytes; equal bytes often give the same object, so it must not be changed."""
    return _cached(raw) if len(raw) <= LARGEST_CACHED else Header(raw)


@lru_cache(maxsize=8192)  # most cards of a survey's file stand in each of its files
def _parse(card: bytes) -> Any:
    found = _VALUE.fullmatch(card, 8) if card[8:10] == b"= " else None
    if found is None:
        raise OddCard
    kind = found.lastgroup
    if kind is None:
        return None
    text = found[kind]
    if kind == "text":
        return text.replace(b"''", b"'").decode("ascii").rstrip()
    if kind == "logical":
        return text == b"T"
    return int(text) if kind == "integer" else float(text.translate(_DOUBLE))
