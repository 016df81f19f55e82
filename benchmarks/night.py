"""What a night costs: objects per CPU-second and wall-second by stage, from small files and packed, beside a naive
script in the same run.

    python benchmarks/night.py [--sizes 1000 10000] [--large] [--kinds spectrum cutout] [--figure night-cost.png]

Everything is made here: the files by `peculiar simulate`, packs by `peculiar pack`, a model of each kind from few of
the files as `peculiar train` would, a catalog in SQLite. Each line is a process of its own with one thread, so that its
peak memory is its own. The naive script (benchmarks/naive.py) gets at most 1,000 of the files; in a second line for
spectra, "no z", it leaves the redshifts out, which are in a wide table that astropy is slow to open.
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.naive import Cost, night

N_TRAINING, N_NAIVE, BATCH = 2000, 1000, 256
STAGES = ("read", "score", "write", "all")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument(
        "--large", action="store_true", help="also 100,000 of each kind: 15 GB in the temporary folder"
    )
    parser.add_argument("--kinds", nargs="+", default=["spectrum", "cutout"])
    parser.add_argument("--figure", type=Path, default=Path("night-cost.png"))
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    sizes = sorted({*options.sizes, *([100_000] if options.large else [])})
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for kind in options.kinds:
            results += list(measure_kind(kind, sizes, Path(scratch)))
    draw(results, options.figure)
    print(f"figure: {options.figure}")


def measure_kind(kind: str, sizes: list[int], scratch: Path) -> Iterator[dict[str, Any]]:
    """Lines of the table, printed as they come."""
    folder = scratch / kind
    peculiar("simulate", kind, "--n", str(sizes[-1]), "--out", str(folder), "--seed", "5")
    files = sorted(map(str, folder.rglob("*.fits")))
    bundle = alone(train, kind, files[:N_TRAINING], str(scratch))
    print(
        f"\n{kind:8s} {'':8s} {'':>7s}"
        + "".join(f"{stage:>18s}" for stage in STAGES)
        + f"{'peak':>9s} {'× naive':>8s}"
    )
    print(
        f"{'':8s} {'':8s} {'N':>7s}"
        + "".join(f"{'/CPU s':>9s}{'/s':>9s}" for _ in STAGES)
        + f"{'MiB':>9s} {'CPU':>8s}"
    )
    naive = 0.0
    for n in sizes:
        listing, pack = scratch / "list.txt", scratch / f"{kind}.h5"
        listing.write_text("\n".join(files[:n]))
        peculiar("pack", f"@{listing}", "--out", str(pack))
        some = files[: min(n, N_NAIVE)]
        lines = {"naive": functools.partial(alone, measure_naive, kind, some)}
        if kind == "spectrum":
            lines["no z"] = functools.partial(alone, measure_naive, kind, some, False)
        lines["files"] = functools.partial(alone, measure, files[:n], bundle)
        lines["packed"] = functools.partial(alone, measure, [str(pack)], bundle)
        for form, run in lines.items():
            result = run() | {"kind": kind, "form": form, "n": n}
            naive = result["all"][0] if form == "naive" else naive
            result["ratio"] = result["all"][0] / naive
            rates = "".join(f"{cpu:9.0f}{wall:9.0f}" for cpu, wall in (result[stage] for stage in STAGES))
            print(
                f"{kind:8s} {form:8s} {n:7d}{rates}{result['peak']:9.0f} {result['ratio']:8.1f}", flush=True
            )
            yield result
        pack.unlink()


def peculiar(*arguments: str) -> None:
    program = "import sys; from service.cli import main; main(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, stdout=subprocess.DEVNULL)


def alone(function: Any, *arguments: Any) -> Any:
    """Call a function in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def train(kind: str, files: list[str], scratch: str) -> str:
    """Folder of a new bundle."""
    from service.settings import Settings
    from workers.training import train as train_on

    url = f"sqlite:///{scratch}/training.db"
    settings = Settings(_env_file=None, database_url=url, model_dir=Path(scratch) / "models", device="cpu")
    bundle = train_on(settings, kind, files, kind).bundle
    print(f"{kind} model: {bundle.spec['network']}", flush=True)
    return str(settings.model_dir / bundle.id.replace("@", "-"))


def measure_naive(kind: str, files: list[str], redshifts: bool = True) -> dict[str, Any]:
    night(kind, files[:20], redshifts)  # imports and first calls off the clock
    return rates(night(kind, files, redshifts), len(files))


def rates(costs: dict[str, Cost], n: int) -> dict[str, Any]:
    """Objects per CPU-second and wall-second by stage, and the peak memory in MiB."""
    if "all" not in costs:
        costs["all"] = Cost(sum(c.cpu for c in costs.values()), sum(c.wall for c in costs.values()))
    figures: dict[str, Any] = {stage: (n / cost.cpu, n / cost.wall) for stage, cost in costs.items()}
    return figures | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def measure(inputs: list[str], bundle: str) -> dict[str, Any]:
    """One night through the worker's own code: stage by stage, then as a whole with runs and ledger."""
    import torch

    from models.scorer import Scorer
    from service.catalog.engine import open_catalog
    from service.catalog.registry import register_model
    from service.catalog.rows import ModelRow
    from service.catalog.runs import open_run
    from workers import pipeline
    from workers.memory import keep_freed_memory
    from workers.readers import find_inputs
    from workers.reading import read_inputs

    torch.set_num_threads(1)
    keep_freed_memory()
    scorer = Scorer.from_bundle(bundle, device="cpu")
    models = {scorer.kind: scorer.id}
    with tempfile.TemporaryDirectory() as folder:
        engine = open_catalog(f"sqlite:///{folder}/catalog.db", create=True)
        register_model(engine, ModelRow(scorer.id, scorer.kind, scorer.kind, bundle, N_TRAINING, None, [1.0]))
        paths = find_inputs(inputs).paths
        chunks = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
        score_all(chunks[:1], engine, models, scorer, "warm")  # imports and first calls off the clock
        whole = Cost()
        with whole.counting():
            score_all(chunks, engine, models, scorer, "night")
        costs = {stage: Cost() for stage in ("read", "score", "write")}
        run = open_run(engine, "stages", "all", date(2026, 1, 1), models)
        for chunk in chunks:
            with costs["read"].counting():
                samples = list(read_inputs(chunk))
            with costs["score"].counting():
                at_hand = pipeline.score_paths(
                    chunk, models, date(2026, 1, 1), lambda _: scorer, lambda _, samples=samples: samples
                )
                done = list(at_hand)
            with costs["write"].counting():
                for rows in done:
                    pipeline.write(engine, run, rows.scored, rows.rejected)
        return rates(costs | {"all": whole}, len(paths))


def score_all(chunks: list[list[str]], engine: Any, models: dict[str, str], scorer: Any, key: str) -> None:
    from service.catalog.runs import add_inputs, open_run
    from service.queue import Manifest
    from service.submission import file_state
    from workers.pipeline import score_manifest

    day = date(2026, 1, 1)
    run = open_run(engine, key, "all", day, models)
    add_inputs(engine, run, (file_state(path) for chunk in chunks for path in chunk))
    for chunk in chunks:
        manifest = Manifest(run=run, night=day, models=models, paths=chunk)
        score_manifest(engine, manifest, lambda _: scorer)


def draw(results: list[dict[str, Any]], figure: Path) -> None:
    """CPU milliseconds per object against the number of objects."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    kinds = list(dict.fromkeys(result["kind"] for result in results))
    _, axes = plt.subplots(1, len(kinds), figsize=(4.5 * len(kinds), 3.6), squeeze=False, sharey=True)
    for axis, kind in zip(axes[0], kinds, strict=True):
        for form, mark in (("naive", "s-"), ("files", "o-"), ("packed", "^-")):
            mine = [result for result in results if (result["kind"], result["form"]) == (kind, form)]
            axis.loglog([r["n"] for r in mine], [1e3 / r["all"][0] for r in mine], mark, label=form)
        axis.set(title=kind, xlabel="objects in the night")
        axis.grid(alpha=0.3, which="both")
    axes[0][0].set_ylabel("CPU time per object [ms]")
    axes[0][0].legend(frameon=False)
    plt.tight_layout()
    plt.savefig(figure, dpi=150)


if __name__ == "__main__":
    main()
