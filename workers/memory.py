"""Freed memory stays with the process: batches come and go by megabytes, and the kernel clears each page it gives."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""
KEPT = 512 << 20
"""Bytes that may lie unused at the end of the heap."""
LARGEST_MMAP_THRESHOLD = 32 << 20
"""Arrays below this come from the heap; glibc takes no larger number."""


def keep_freed_memory() -> None:
    """Tell the C library so; a sixth less CPU time for scoring cutouts. Where it is not glibc, nothing happens."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_TRIM_THRESHOLD, KEPT)
    mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
