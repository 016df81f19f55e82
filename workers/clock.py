"""Seconds by stage of the work on one message."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
END = object()


class Clock:
    """Adds up the time that is spent in each stage."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The items, with the time that it takes to get them counted as this stage."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                item = next(iterator, END)
            if item is END:
                return
            yield item  # type: ignore[misc]  # not END, so a T

    def total(self) -> float:
        """Since the clock was made."""
        return time.monotonic() - self.started
