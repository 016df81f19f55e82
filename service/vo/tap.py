"""What a TAP request asks for (TAP 1.1, https://www.ivoa.net/documents/TAP/20190927/)."""

from __future__ import annotations

from dataclasses import dataclass

from service.vo.errors import VoError
from service.vo.execute import Reader, Stopper
from service.vo.formats import Format, find_format
from service.vo.parameters import Parameters

LANGUAGES = ("ADQL", "ADQL-2.0", "ADQL-2.1")
MAXREC = 20_000
"""Rows where nobody says how many."""
HARD_MAXREC = 200_000
SYNC_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Asked:
    """A query and how its answer is wanted."""

    query: str
    maxrec: int
    format: Format

    def answer(self, reader: Reader, seconds: float, stopper: Stopper | None = None) -> bytes:
        """The document. Raises VoError."""
        return self.format.write(reader.run(self.query, self.maxrec, seconds, stopper))


def read_request(parameters: Parameters) -> Asked:
    """Raises VoError for what is missing or not supported."""
    request = parameters.one("REQUEST")
    if request is not None and request != "doQuery":
        raise VoError(f"REQUEST is doQuery or left out, not {request[:40]!r}")
    language = parameters.required("LANG")
    if language.upper() not in LANGUAGES:
        raise VoError(f"LANG is one of {', '.join(LANGUAGES)}, not {language[:40]!r}")
    if parameters.one("UPLOAD") is not None:
        raise VoError("tables cannot be uploaded to this service")
    form = parameters.one("RESPONSEFORMAT") or parameters.one("FORMAT")
    return Asked(
        parameters.required("QUERY"), parameters.count("MAXREC", MAXREC, HARD_MAXREC), find_format(form)
    )
