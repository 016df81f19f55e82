"""What goes wrong in a VO request, in words for the person who asked."""

from __future__ import annotations


class VoError(Exception):
    """Ends a request with an error document (DALI 1.1, section 4.2)."""

    status = 400
    """Of HTTP."""
    retry_after: int | None = None
    """Seconds after which asking again may help."""


class NoSuchJobError(VoError):
    """The job is unknown, or was destroyed."""

    status = 404


class WrongPhaseError(VoError):
    """The job is in a phase in which this cannot be done."""

    status = 409


class TooSlowError(VoError):
    """The query took longer than it may, or was stopped."""


class BusyError(VoError):
    """Too many queries run at this moment."""

    status = 503
    retry_after = 10
