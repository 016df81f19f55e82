"""The whole simulation: which objects are anomalies, the files on the disk, and the truth table."""

from __future__ import annotations

import csv
import itertools
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import numpy as np

from workers.simulate.truth import COLUMNS, Truth

SERIAL = 64
"""Up to so many files one process is faster than several."""
SPARE_BYTES = 200_000_000
"""Disk space that a simulation leaves to others."""
MAX_SEED = 4_000_000

Progress = Callable[[int, int], None]
"""Called with the number of files written so far, and the number there will be."""


def simulate(
    kind: str,
    n: int,
    out: str | Path,
    seed: int = 1,
    anomaly_rate: float = 0.02,
    progress: Progress | None = None,
) -> Path:
    """Write ``n`` simulated survey files and their truth table, and return the path of truth.csv.

    ``kind`` is ``spectrum`` (SDSS spec-lite files) or ``cutout`` (g, r, i images of 64 × 64 pixels). Exactly
    round(n · anomaly_rate) objects are anomalies, in equal shares of the kinds. A file depends only on the
    seed, its number and the anomaly planted in it, so the same arguments give the same bytes on any number of
    processors; object identifiers of different seeds differ.

    truth.csv has the columns path (relative to its folder), object_id, is_anomaly, class (the anomaly's kind,
    or the class of a normal object), base, z, mag, snr, strength, detail.

    ``out`` is made if need be. A folder that an earlier simulation wrote is replaced, file by file as its
    truth.csv lists them; any other folder with something in it is refused. Raises ValueError for arguments
    that cannot be, FileExistsError for such a folder, NotADirectoryError for a file, OSError where the disk
    is too small.
    """
    maker = _module(kind)
    _check_arguments(n, seed, anomaly_rate, maker.MAX_FILES)
    folder = Path(out)
    _claim(folder)
    _check_space(folder, n * maker.BYTES_PER_FILE)
    marker, table = folder / "truth.csv.partial", folder / "truth.csv"
    planted = plan(maker.KINDS, n, seed, anomaly_rate)
    jobs = [(kind, seed, index, planted.get(index, ""), str(folder)) for index in range(n)]
    rows: list[Truth] = []
    with marker.open("w", newline="", encoding="utf-8") as sink:
        writer = csv.writer(sink)
        writer.writerow(COLUMNS)
        for truth in _run(jobs):
            rows.append(truth)
            writer.writerow(truth.row())
            sink.flush()
            if progress is not None:
                progress(len(rows), n)
    marker.replace(table)
    return table


def plan(kinds: tuple[str, ...], n: int, seed: int, anomaly_rate: float) -> dict[int, str]:
    """Which of ``n`` objects are anomalies, and of which kind: {index: kind}, the kinds in equal shares."""
    rng = np.random.default_rng([seed, 5])
    count = round(n * anomaly_rate)
    order = [str(kind) for kind in rng.permutation(np.array(kinds))]
    places = rng.choice(n, size=count, replace=False)
    return dict(zip((int(place) for place in places), itertools.cycle(order), strict=False))


def _module(kind: str) -> ModuleType:
    if kind == "spectrum":
        from workers.simulate import spectra

        return spectra
    if kind == "cutout":
        from workers.simulate import cutouts

        return cutouts
    raise ValueError(f"cannot simulate {kind!r}: choose spectrum or cutout")


def _check_arguments(n: int, seed: int, anomaly_rate: float, most: int) -> None:
    if n < 1:
        raise ValueError(f"cannot simulate {n} objects: ask for at least 1")
    if n > most:
        raise ValueError(
            f"cannot simulate {n} objects of one seed: ask for at most {most} and use several seeds"
        )
    if not 0 <= anomaly_rate <= 1:
        raise ValueError(f"the anomaly rate is {anomaly_rate}: choose a share between 0 and 1")
    if not 0 <= seed < MAX_SEED:
        raise ValueError(f"the seed is {seed}: choose a whole number from 0 to {MAX_SEED - 1}")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB free and the simulation needs {needed / 1e9:.1f} GB "
            f"(and leaves {SPARE_BYTES / 1e9:.1f}): ask for fewer objects or another folder"
        )


def _claim(folder: Path) -> None:
    """Make the folder, or empty it of an earlier simulation; refuse one that holds anything else."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: name a folder to simulate into")
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        return
    tables = [path for path in (folder / "truth.csv", folder / "truth.csv.partial") if _is_ours(path)]
    if not tables:
        raise FileExistsError(
            f"{folder} is not empty and holds no earlier simulation: "
            "name a new folder, or empty this one yourself"
        )
    for table in tables:
        with table.open(newline="", encoding="utf-8") as source:
            listed = [row.get("path") or "" for row in csv.DictReader(source)]
        for relative in filter(None, listed):
            path = (folder / relative).resolve()
            if path.is_relative_to(folder.resolve()) and path.suffix == ".fits":
                path.unlink(missing_ok=True)
        table.unlink()


def _is_ours(table: Path) -> bool:
    """Whether a file begins like a truth table written here."""
    try:
        with table.open(newline="", encoding="utf-8") as source:
            return next(csv.reader(source), []) == COLUMNS
    except (OSError, UnicodeDecodeError):
        return False


def _write(job: tuple[str, int, int, str, str]) -> Truth:
    """Make and write one file; runs in any process."""
    kind, seed, index, anomaly, folder = job
    maker = _module(kind)
    made = (
        maker.make_spectrum(seed, index, anomaly)
        if kind == "spectrum"
        else maker.make_cutout(seed, index, anomaly)
    )
    path = Path(folder) / made.truth.path
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(made.content)
    return made.truth


def _run(jobs: list[tuple[str, int, int, str, str]]) -> Iterable[Truth]:
    """The truth of every job in order, made by one process or by all processors."""
    workers = os.cpu_count() or 1
    # A daemonic process (a queue worker) may not have children of its own.
    if len(jobs) <= SERIAL or workers == 1 or multiprocessing.current_process().daemon:
        yield from map(_write, jobs)
        return
    # spawned: a fork of a process that has threads can wait for ever
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_write, jobs, chunksize=16)
