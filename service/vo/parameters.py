"""Parameters of VO requests: names in any case, each given once (DALI 1.1, section 3)."""

from __future__ import annotations

import math
from collections.abc import Iterable

from service.vo.errors import VoError

LONGEST = 200_000
"""Characters in one value."""


class Parameters:
    """What a request says, by name in upper case."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.pairs = [(name.upper(), value) for name, value in pairs]
        for name, value in self.pairs:
            if len(value) > LONGEST:
                raise VoError(f"{name[:40]} has at most {LONGEST:,} characters")

    def one(self, name: str) -> str | None:
        """The value; None where it is missing or empty. Raises VoError where there are several."""
        values = {value for given, value in self.pairs if given == name}
        if len(values) > 1:
            raise VoError(f"{name} is given {len(values)} times, with different values")
        return next(iter(values), None) or None

    def required(self, name: str) -> str:
        """Raises VoError where it is missing."""
        value = self.one(name)
        if value is None:
            raise VoError(f"the parameter {name} is missing")
        return value

    def degrees(self, name: str, low: float, high: float) -> float:
        """A required number. Raises VoError where it is none, or lies outside."""
        text = self.required(name)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise VoError(f"{name} is a number of degrees between {low:g} and {high:g}, not {text[:40]!r}")
        return value

    def count(self, name: str, default: int, most: int) -> int:
        """A whole number from 0, at most ``most``. Raises VoError where it is none or negative."""
        text = self.one(name)
        if text is None:
            return default
        if not (text.strip().isascii() and text.strip().isdigit()):
            raise VoError(f"{name} is a whole number, 0 or larger, not {text[:40]!r}")
        return min(int(text.strip()[:18]), most)
