"""A file is given once it has kept still, and again only when it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.landing import Landing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.fits").write_text("1")
    (tmp_path / "notes.txt").write_text("1")
    return tmp_path


def look(landing: Landing, now: float) -> list[str]:
    """The names that are given, and dealt with."""
    settled = landing.look(now)
    landing.give(settled)
    return [Path(path).name for path in settled]


def test_a_file_that_keeps_still_is_given_once(folder: Path) -> None:
    landing = Landing([folder], 10)
    assert [look(landing, now) for now in (0, 9, 10, 11, 100)] == [[], [], ["a.fits"], [], []]


def test_a_file_that_grows_waits(folder: Path) -> None:
    landing = Landing([folder], 10)
    assert look(landing, 0) == []
    (folder / "a.fits").write_text("12")
    assert [look(landing, now) for now in (9, 18, 19)] == [[], [], ["a.fits"]]


def test_a_touched_file_is_given_again(folder: Path) -> None:
    landing = Landing([folder], 0)
    assert look(landing, 0) == ["a.fits"]
    os.utime(folder / "a.fits", ns=(5, 5))
    assert look(landing, 1) == ["a.fits"]


def test_a_renamed_file_is_a_new_one(folder: Path) -> None:
    landing = Landing([folder], 10)
    look(landing, 0)
    (folder / "a.fits").rename(folder / "b.fits")
    assert [look(landing, now) for now in (10, 20)] == [[], ["b.fits"]]
    assert list(landing.seen) == list(landing.given) == [str(folder / "b.fits")]


def test_what_could_not_be_dealt_with_is_given_again(folder: Path) -> None:
    landing = Landing([folder], 0)
    assert landing.look(0) == landing.look(1) == [str(folder / "a.fits")]
    landing.give(landing.look(2))
    assert landing.look(3) == []
    landing.forget()
    assert landing.look(4) == [str(folder / "a.fits")]
