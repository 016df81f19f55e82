"""Packed files: what the readers made of many files, in one HDF5 file that is read by slices.

Layout (``format`` = ``peculiar pack``, ``version`` = 1)::

    members          (n,) text     one JSON object a member, in the order of packing: kind, path, sha256 and
                                   object_id of the original, survey, ra, dec, flags, redshift, …; for a
                                   file that was turned away its reason and detail
    rows             (n, 2) int64  group (−1 none, 0 spectra, 1 … cutouts by shape) and row in that group
    group0/offset    (k + 1,)      where spectrum i lies in flux and ivar: [offset[i], offset[i + 1])
    group0/flux      (n_pixels,)   float32, and ivar alike
    group1/flux      (k, n_bands, height, width) float32, and ivar alike; further shapes in group2 …

Members are numbered from 0; what a member is called as an input stands in ``inputs.py``. The
attributes ``program`` and ``made`` say which version wrote the file, and when.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.readers import reasons
from workers.readers.reasons import Refused
from workers.readers.sample import Cutout, Rejection, Spectrum

if TYPE_CHECKING:
    import h5py

FORMAT, VERSION = "peculiar pack", 1
CHUNK = 1 << 16
"""Values in one chunk of an array, 256 KiB."""
SPECTRA = 0
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError, MemoryError)
"""What h5py and numpy raise where a damaged file trips them, which is an ordinary case here."""
_SPECTRUM = ("first", "redshift", "zwarning", "spectral_class", "object_type")
_COMMON = ("object_id", "survey", "path", "sha256", "ra", "dec")
Read = Spectrum | Cutout | Rejection


class PackWriter:
    """Writes a pack; the file appears under its name when the ``with`` block ends well."""

    def __init__(self, path: Path, program: str) -> None:
        self.path = path
        self._partial = path.with_name(path.name + ".part")
        self._program = program
        self._groups: dict[tuple[int, ...], int] = {(): SPECTRA}

    def __enter__(self) -> PackWriter:
        import h5py

        self._file = h5py.File(self._partial, "w")
        self._file.attrs.update(
            format=FORMAT, version=VERSION, program=self._program, made=datetime.now(UTC).isoformat()
        )
        self._make("members", h5py.string_dtype(), ())
        self._make("rows", "<i8", (2,))
        self._make("group0/offset", "<i8", ())
        self._append("group0/offset", np.zeros(1, np.int64))
        for name in ("flux", "ivar"):
            self._make(f"group0/{name}", "<f4", ())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            self._partial.rename(self.path)
        else:
            self._partial.unlink(missing_ok=True)

    def append(self, results: Sequence[Read]) -> None:
        """Add what the readers made of some files, in this order."""
        rows: list[tuple[int, int]] = []
        members: dict[int, list[Spectrum | Cutout]] = {}
        for result in results:
            if isinstance(result, Rejection):
                rows.append((-1, 0))
                continue
            shape = result.flux.shape if isinstance(result, Cutout) else ()
            group = self._groups.setdefault(shape, len(self._groups))
            if f"group{group}" not in self._file:
                for name in ("flux", "ivar"):
                    self._make(f"group{group}/{name}", "<f4", shape)
            alike = members.setdefault(group, [])
            counted = "offset" if group == SPECTRA else "flux"
            rows.append((group, len(self._file[f"group{group}/{counted}"]) - (group == SPECTRA) + len(alike)))
            alike.append(result)
        for group, alike in members.items():
            join = np.concatenate if group == SPECTRA else np.stack
            if group == SPECTRA:
                end = self._file["group0/offset"][-1]
                self._append("group0/offset", end + np.cumsum([sample.flux.size for sample in alike]))
            for name in ("flux", "ivar"):
                self._append(f"group{group}/{name}", join([getattr(sample, name) for sample in alike]))
        self._append("rows", np.array(rows, np.int64).reshape(-1, 2))
        self._append("members", [json.dumps(_described(result)) for result in results])

    def _make(self, name: str, dtype: Any, shape: tuple[int, ...]) -> None:
        chunk = (max(1, CHUNK // int(np.prod(shape, dtype=int))), *shape)
        chunks = (4096,) if name == "members" else chunk
        self._file.create_dataset(name, (0, *shape), dtype, maxshape=(None, *shape), chunks=chunks)

    def _append(self, name: str, values: Any) -> None:
        dataset = self._file[name]
        start = len(dataset)
        dataset.resize(start + len(values), axis=0)
        dataset[start:] = values


def _described(result: Read) -> dict[str, Any]:
    if isinstance(result, Rejection):
        names = ("path", "reason", "detail", "kind", "sha256")
        return {name: getattr(result, name) for name in names}
    described = {name: getattr(result, name) for name in _COMMON}
    described |= {"kind": result.kind, "flags": sorted(result.flags)}
    if isinstance(result, Spectrum):
        return described | {name: getattr(result, name) for name in _SPECTRUM}
    return described | {"bands": result.bands}


def count_members(path: str) -> int:
    """Members of a pack. Raises Refused."""
    with _opened(path) as file:
        try:
            return len(file["members"])
        except DAMAGE as error:
            raise Refused(reasons.BROKEN_PACK, str(error)) from error


def read_members(path: str, numbers: Sequence[int]) -> Iterator[Read]:
    """Members of a pack by number, each under its name as an input; the pack is opened once.

    Whatever is wrong with a member, or with the pack, gives a Rejection for each member that it costs.
    """
    try:
        with _opened(path) as file:
            for run in _runs(numbers):
                yield from _read_run(file, path, run)
    except Refused as refused:
        # Nothing was yielded yet: only opening raises Refused.
        for number in numbers:
            yield Rejection(f"{path}#{number}", refused.reason, refused.detail)


def _opened(path: str) -> h5py.File:
    import h5py

    try:
        file = h5py.File(path, "r")
    except FileNotFoundError as error:
        raise Refused(reasons.MISSING) from error
    except OSError as error:
        raise Refused(reasons.BROKEN_PACK, str(error)) from error
    try:
        if file.attrs.get("format") != FORMAT or not {"members", "rows"} <= file.keys():
            raise Refused(reasons.NOT_A_PACK)
        if file.attrs.get("version") != VERSION:
            raise Refused(reasons.NEWER_PACK, f"version {file.attrs.get('version')}")
    except DAMAGE as error:
        file.close()
        raise Refused(reasons.BROKEN_PACK, str(error)) from error
    except Refused:
        file.close()
        raise
    return file


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    """Numbers as runs of neighbours."""
    start = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            yield range(numbers[start], numbers[i - 1] + 1)
            start = i


def _read_run(file: h5py.File, path: str, run: range) -> Iterable[Read]:
    try:
        return _read_slices(file, path, run)
    except DAMAGE as error:
        if len(run) > 1:
            return [result for number in run for result in _read_run(file, path, range(number, number + 1))]
        return [Rejection(f"{path}#{run[0]}", reasons.BROKEN_PACK, f"{type(error).__name__}: {error}"[:200])]


def _read_slices(file: h5py.File, path: str, run: range) -> list[Read]:
    slot = slice(run.start, run.stop)
    described = [json.loads(text) for text in file["members"][slot]]
    rows = file["rows"][slot]
    if not len(described) == len(rows) == len(run):
        raise IndexError(f"there are {len(file['members'])} members")
    arrays: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
    for group in np.unique(rows[rows[:, 0] >= 0, 0]).tolist():
        mine = rows[rows[:, 0] == group, 1]
        low, high = int(mine.min()), int(mine.max()) + 1
        both = [_slices(file[f"group{group}"], name, group, low, high) for name in ("flux", "ivar")]
        arrays |= {(group, low + i): pair for i, pair in enumerate(zip(*both, strict=True))}
    results: list[Read] = []
    for number, what, (group, row) in zip(run, described, rows.tolist(), strict=True):
        what["path"] = f"{path}#{number}"
        if group < 0:
            results.append(Rejection(**what))
            continue
        flux, ivar = arrays[group, row]
        if not (np.isfinite(flux).all() and np.isfinite(ivar).all() and ivar.min(initial=0) >= 0):
            raise ValueError("values that are not finite")
        kind, what["flags"] = what.pop("kind"), set(what["flags"])
        if kind == "spectrum":
            results.append(Spectrum(flux=flux, ivar=ivar, **what))
        else:
            results.append(Cutout(flux=flux, ivar=ivar, **what | {"bands": tuple(what["bands"])}))
    return results


def _slices(arrays: h5py.Group, name: str, group: int, low: int, high: int) -> list[np.ndarray]:
    """Flux or ivar of the members [low, high) of a group."""
    if group != SPECTRA:
        return list(arrays[name][low:high])
    offset = arrays["offset"][low : high + 1]
    values = arrays[name][offset[0] : offset[-1]]
    return np.split(values, offset[1:-1] - offset[0])
