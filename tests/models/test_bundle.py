"""Bundles: what is written is what is read, and nothing else is accepted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle, load_bundle
from models.scorer import Scorer


def small(name: str = "sdss", value: float = 1.0) -> Bundle:
    return Bundle({"format": 1, "name": name, "kind": "spectrum"}, {"a": np.array([value, 2.0])})


def test_what_is_written_is_read(tmp_path: Path, bundles: dict[str, Bundle]) -> None:
    bundle = replace(bundles["small"], spec=dict(bundles["small"].spec))
    back = load_bundle(bundle.save(tmp_path))
    assert back.spec == bundle.spec and back.arrays.keys() == bundle.arrays.keys()
    for name, array in bundle.arrays.items():
        assert back.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(back.arrays[name], array)


def test_a_folder_has_its_id_and_no_pickle(tmp_path: Path) -> None:
    bundle = small()
    folder = bundle.save(tmp_path)
    assert folder.name == bundle.id.replace("@", "-") and len(bundle.id) == len("sdss@") + 12
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "weights.safetensors"]
    assert list(tmp_path.iterdir()) == [folder]  # no partial folder is left


def test_equal_content_has_one_id(tmp_path: Path) -> None:
    assert small().save(tmp_path / "a").name == small().save(tmp_path / "b").name
    assert small().save(tmp_path / "a") == small().save(tmp_path / "a")
    others = [
        small(value=1.5),
        small(name="boss"),
        Bundle({**small().spec, "kind": "cutout"}, small().arrays),
    ]
    assert len({b.save(tmp_path / "a").name for b in [small(), *others]}) == 4


@pytest.mark.parametrize("file", ["model.json", "weights.safetensors"])
def test_tampering_is_found(file: str, tmp_path: Path) -> None:
    folder = small().save(tmp_path)
    content = (folder / file).read_bytes()
    old, new = (b'"spectrum"', b'"cutout"') if file == "model.json" else (content[-1:], b"\x41")
    start = content.rindex(old)
    (folder / file).write_bytes(content[:start] + new + content[start + len(old) :])
    with pytest.raises(ValueError, match="was changed after it was written"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{", "not a readable model bundle"),
        ("[1]", "not a readable model bundle"),
        (json.dumps({"format": 2}), "bundle format 2, this program reads format 1"),
        (json.dumps({"format": 1}), "was changed after it was written"),
    ],
)
def test_a_broken_bundle_is_a_clear_error(spec: str, message: str, tmp_path: Path) -> None:
    folder = small().save(tmp_path)
    (folder / "model.json").write_text(spec)
    with pytest.raises(ValueError, match=message):
        load_bundle(folder)


def test_missing_or_torn_weights_are_a_clear_error(tmp_path: Path) -> None:
    folder = small().save(tmp_path)
    (folder / "weights.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(ValueError, match="not a readable model bundle"):
        load_bundle(folder)
    with pytest.raises(ValueError, match="not a readable model bundle"):
        load_bundle(tmp_path / "nothing")


def test_scores_survive_the_disk(bundles: dict[str, Bundle], draw: Any, numbers: Any, tmp_path: Path) -> None:
    """A scorer made in memory and one read from disk agree to the last bit, and so do two readings."""
    import torch

    bundle = replace(bundles["spectrum"], spec=dict(bundles["spectrum"].spec))
    folder = bundle.save(tmp_path)
    batch = draw("spectrum", 20, 4)
    memory = numbers(Scorer.from_parts(bundle, torch.device("cpu")).score(batch))
    for scorer in (Scorer.from_bundle(folder, "cpu"), Scorer.from_bundle(str(folder), "cpu")):
        assert scorer.id == bundle.id
        for name, value in numbers(scorer.score(batch)).items():
            np.testing.assert_array_equal(value, memory[name], err_msg=name)
