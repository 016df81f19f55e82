"""Log lines: what they are about, in both forms, and never a password."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from service.cli.console import OneLine, explain
from service.logs import JsonLines, TextLines, about

SECRET = "hush-hush"
URLS = (
    f"postgresql+psycopg://peculiar:{SECRET}@db/peculiar",
    f"redis://:{SECRET}@queue:6379/0",
    f"amqp://u:{SECRET}@with/slash@queue//",
    f"postgresql://db/peculiar?user=u&password={SECRET}",
)


class Kept(logging.Handler):
    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.formatter, self.lines = formatter, list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture(params=[TextLines, JsonLines, OneLine])
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    handler = Kept(request.param())
    logger = logging.getLogger("tests.logs")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.mark.parametrize("url", URLS)
def test_no_password_is_logged(kept: Kept, url: str) -> None:
    logger = logging.getLogger("tests.logs")
    logger.warning("cannot reach %s", url)
    logger.warning("a dict: %r", {"url": url})
    try:
        raise ConnectionError(f"no answer from {url}")
    except ConnectionError:
        logger.exception("it failed", extra={"object": url})
    assert len(kept.lines) == 3
    assert SECRET not in "\n".join(kept.lines)
    assert "***" in kept.lines[0]


@pytest.mark.parametrize("url", URLS)
def test_no_password_is_in_an_error(url: str) -> None:
    for error in (ValueError(f"{url} is bad"), KeyError(url), RuntimeError(url), ConnectionError(url)):
        assert SECRET not in explain(error)


def test_json_lines_carry_what_they_are_about() -> None:
    record = logging.LogRecord("workers", logging.INFO, "", 0, "scored %d", (3,), None)
    with about(run=7, batch="b-1"), about(object="/data/a.fits"):
        line = json.loads(JsonLines().format(record))
    assert (line["run"], line["batch"], line["object"]) == (7, "b-1", "/data/a.fits")
    assert (line["level"], line["logger"], line["message"]) == ("info", "workers", "scored 3")
    assert line["time"].endswith("+00:00")
    assert "run" not in json.loads(JsonLines().format(record))


def test_a_json_line_is_one_line_with_its_traceback() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "bad", None, sys.exc_info())
    text = JsonLines().format(record)
    assert "\n" not in text
    line: dict[str, Any] = json.loads(text)
    assert "ValueError: two\nlines" in line["traceback"]
