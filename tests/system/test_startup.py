"""What is heavy is imported by the commands that need it, and by no others."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "sklearn", "astropy", "celery", "sqlalchemy", "pandas", "scipy", "h5py", "matplotlib")


@pytest.mark.parametrize(
    "call",
    ["", "main(['--help'], standalone_mode=False)", "main(['score', '--help'], standalone_mode=False)"],
)
def test_help_imports_nothing_heavy(call: str) -> None:
    program = (
        f"import sys; from service.cli import main; {call}\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"


def test_reading_and_queueing_need_no_model() -> None:
    program = (
        "import sys, workers.readers, service.submission, service.queue\n"
        "print([name for name in ('torch', 'sklearn', 'astropy', 'h5py', 'pandas') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
