"""Readers: a path in, a sample or a rejection with a reason out.

``read`` never raises for a bad file. What a file holds is told by its content; its name is used only for the
identity of an object that the header does not name.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from workers.readers import reasons
from workers.readers.cutout import read_cutout
from workers.readers.fits import FitsFile, parse, read_bytes, sha256_of
from workers.readers.inputs import Found, container_of, find_inputs, is_pack
from workers.readers.lamost import is_lamost, read_lamost
from workers.readers.pack import count_members, read_members
from workers.readers.plate import read_fibres
from workers.readers.reasons import Refused
from workers.readers.sample import LOGLAM_STEP, Cutout, Rejection, Spectrum
from workers.readers.sdss import find_coadd, read_sdss

__all__ = [
    "LOGLAM_STEP",
    "Cutout",
    "Found",
    "Rejection",
    "Spectrum",
    "find_inputs",
    "read",
    "read_all",
    "read_content",
]


def read_all(paths: Iterable[str]) -> Iterator[Spectrum | Cutout | Rejection]:
    """Read inputs in their order; neighbours in one pack or plate are read from it together.

    Each input gives one result, which carries its path.
    """
    members = ((path, container_of(path)) for path in paths)
    for container, group in itertools.groupby(members, lambda member: member[1] and member[1][0]):
        if container is None:
            yield from (_read_file(path) for path, _ in group)
        else:
            numbers = [member[1] for _, member in group if member]
            yield from (read_members if is_pack(container) else read_fibres)(container, numbers)


def read(path: str | Path) -> Spectrum | Cutout | Rejection:
    """Read one input; as ``read_all``."""
    return next(read_all([os.fspath(path)]))


def read_content(name: str, content: bytes) -> Spectrum | Cutout | Rejection:
    """Read a file that lies in memory; as ``read``. ``name`` stands for its path."""
    return _interpret(name, lambda: content)


def _read_file(path: str) -> Spectrum | Cutout | Rejection:
    return _interpret(path, lambda: _bytes_of(path))


def _bytes_of(path: str) -> bytes:
    if is_pack(path):
        count_members(path)  # says what is wrong with it
    return read_bytes(path)


def _interpret(path: str, content: Callable[[], bytes]) -> Spectrum | Cutout | Rejection:
    """Read one file.

    Returns a sample with native float32 arrays, or a Rejection for whatever is wrong with the file. Raises
    nothing that has to do with the file, prints nothing, and leaves nothing open.
    """
    rejection = Rejection(path, reason="")
    try:
        raw = content()
        rejection.sha256 = sha256_of(raw)
        # astropy remarks on everything that a header does against the standard, and survey files often do.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = parse(rejection.path, raw, rejection.sha256)
            del raw
            return _sample(file, rejection)
    except Refused as refused:
        return dataclasses.replace(rejection, reason=refused.reason, detail=refused.detail)


def _sample(file: FitsFile, rejection: Rejection) -> Spectrum | Cutout:
    """Choose the reader by content, noting the kind for a rejection to come."""
    coadd = find_coadd(file)
    if coadd is not None:
        rejection.kind = "spectrum"
        return read_sdss(file, coadd)
    if is_lamost(file):
        rejection.kind = "spectrum"
        return read_lamost(file)
    if any(hdu.is_image and hdu.shape for hdu in file.hdus):
        rejection.kind = "cutout"
        return read_cutout(file)
    raise Refused(reasons.NO_DATA, f"{len(file.hdus)} HDUs")
