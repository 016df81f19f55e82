"""The commands that read the catalog: what they print, where, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from service.catalog.columns import NAMES
from service.catalog.engine import head_revision
from service.catalog.labels import Label, record_labels
from service.catalog.rows import RejectedRow
from service.catalog.runs import finish_if_complete
from service.catalog.writer import write_batch
from service.cli import main

Run = Callable[..., Result]


@pytest.fixture
def peculiar(empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line on this test's database, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PECULIAR_DATABASE_URL", empty_url)

    def run(*arguments: str | Path, code: int = 0) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def filled(engine: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any]) -> sa.Engine:
    rows = [make_row(i) for i in range(12)]
    rows.append(
        make_row(3, kind="cutout", survey="hsc", model=models["cutout"], path="/data/c.fits", ra=None)
    )
    write_batch(engine, run, rows, [RejectedRow("/data/bad.fits", "truncated")])
    finish_if_complete(engine, run)
    return engine


def test_outliers_table(filled: sa.Engine, peculiar: Run) -> None:
    out = peculiar("outliers", "--limit", "3").stdout
    assert "spectrum, model sdss@0123456789ab" in out and "cutout, model lens@ba9876543210" in out
    order = [out.index(f"0266-51602-{i:04d}") for i in (11, 10, 9)]
    assert order == sorted(order)
    assert "0266-51602-0008" not in out
    assert "21.0000 -3.9000" in out and "no labels" in out
    assert out.count("resolves p-values down to 0.005") == 2


def test_outliers_json(filled: sa.Engine, peculiar: Run) -> None:
    rows = json.loads(peculiar("outliers", "--json", "--kind", "spectrum").stdout)
    assert [row["score"] for row in rows] == list(range(11, -1, -1))
    assert list(rows[0]) == [*NAMES, "chi2_tail", "chi2_tail_p"]
    assert len(json.loads(peculiar("outliers", "--json").stdout)) == 13


def test_outliers_filters(filled: sa.Engine, peculiar: Run) -> None:
    def count(*arguments: str) -> int:
        return len(json.loads(peculiar("outliers", "--json", *arguments).stdout))

    assert count("--model", "lens") == 1
    assert count("--cone", "13", "-4.7", "0.001") == 1
    assert count("--cone", "13", "-4.7", "1.5") == 3
    assert count("--fdr", "1") == 13
    assert count("--fdr", "0.0001") == 0


def test_outliers_with_many_filters(filled: sa.Engine, peculiar: Run) -> None:
    def found(*arguments: str) -> list[str]:
        rows = json.loads(peculiar("outliers", "--json", *arguments).stdout)
        return [row["object_id"][-2:] for row in rows]

    peculiar("label", "0266-51602-0010", "lens", "--by", "ann")
    assert found("--label", "lens") == ["10"]
    assert found("--labelled") == ["10"] and "10" not in found("--unlabelled")
    assert found("--kind", "spectrum", "--cluster", "1", "--lens-fraction", "0.5") == ["10", "07", "04", "01"]
    assert found("--search", "-0011", "--night", "2026-03-01", "--class", "galaxy", "--snr", "12") == ["11"]
    assert found("--since", "2026-03-02") == []
    assert found("--polygon", "12.5,-5,13.5,-5,13.5,-4,12.5,-4") == ["03"]
    assert found("--redshift", "0.05", "0.1", "--part", "chi2_tail", "0.5", "--no-flag", "duplicate") == [
        f"{i:02d}"
        for i in range(11, -1, -1)
        if i != 3  # whose bytes are the cutout's, too
    ]


def test_neighbours_of_an_object(filled: sa.Engine, peculiar: Run) -> None:
    rows = json.loads(peculiar("neighbours", "0266-51602-0005", "-k", "2", "--json").stdout)["neighbours"]
    assert {row["object_id"][-2:] for row in rows} == {"04", "06"} and rows[0]["distance"] > 0
    assert "nearest to 0266-51602-0005" in peculiar("neighbours", "0266-51602-0005").stdout
    assert "no object 'nope'" in peculiar("neighbours", "nope", code=1).output


def test_neighbours_of_a_file_that_is_none(filled: sa.Engine, peculiar: Run, tmp_path: Path) -> None:
    (tmp_path / "picture.gif").write_bytes(b"GIF89a")
    assert "picture.gif: not a FITS file" in peculiar("neighbours", "picture.gif", code=1).output


def test_a_kept_explanation_is_drawn(
    engine: sa.Engine, run: int, make_row: Callable[..., Any], packed: bytes, peculiar: Run
) -> None:
    write_batch(engine, run, [make_row(0), make_row(1, object_id="a/$b", explanation=packed)], [])
    result = peculiar("explain", "a/$b")
    out = result.stdout
    assert "without the likelihood regret" in result.stderr and "regret" not in out, "its file is gone"
    assert "100% of the score from misfit" in out and "9.3 σ excess at 4860–4866 Å (rest), at Hβ" in out
    assert "nearest in latent space: 0266-51602-0000" in out
    assert Path("a_$b.png").read_bytes().startswith(b"\x89PNG")
    said = json.loads(peculiar("explain", "a/$b", "--json", "--out", "x.png").stdout)
    assert said["shares"] == {"misfit": 1.0} and said["windows"][0]["line"] == "Hβ"
    assert Path("x.png").exists()
    assert "can no longer be read" in peculiar("explain", "0266-51602-0000", code=1).output
    assert "has no score by the model other" in peculiar("explain", "a/$b", "--model", "other", code=1).output


def test_the_card_of_a_cluster(
    engine: sa.Engine, run: int, make_row: Callable[..., Any], peculiar: Run
) -> None:
    """Cluster 1 has the objects 1, 4, 7 and 10; ann took back what she said of the first."""
    rows = [make_row(i, cluster_probability=0.9 if i == 7 else 0.8) for i in range(12)]
    write_batch(engine, run, rows, [])
    names = {i: f"0266-51602-{i:04d}" for i in range(12)}
    said = [(1, "lens", "ann"), (1, "not-lens", "ann"), (4, "lens", "ann"), (4, "interesting", "bob")]
    record_labels(engine, [Label(names[i], label, by) for i, label, by in [*said, (2, "lens", "ann")]])
    card = json.loads(peculiar("clusters", "--cluster", "1", "--limit", "3", "--json").stdout)
    assert (card["weight"], card["size"], card["n_labelled"], card["n_lens"]) == (0.3, 4, 2, 1)
    members = {sort: [row["object_id"] for row in card[sort]] for sort in ("typical", "anomalous", "lenses")}
    assert members == {
        "typical": [names[7], names[1], names[4]],
        "anomalous": [names[10], names[7], names[4]],
        "lenses": [names[4]],
    }
    assert [row["labels"] for row in card["typical"]] == [[], ["not-lens"], ["lens", "interesting"]]
    out = peculiar("clusters", "--cluster", "1", "--model", "sdss").stdout
    assert out.index("most typical") < out.index("most anomalous") < out.index("labelled as lenses")
    assert "14.0000 -4.6000" in out and "lens, interesting" in out and names[3] not in out
    assert "labelled as lenses: none" in peculiar("clusters", "--cluster", "0").stdout
    assert "no cluster 9" in peculiar("clusters", "--cluster", "9", code=1).output


def test_a_card_is_of_one_model(filled: sa.Engine, peculiar: Run) -> None:
    assert "say which with --model" in peculiar("clusters", "--cluster", "0", code=1).output
    assert "hsc" not in peculiar("clusters", "--cluster", "0", "--model", "sdss").output


def test_nothing_found_is_said(filled: sa.Engine, peculiar: Run) -> None:
    result = peculiar("outliers", "--cone", "0", "90", "1")
    assert result.stdout == "" and "no object fits" in result.stderr


def test_an_empty_catalog_is_no_error(catalog_url: str, peculiar: Run) -> None:
    for name in ("outliers", "clusters"):
        result = peculiar(name)
        assert result.stdout == "" and "peculiar score" in result.stderr
        assert json.loads(peculiar(name, "--json").stdout) == []


@pytest.mark.parametrize(
    "command", [["outliers"], ["clusters"], ["export", "--out", "c.csv"], ["db", "check"]]
)
def test_a_missing_catalog_says_what_to_run(peculiar: Run, command: list[str], tmp_path: Path) -> None:
    result = peculiar(*command, code=1)
    assert "peculiar db upgrade" in result.stderr and result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_db_upgrade_and_check(peculiar: Run) -> None:
    assert f"schema none → {head_revision()}" in peculiar("db", "upgrade").stdout
    assert "up to date" in peculiar("db", "check").stdout
    assert f"schema {head_revision()} → {head_revision()}" in peculiar("db", "upgrade").stdout


def test_labels_make_lens_fractions(filled: sa.Engine, peculiar: Run, tmp_path: Path) -> None:
    assert "no labels" in peculiar("clusters").stdout
    assert peculiar("label", "0266-51602-0000", "lens", "--by", "ann").stdout == "labelled 1 object\n"
    file = tmp_path / "labels.csv"
    file.write_text("object_id,label,by\n0266-51602-0003,lens,ann\n0266-51602-0006,not-lens,\n")
    assert peculiar("label", "--file", file).stdout == "labelled 3 objects\n"  # 0003 is a cutout, too
    rows = json.loads(peculiar("clusters", "--json", "--model", "sdss").stdout)
    assert (rows[0]["n_labelled"], rows[0]["n_lens"]) == (3, 2)
    assert rows[0]["lens_fraction"] == pytest.approx(2.5 / 4) and rows[1]["lens_fraction"] is None
    table = peculiar("clusters", "--model", "sdss").stdout
    assert "0.625" in table and "no labels" in table


def test_labels_of_unknown_objects(filled: sa.Engine, peculiar: Run, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("object_id,label\n0266-51602-0000,lens\nnope,lens\n")
    assert "not in the catalog: nope" in peculiar("label", "--file", file, code=1).stderr
    assert all(row["n_labelled"] == 0 for row in json.loads(peculiar("clusters", "--json").stdout))


def test_export(filled: sa.Engine, peculiar: Run, tmp_path: Path) -> None:
    assert peculiar("export", "--out", "c.csv").stdout == "wrote 13 rows to c.csv\n"
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 14
    assert peculiar("export", "--out", "c.parquet", "--model", "lens").stdout == "wrote 1 row to c.parquet\n"
    assert peculiar("export", "--failures", "--out", "f.csv").stdout == "wrote 1 row to f.csv\n"
    assert "/data/bad.fits,truncated" in (tmp_path / "f.csv").read_text()


WRONG_USAGE = [
    (["outliers", "--kind", "galaxy"], 2, "galaxy"),
    (["outliers", "--limit", "0"], 2, "limit"),
    (["outliers", "--fdr", "2"], 2, "fdr"),
    (["outliers", "--cone", "1", "2"], 2, "cone"),
    (["outliers", "--cone", "1", "91", "1"], 1, "between -90 and 90"),
    (["outliers", "--cluster", "1"], 1, "which kind or model"),
    (["outliers", "--part", "nope", "0.1"], 1, "there are chi2_tail"),
    (["outliers", "--redshift", "2", "1"], 1, "no redshift lies between"),
    (["outliers", "--polygon", "1,2"], 1, "3 to 100"),
    (["outliers", "--night", "today"], 2, "not a date"),
    (["outliers", "--model", "nope"], 1, "no model is called 'nope'"),
    (["clusters", "--model", "nope"], 1, "no model is called 'nope'"),
    (["label"], 2, "OBJECT and a LABEL"),
    (["label", "0266-51602-0000"], 2, "OBJECT and a LABEL"),
    (["label", "nope", "lens"], 1, "not in the catalog: nope"),
    (["label", "--file", "nope.csv"], 2, "nope.csv"),
    (["export"], 2, "--out"),
    (["export", "--out", "catalog.docx"], 2, "names no format"),
    (["export", "--out", "no/folder/c.csv"], 1, "cannot write"),
    (["export", "--out", "c.csv", "--model", "nope"], 1, "no model is called 'nope'"),
    (["export", "--out", "c.csv", "--model", "sdss", "--failures"], 2, "leave out --model"),
    (["serve", "--port", "99999"], 2, "port"),
]


def test_wrong_usage(filled: sa.Engine, peculiar: Run) -> None:
    for arguments, code, words in WRONG_USAGE:
        result = peculiar(*arguments, code=code)
        assert words in result.stderr and result.stdout == "", arguments
