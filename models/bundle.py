"""A model bundle on disk: ``model.json`` and ``weights.safetensors`` in one folder, no pickle.

The bundle's version is the SHA-256 of both (of the JSON without the version itself), so that an id such as
``sdss@3fa9c1d2e4b5`` names exactly one model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load, save

FORMAT = 1
ID_DIGITS = 12


@dataclass(slots=True)
class Bundle:
    """A bundle in memory."""

    spec: dict[str, Any]
    """Everything that is not an array: kind, name, preprocessing, network, training, versions."""
    arrays: dict[str, np.ndarray]

    @property
    def id(self) -> str:
        return f"{self.spec['name']}@{self.spec['version'][:ID_DIGITS]}"

    def save(self, model_dir: Path) -> Path:
        """Write the bundle to ``model_dir/<name>-<version>``, whole or not at all, and return that folder."""
        blob = save({k: np.ascontiguousarray(v) for k, v in sorted(self.arrays.items())})
        self.spec["version"] = _version(self.spec, blob)
        folder = model_dir / self.id.replace("@", "-")
        if folder.exists():
            return folder
        partial = folder.with_name(folder.name + ".part")
        partial.mkdir(parents=True, exist_ok=True)
        (partial / "weights.safetensors").write_bytes(blob)
        (partial / "model.json").write_text(json.dumps(self.spec, indent=1) + "\n")
        partial.rename(folder)
        return folder


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and check its hash.

    Raises:
        ValueError: not a bundle, of another format, or changed since it was written.
    """
    try:
        spec = dict(json.loads((folder / "model.json").read_text()))
        blob = (folder / "weights.safetensors").read_bytes()
        arrays = load(blob)
    except (OSError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"{folder} is not a readable model bundle: {error}") from error
    if spec.get("format") != FORMAT:
        raise ValueError(
            f"{folder} has bundle format {spec.get('format')}, this program reads format {FORMAT}"
        )
    if _version(spec, blob) != spec.get("version"):
        raise ValueError(
            f"{folder} was changed after it was written: its content no longer has the hash it names"
        )
    return Bundle(spec, arrays)


def _version(spec: dict[str, Any], blob: bytes) -> str:
    text = json.dumps({k: v for k, v in spec.items() if k != "version"}, sort_keys=True)
    return hashlib.sha256(text.encode() + b"\0" + blob).hexdigest()
