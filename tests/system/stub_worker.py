"""`peculiar worker` with a model that needs no weights and files of one word: a number, or what goes wrong.

``kill`` ends the process that reads it, ``hang`` never comes back, ``bad`` is refused. With STUB_READS=real the
files are read as they are. STUB_PAUSE_S makes each file take its time.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from service.cli import main
from tests.workers.conftest import FakeScorer, fake_read
from workers import tasks

PAUSE_S = float(os.environ.get("STUB_PAUSE_S", "0"))


def read(path: str) -> Any:
    content = Path(path).read_bytes()
    time.sleep(PAUSE_S)
    word = content.decode().strip()
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while word == "hang":
        time.sleep(1)
    result = fake_read("/bad" if word == "bad" else f"/spectrum/{word}")
    result.path, result.sha256 = path, hashlib.sha256(content).hexdigest()
    return result


if __name__ == "__main__":
    tasks.load_bundle = lambda settings, model: FakeScorer(model)  # type: ignore[assignment]  # a stub
    if os.environ.get("STUB_READS") != "real":
        tasks.read_inputs = lambda paths, readers: map(read, paths)  # type: ignore[assignment]  # a stub
    main()
