"""Packed files give back what the readers made of the originals; damaged ones give reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from service.cli.pack import command
from workers.readers import Cutout, Rejection, Spectrum, find_inputs, read, read_all, reasons

from .conftest import image, spectrum_hdus, to_bytes


@pytest.fixture
def originals(tmp_path: Path) -> list[str]:
    """Spectra of two lengths, cutouts of two shapes and a broken file, mixed."""
    folder = tmp_path / "night"
    folder.mkdir()
    contents = {
        "a.fits": to_bytes(spectrum_hdus(n=200)),
        "b.fits": to_bytes(fits.PrimaryHDU(image(20, 24))),
        "c.fits": b"no FITS",
        "d.fits": to_bytes(spectrum_hdus(n=150, header={"PLATEID": 1, "MJD": 56000, "FIBERID": 2})),
        "e.fits": to_bytes(fits.PrimaryHDU(image(32, 32, seed=2))),
        "f.fits": to_bytes(fits.PrimaryHDU(image(20, 24, seed=3))),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in contents]


@pytest.fixture
def pack(originals: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "night.h5"
    ran = CliRunner().invoke(command, [str(Path(originals[0]).parent), "--out", str(path)])
    assert ran.exit_code == 0, ran.output
    assert "2 spectra, 3 cutouts, rejected 1" in ran.output
    return path


def same(one: Any, other: Any) -> bool:
    """Equal but for the path."""
    names = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ()) if name != "path"]
    return type(one) is type(other) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in names
    )


def test_members_are_what_the_readers_made_of_the_files(pack: Path, originals: list[str]) -> None:
    found = find_inputs([str(pack)])
    assert found.paths == [f"{pack}#{n}" for n in range(6)]
    for order in (slice(None), slice(None, None, -1), slice(1, None, 2)):
        members = list(read_all(found.paths[order]))
        assert [member.path for member in members] == found.paths[order]
        assert all(map(same, members, read_all(originals[order])))
    kinds = [type(member) for member in read_all(found.paths)]
    assert kinds == [Spectrum, Cutout, Rejection, Spectrum, Cutout, Cutout]


def test_a_pack_in_a_folder_is_found_and_may_be_packed_again(pack: Path, tmp_path: Path) -> None:
    assert f"{pack}#5" in find_inputs([str(tmp_path)]).paths
    again = tmp_path / "again.hdf5"
    assert CliRunner().invoke(command, [str(pack), "--out", str(again)]).exit_code == 0
    assert same(read(f"{again}#4"), read(f"{pack}#4"))


def test_provenance_is_kept(pack: Path, originals: list[str]) -> None:
    with h5py.File(pack) as file:
        assert file.attrs["format"] == "peculiar pack" and str(file.attrs["program"]).startswith("peculiar ")
        assert originals[3] in file["members"][3].decode()


def test_a_pack_is_opened_once_for_a_manifest(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    honest = h5py.File
    monkeypatch.setattr(h5py, "File", lambda *args: opened.append(args) or honest(*args))
    assert len(list(read_all([f"{pack}#{n}" for n in (0, 1, 4, 5)]))) == 4
    assert len(opened) == 1


def test_members_that_are_not_there(pack: Path) -> None:
    members = list(read_all([f"{pack}#5", f"{pack}#6", f"{pack}#999", "/gone.h5#0"]))
    assert isinstance(members[0], Cutout)
    assert [member.reason for member in members[1:] if isinstance(member, Rejection)] == [
        reasons.BROKEN_PACK, reasons.BROKEN_PACK, reasons.MISSING,
    ]  # fmt: skip


def test_damaged_packs_give_reasons(pack: Path) -> None:
    content = pack.read_bytes()
    for damaged, reason in (
        (content[: len(content) // 2], reasons.BROKEN_PACK), (b"", reasons.BROKEN_PACK),
        (b"SIMPLE  =", reasons.BROKEN_PACK),
    ):  # fmt: skip
        pack.write_bytes(damaged)
        assert find_inputs([str(pack)]).paths == [str(pack)]
        for path in (str(pack), f"{pack}#0"):
            result = read(path)
            assert isinstance(result, Rejection) and result.reason == reason and result.path == path
    random = np.random.default_rng(3)
    for _ in range(60):
        bytes_ = np.frombuffer(content, np.uint8).copy()
        bytes_[random.integers(0, 6000, 20)] = random.integers(0, 256, 20)
        pack.write_bytes(bytes_.tobytes())
        paths = [f"{pack}#{n}" for n in range(6)]
        assert [result.path for result in read_all(paths)] == paths


def test_other_hdf5_files_are_no_packs(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["image"] = np.zeros(5)
    result = read(str(path))
    assert isinstance(result, Rejection) and result.reason == reasons.NOT_A_PACK


def test_a_member_with_bad_values_costs_only_itself(pack: Path) -> None:
    with h5py.File(pack, "r+") as file:
        file["group0/flux"][3] = np.nan
    found = list(read_all([f"{pack}#{n}" for n in range(4)]))
    assert [type(result) for result in found] == [Rejection, Cutout, Rejection, Spectrum]
    assert found[0].reason == reasons.BROKEN_PACK  # type: ignore[union-attr]  # a rejection


def test_an_interrupted_packing_leaves_nothing(originals: list[str], tmp_path: Path) -> None:
    from workers.readers.pack import PackWriter

    with pytest.raises(KeyError), PackWriter(tmp_path / "half.h5", "test") as writer:
        writer.append([read(originals[0])])
        raise KeyError
    assert not list(tmp_path.glob("half*"))


N_FIBRES, N_PIXELS = 3, 120


@pytest.fixture
def plate(tmp_path: Path) -> str:
    shape = (N_FIBRES, N_PIXELS)
    flux = np.random.default_rng(1).normal(5, 1, shape).astype("f4")
    masks = np.zeros(shape, "i4")
    masks[0, 7] = 1 << 24
    plugs = np.array(
        [(n + 1, 10.0 + n, -1.0, "GALAXY") for n in range(N_FIBRES)],
        [("FIBERID", "i4"), ("RA", "f8"), ("DEC", "f8"), ("OBJTYPE", "S16")],
    )
    primary = fits.PrimaryHDU(
        flux, fits.Header({"COEFF0": 3.58, "COEFF1": 1e-4, "PLATEID": 266, "MJD": 51602})
    )
    planes = [fits.ImageHDU(a) for a in (np.full(shape, 4, "f4"), masks, masks, np.ones(shape, "f4"))]
    fits.HDUList([primary, *planes, fits.BinTableHDU(plugs)]).writeto(tmp_path / "spPlate-0266-51602.fits")
    best = np.array(
        [(3, 0.3, 4, "QSO"), (1, 0.1, 0, "GALAXY")],
        [("FIBERID", "i4"), ("Z", "f4"), ("ZWARNING", "i4"), ("CLASS", "S6")],
    )
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(best)]).writeto(tmp_path / "spZbest-0266-51602.fits")
    return str(tmp_path / "spPlate-0266-51602.fits")


def test_the_fibres_of_a_plate(plate: str) -> None:
    paths = find_inputs([plate]).paths
    assert paths == [f"{plate}#{n}" for n in (1, 2, 3)]
    first, second, third = read_all(paths)
    assert isinstance(first, Spectrum) and isinstance(second, Spectrum) and isinstance(third, Spectrum)
    assert (first.object_id, first.survey, first.path, first.first) == (
        "0266-51602-0001",
        "SDSS",
        paths[0],
        35800,
    )
    assert (third.redshift, third.zwarning, third.spectral_class) == (pytest.approx(0.3), 4, "QSO")
    assert (second.redshift, second.flags, third.flags) == (None, {"no-catalogue"}, set())
    assert (first.ra, third.ra, first.object_type) == (10.0, 12.0, "GALAXY")
    assert np.flatnonzero(first.ivar == 0).tolist() == [7] and (second.ivar == 4).all()
    assert len({first.sha256, second.sha256, third.sha256}) == 3
    np.testing.assert_array_equal(second.flux, fits.getdata(plate)[1])


def test_plates_that_are_none(plate: str) -> None:
    missing = read(f"{plate}#4")
    assert isinstance(missing, Rejection) and missing.reason == reasons.NO_MEMBER
    Path(plate).write_bytes(to_bytes(fits.PrimaryHDU(image())))
    assert find_inputs([plate]).paths == [plate]
    odd = read(f"{plate}#1")
    assert isinstance(odd, Rejection) and odd.reason == reasons.NOT_A_PLATE
    assert isinstance(read(plate), Cutout)
