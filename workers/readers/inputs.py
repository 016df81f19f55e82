"""From what a person types to the list of files to read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ENDINGS = tuple(f".{name}{packing}" for name in ("fits", "fit", "fts") for packing in ("", ".gz", ".fz"))
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
                found.paths.append(file)
    return found


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
