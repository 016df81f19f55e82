"""A whole simulation: counts, the truth table, the same bytes again, and what it refuses."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from workers.simulate import campaign, cutouts, simulate, spectra


def rows_of(truth: Path) -> list[dict[str, str]]:
    with truth.open(newline="", encoding="utf-8") as source:
        return list(csv.DictReader(source))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("kind", ["spectrum", "cutout"])
def test_truth_table_names_every_file(kind: str, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    truth = simulate(
        kind, 12, tmp_path / "out", seed=3, anomaly_rate=0.25, progress=lambda *a: calls.append(a)
    )
    rows = rows_of(truth)
    assert truth == tmp_path / "out" / "truth.csv"
    assert list(rows[0])[:4] == ["path", "object_id", "is_anomaly", "class"]
    assert calls == [(done, 12) for done in range(1, 13)]
    assert len({row["object_id"] for row in rows}) == 12
    assert sum(int(row["is_anomaly"]) for row in rows) == 3
    files = {str(path.relative_to(truth.parent)) for path in truth.parent.rglob("*.fits")}
    assert files == {row["path"] for row in rows}
    assert sorted(p.name for p in truth.parent.iterdir() if p.is_file()) == ["truth.csv"]


@pytest.mark.parametrize("kind", ["spectrum", "cutout"])
def test_same_arguments_give_the_same_bytes_on_any_number_of_processes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(kind, 20, tmp_path / "one", seed=4, anomaly_rate=0.3)
    monkeypatch.setattr(campaign, "SERIAL", 1)
    monkeypatch.setattr(campaign.os, "cpu_count", lambda: 2)
    simulate(kind, 20, tmp_path / "several", seed=4, anomaly_rate=0.3)
    assert digests(tmp_path / "one") == digests(tmp_path / "several")


@pytest.mark.parametrize("kind", ["spectrum", "cutout"])
def test_seeds_share_no_object(kind: str, tmp_path: Path) -> None:
    one, two = (rows_of(simulate(kind, 5, tmp_path / str(seed), seed=seed)) for seed in (1, 2))
    assert not {row["object_id"] for row in one} & {row["object_id"] for row in two}


@pytest.mark.parametrize(
    ("n", "rate", "count"), [(1000, 0.02, 20), (333, 0.1, 33), (10, 0.0, 0), (7, 1.0, 7)]
)
def test_number_and_shares_of_anomalies(n: int, rate: float, count: int) -> None:
    for kinds in (spectra.KINDS, cutouts.KINDS):
        planted = campaign.plan(kinds, n, 1, rate)
        shares = Counter(planted.values())
        assert len(planted) == count and set(planted) <= set(range(n))
        assert max(shares.values(), default=0) - min((shares[kind] for kind in kinds), default=0) <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "spectrum", "n": 0}, "at least 1"),
        ({"kind": "cutout", "n": -3}, "at least 1"),
        ({"kind": "image", "n": 3}, "choose spectrum or cutout"),
        ({"kind": "cutout", "n": 3, "anomaly_rate": 1.5}, "between 0 and 1"),
        ({"kind": "cutout", "n": 3, "anomaly_rate": float("nan")}, "between 0 and 1"),
        ({"kind": "spectrum", "n": 3, "seed": -1}, "seed"),
        ({"kind": "spectrum", "n": 10**7}, "several seeds"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_is_written(
    arguments: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        simulate(out=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="not empty"):
        simulate("cutout", 2, tmp_path)
    (tmp_path / "truth.csv").write_text("path,label\nthesis.tex,1\n")
    with pytest.raises(FileExistsError, match="not empty"):
        simulate("cutout", 2, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(NotADirectoryError, match="name a folder"):
        simulate("cutout", 2, tmp_path / "out")


def test_earlier_simulation_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    truth = simulate("cutout", 5, tmp_path, seed=1)
    (tmp_path / "notes.txt").write_text("mine")
    outside = tmp_path.parent / "outside.fits"
    outside.write_text("not listed by right")
    with truth.open("a", encoding="utf-8") as sink:
        sink.write("../outside.fits,x,0,early,early,0,0,0,0,\n")
    simulate("cutout", 3, tmp_path, seed=2)
    assert {p.stem for p in tmp_path.rglob("*.fits")} == {f"CUT-002-{i:07d}" for i in range(3)}
    assert (tmp_path / "notes.txt").read_text() == "mine" and outside.exists()


def test_interrupted_simulation_can_be_run_again(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate("cutout", 6, tmp_path, progress=interrupt)
    assert not (tmp_path / "truth.csv").exists()
    assert len(rows_of(simulate("cutout", 6, tmp_path))) == 6


def test_full_disk_is_noticed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(OSError, match="fewer objects"):
        simulate("cutout", 1000, tmp_path / "out")
    assert not list(tmp_path.rglob("*.fits"))


@pytest.mark.parametrize(("kind", "maker"), [("spectrum", spectra), ("cutout", cutouts)])
def test_files_are_no_larger_than_the_space_asked_for(kind: str, maker: Any, tmp_path: Path) -> None:
    truth = simulate(kind, 3, tmp_path)
    assert max(path.stat().st_size for path in truth.parent.rglob("*.fits")) <= maker.BYTES_PER_FILE
