"""Log lines: as text or JSON, with what they are about, and without passwords."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

_ABOUT: ContextVar[Mapping[str, Any]] = ContextVar("about", default=MappingProxyType({}))
IDS = ("run", "batch", "object", "path", "caller", "status", "seconds")
"""What a line may say that it is about; other libraries hang whole messages on their records."""
# A password may hold an @ that should have been quoted, so it ends at the last one of the word.
_IN_ACCOUNT = re.compile(r"(?<=://)([^\s:/@]*):\S+@")
_IN_QUERY = re.compile(r"([?&](?:password|passwd|pwd|sslpassword)=)[^&\s'\"]+", re.IGNORECASE)


def hide_passwords(text: str) -> str:
    """The text with *** for every password in a URL."""
    return _IN_QUERY.sub(r"\1***", _IN_ACCOUNT.sub(r"\1:***@", text))


@contextmanager
def about(**ids: Any) -> Iterator[None]:
    """Every line logged in the block, in this thread, carries these: ``run=7, batch="…", object="…"``."""
    token = _ABOUT.set({**_ABOUT.get(), **ids})
    try:
        yield
    finally:
        _ABOUT.reset(token)


class TextLines(logging.Formatter):
    """Time, level, logger, what the line is about, message, and the traceback where there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s:%(about)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.about = "".join(f" {name}={value}" for name, value in _ids(record).items())
        return hide_passwords(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, ids, and ``traceback`` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        } | _ids(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        hidden = {
            name: hide_passwords(value) if isinstance(value, str) else value for name, value in line.items()
        }
        return json.dumps(hidden, default=str, ensure_ascii=False)


def _ids(record: logging.LogRecord) -> dict[str, Any]:
    """What the block and the call (``extra=``) say that the record is about."""
    found = {**_ABOUT.get(), **vars(record)}
    return {name: found[name] for name in IDS if name in found}
