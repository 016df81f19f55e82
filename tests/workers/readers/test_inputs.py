"""From the command line's words to a list of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.readers import find_inputs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.fits",
        "a.FITS.GZ",
        "c.fit",
        "d.fts.fz",
        "notes.txt",
        "deep/er/e.fits.gz",
        "deep/table.csv",
    ):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_a_folder_is_searched_in_order(folder: Path) -> None:
    found = find_inputs(["data"])
    names = [os.path.relpath(path, folder / "data") for path in found.paths]
    assert names == ["a.FITS.GZ", "b.fits", "c.fit", "d.fts.fz", "deep/er/e.fits.gz"]
    assert found.ignored == 2 and found.missing == []
    assert all(Path(path).is_absolute() for path in found.paths)


def test_each_file_counts_once(folder: Path) -> None:
    found = find_inputs(["data/b.fits", "./data/../data/b.fits", str(folder / "data" / "b.fits"), "data"])
    assert len(found.paths) == 5 and found.paths[0] == str(folder / "data" / "b.fits")


def test_a_file_named_by_itself_is_never_ignored(folder: Path) -> None:
    found = find_inputs(["data/notes.txt"])
    assert found.paths == [str(folder / "data" / "notes.txt")] and found.ignored == 0


def test_a_list(folder: Path) -> None:
    (folder / "list.txt").write_text("# night 1\n\ndata/b.fits\r\n  data/deep \ngone.fits\ndata/b.fits\n")
    found = find_inputs(["@list.txt"])
    assert found.paths == [str(folder / "data/b.fits"), str(folder / "data/deep/er/e.fits.gz")]
    assert found.missing == ["gone.fits"] and found.ignored == 1


def test_what_does_not_exist_is_said(folder: Path) -> None:
    found = find_inputs(["nothing.fits", "@nothing.txt", "data/b.fits"])
    assert found.missing == ["nothing.fits", "@nothing.txt"] and len(found.paths) == 1


def test_a_file_whose_name_starts_with_the_sign_of_a_list(folder: Path) -> None:
    (folder / "@odd.fits").touch()
    assert find_inputs(["@odd.fits"]).paths == [str(folder / "@odd.fits")]


def test_a_dangling_link_is_an_input(folder: Path) -> None:
    (folder / "data" / "z.fits").symlink_to(folder / "gone")
    assert find_inputs(["data"]).paths[-2].endswith("z.fits")


def test_links_do_not_go_round_in_circles(folder: Path) -> None:
    (folder / "data" / "round").symlink_to(folder / "data")
    assert len(find_inputs(["data"]).paths) == 5
    assert len(find_inputs(["data/round"]).paths) == 5


def test_nothing_gives_nothing() -> None:
    found = find_inputs([])
    assert (found.paths, found.ignored, found.missing) == ([], 0, [])
