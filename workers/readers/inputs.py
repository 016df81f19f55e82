"""From what a person types to the list of inputs to read.

An input is a path. A file that holds many objects (a pack, an spPlate file) is as many inputs, called
``FILE#NUMBER``: ``/data/night.h5#123`` is member 123 of a pack, counted from 0, ``/data/spPlate-0266-51602.fits#31``
fibre 31 of a plate. That is their path in manifests, in the ledger and in the catalog, so each ends as one score
or one failure of its own. A row of the catalog is one observation, a path with a sha256. A member's sha256 is that
of the file it was packed from; the same file in two packs, or packed and by itself, is two observations of one
object with equal bytes, flagged ``duplicate`` like any copy in another folder, which it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workers.readers.pack import count_members
from workers.readers.plate import NAME as PLATE_NAME
from workers.readers.plate import count_fibres
from workers.readers.reasons import Refused

PACK_ENDINGS = (".h5", ".hdf5")
ENDINGS = tuple(f".{name}{packing}" for name in ("fits", "fit", "fts") for packing in ("", ".gz", ".fz"))
ENDINGS += PACK_ENDINGS
"""What a file in a searched folder must end in, in any case. A file named by itself may be called
anything."""


@dataclass(slots=True)
class Found:
    """What ``find_inputs`` found."""

    paths: list[str] = field(default_factory=list)
    """Absolute, each once, in the order of the inputs; the content of a folder is sorted by name."""
    ignored: int = 0
    """Files in searched folders that are not named like FITS."""
    missing: list[str] = field(default_factory=list)
    """Inputs, or lines of a list, that do not exist, and folders that cannot be read."""


def find_inputs(inputs: Sequence[str]) -> Found:
    """Expand files, folders (searched recursively) and ``@list.txt`` (a path a line; blank lines and ``#``
    skipped).

    Relative paths in a list count from the working directory, as they do on the command line. Symbolic
    links to folders are followed only where the link itself is the input, so that no search goes round in
    circles.
    """
    found = Found()
    seen: set[str] = set()
    for name in _expand(inputs, found):
        # Path.resolve() would follow links, and the path is part of an observation's identity.
        path = os.path.abspath(name)  # noqa: PTH100
        if not os.path.lexists(path):
            found.missing.append(name)
            continue
        is_folder = os.path.isdir(path)  # noqa: PTH112 (Path.is_dir() raises where it may not look)
        for file in _walk(path, found) if is_folder else (path,):
            if file not in seen:
                seen.add(file)
                found.paths += _members(file)
    return found


_MEMBER = re.compile(r"(.+)#(\d{1,9})")


def container_of(path: str) -> tuple[str, int] | None:
    """File and number of a member, None for a path that is a file by itself."""
    found = _MEMBER.fullmatch(path)
    return (found[1], int(found[2])) if found and _is_container(found[1]) else None


def _is_container(path: str) -> bool:
    return is_pack(path) or PLATE_NAME.fullmatch(os.path.basename(path)) is not None  # noqa: PTH119


def is_pack(path: str) -> bool:
    return path.lower().endswith(PACK_ENDINGS)


def _members(path: str) -> list[str]:
    """The inputs in a file: itself, also where it should hold several and cannot be read, which reading says."""
    if not _is_container(path):
        return [path]
    try:
        numbers = range(count_members(path)) if is_pack(path) else range(1, count_fibres(path) + 1)
    except Refused:
        return [path]
    return [f"{path}#{number}" for number in numbers]


def _expand(inputs: Sequence[str], found: Found) -> Iterator[str]:
    for name in inputs:
        if not name.startswith("@") or os.path.lexists(name):
            yield name
            continue
        try:
            lines = Path(name[1:]).read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        except OSError:
            found.missing.append(name)
            continue
        yield from (line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _walk(folder: str, found: Found) -> Iterator[str]:
    def unreadable(error: OSError) -> None:
        found.missing.append(str(error.filename))

    for root, folders, files in os.walk(folder, onerror=unreadable):
        folders.sort()
        for name in sorted(files):
            if name.lower().endswith(ENDINGS):
                yield str(Path(root, name))
            else:
                found.ignored += 1
