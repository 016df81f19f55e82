"""The notebook runs, from top to bottom, and is kept without its results."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "first-night.ipynb"


@pytest.fixture
def notebook() -> Any:
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_results(notebook: Any) -> None:
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)


def test_it_runs(notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    command = tmp_path / "bin" / "peculiar"
    command.parent.mkdir()
    # The guard is what every installed command has: processes that it spawns import it.
    start = "if __name__ == '__main__':\n    main()\n"
    command.write_text(f"#!{sys.executable} -P\nfrom service.cli import main\n\n{start}")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("PECULIAR_DEVICE", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    nbclient.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": tmp_path}}).execute()
    text = "\n".join(str(cell.get("outputs")) for cell in notebook.cells)
    assert "read 40, scored 40, rejected 0" in text and "image/png" in text and "discoveries among 40" in text
