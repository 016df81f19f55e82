"""How fast a device embeds and scores, and how near that comes to what the device can do.

    python benchmarks/gpu.py [--device cuda] [--kinds spectrum cutout] [--batch 4096] [--seconds 5]

Prints, for each kind of input, objects a second of

- resident: normalised values lie on the device; posterior and all parts of the score;
- end to end: inputs in the host's memory in, calibrated scores out.

Beside them stand the rate of multiply-adds that was reached, as a share of what one large matrix product in single
precision reaches on this device in the same run, and the least traffic (each input value read once) as a share of what
copying a large array reaches. Both limits are measured, not taken from a data sheet.

The models are trained here, on simulated files, in few epochs: their size is that of any model.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.batch import Batch, CutoutBatch, SpectrumBatch
from models.fit import fit_cutouts, fit_spectra
from models.parts import weigh
from models.scorer import Scorer, pick_device
from workers.batching import groups, make_batch
from workers.readers import Rejection, read_all
from workers.simulate import simulate

N_TRAINING, EPOCHS = 1000, 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--kinds", nargs="+", default=["spectrum", "cutout"])
    parser.add_argument("--batch", type=int, default=4096, help="objects on the device at a time")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options = parser.parse_args()
    device = pick_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    flops, bandwidth = limits(device, options.seconds)
    print(f"{name}, torch {torch.__version__}: {flops / 1e12:.2f} TFLOP/s, {bandwidth / 1e9:.0f} GB/s")
    print(f"{'':10s}{'resident /s':>13s}{'of FLOP':>9s}{'of traffic':>12s}{'end to end /s':>15s}")
    for kind in options.kinds:
        scorer, batch = prepare(kind, device, options.batch)
        resident, work = on_device(scorer, batch, options.seconds)
        whole = len(batch) / seconds(functools.partial(scorer.score, batch), device, options.seconds)
        traffic = 2 * 4 * batch.flux[0].size * resident / bandwidth
        print(
            f"{kind:10s}{resident:13.0f}{work * resident / flops:9.1%}{traffic:12.1%}{whole:15.0f}",
            flush=True,
        )


def limits(device: torch.device, duration: float) -> tuple[float, float]:
    """FLOP/s of a large matrix product in single precision, and bytes a second of a copy (read and written)."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    product = seconds(lambda: a @ b, device, duration)
    copied = torch.empty_like(a)
    copy = seconds(lambda: copied.copy_(a), device, duration)
    return 2 * side**3 / product, 2 * a.nbytes / copy


def prepare(kind: str, device: torch.device, n: int) -> tuple[Scorer, Batch]:
    """A model of this kind on the device, and a batch of n simulated objects."""
    with tempfile.TemporaryDirectory() as folder:
        simulate(kind, N_TRAINING, Path(folder), seed=5)
        files = sorted(map(str, Path(folder).rglob("*.fits")))
        samples = [result for result in read_all(files) if not isinstance(result, Rejection)]
    batch = make_batch(max(groups(samples), key=len))
    if isinstance(batch, SpectrumBatch):
        bundle = fit_spectra(batch, "bench", fingerprint="", epochs=EPOCHS)
    else:
        bundle = fit_cutouts([batch], ("g", "r", "i"), "bench", fingerprint="", epochs=EPOCHS)
    rows = np.arange(n) % len(batch)
    if isinstance(batch, SpectrumBatch):
        many: Batch = SpectrumBatch(
            batch.flux[rows], batch.ivar[rows], batch.first[rows], batch.redshift[rows]
        )
    else:
        many = CutoutBatch(batch.flux[rows], batch.ivar[rows])
    return Scorer.from_parts(bundle, device), many


def on_device(scorer: Scorer, batch: Batch, duration: float) -> tuple[float, float]:
    """Objects a second once their values are on the device, and floating-point operations of one object."""
    with torch.no_grad():
        data = scorer.prepare(batch)
        with FlopCounterMode(display=False) as counter:
            weigh(scorer.fitted, data)
        took = seconds(lambda: weigh(scorer.fitted, data), scorer.device, duration)
    return len(batch) / took, counter.get_total_flops() / len(batch)


def seconds(call: Callable[[], object], device: torch.device, duration: float) -> float:
    """Wall seconds of one call, the mean over ``duration`` seconds of calls after a first one off the clock."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    call()
    wait()
    n, start = 0, time.perf_counter()
    while n == 0 or time.perf_counter() - start < duration:
        call()
        n += 1
        wait()
    return (time.perf_counter() - start) / n


if __name__ == "__main__":
    main()
