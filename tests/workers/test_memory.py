"""Freed memory is used again, without the kernel."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from workers.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
def use():
    return [np.ones(1 << 20) for _ in range(4)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
def test_arrays_of_megabytes_take_memory_that_was_freed() -> None:
    assert page_faults("kept") < page_faults("given back") / 10
