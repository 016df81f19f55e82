"""Where the time of scoring goes: CPU microseconds an object of every step, on one core.

    python -m benchmarks.scoring [--kinds spectrum cutout] [--batch 256] [--seconds 10]

Each step is a function of models/, timed inside of whole calls of ``Scorer.score``; a step within another is not
counted twice. The models are trained here, on simulated files, in few epochs: their size is that of any model.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

import models.appearance
import models.calibration
import models.explanation
import models.flow
import models.mixture
import models.parts
import models.scorer
import models.vae
from benchmarks.gpu import prepare
from workers.memory import keep_freed_memory

STEPS: dict[str, list[tuple[Any, str]]] = {
    "preparing": [(models.scorer.Scorer, "prepare")],
    "linear posterior": [(models.vae.VAE, "linear_posterior")],
    "encoder": [(models.vae.VAE, "encode")],
    "bounds": [(models.parts, "_bounds")],
    "mixture": [(models.mixture.Mixture, "log_joint"), (models.vae.Posterior, "log_evidence_gain")],
    "windows": [(models.parts, "_worst_window"), (models.parts, "_quietest")],
    "neighbours": [(models.parts, "_remoteness")],
    "flow": [(models.flow.LatentFlow, "log_prob")],
    "description": [(models.appearance, "describe")],
    "appearance": [(models.appearance.Appearance, "strangeness")],
    "other parts": [(models.scorer, "weigh")],
    "calibration": [
        (models.calibration.Calibration, "surprisals"),
        (models.calibration.Calibration, "part_p_values"),
    ],
    "choice of windows": [(models.scorer, "windows_of")],
    "packed explanations": [(models.explanation.Explanation, "to_bytes")],
    "the rest": [(models.scorer.Scorer, "score")],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", default=["spectrum", "cutout"])
    parser.add_argument(
        "--batch", type=int, default=256, help="objects in a call, as in a message of the queue"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    options = parser.parse_args()
    costs = {kind: measured(kind, options.batch, options.seconds) for kind in options.kinds}
    print(f"{'CPU µs an object':22s}" + "".join(f"{kind:>10s}" for kind in options.kinds))
    for step in [*STEPS, "all"]:
        print(f"{step:22s}" + "".join(f"{costs[kind][step]:10.0f}" for kind in options.kinds))


def measured(kind: str, n: int, duration: float) -> dict[str, float]:
    """``cost_of_steps`` of scoring n objects of a kind."""
    scorer, batch = prepare(kind, torch.device("cpu"), n)
    torch.set_num_threads(1)
    keep_freed_memory()
    scorer.score(batch)
    return cost_of_steps(lambda: scorer.score(batch), duration, len(batch))


def cost_of_steps(call: Callable[[], object], duration: float, n: int) -> dict[str, float]:
    """CPU microseconds of every step for each of n objects, over some seconds of calls."""
    spent: Counter[str] = Counter()
    running = ["outside"]
    since = time.process_time()

    @contextmanager
    def doing(step: str) -> Iterator[None]:
        nonlocal since
        for name in (step, None):
            now = time.process_time()
            spent[running[-1]] += now - since
            since = now
            if name is None:
                running.pop()
            else:
                running.append(name)
                yield

    def timed(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with doing(step):
                return function(*args, **kwargs)

        return wrapper

    with ExitStack() as stack:
        for step, functions in STEPS.items():
            for owner, name in functions:
                stack.enter_context(mock.patch.object(owner, name, timed(step, getattr(owner, name))))
        end, calls = time.process_time() + duration, 0
        while time.process_time() < end:
            call()
            calls += 1
    microseconds = {step: 1e6 * spent[step] / n / calls for step in STEPS}
    return microseconds | {"all": sum(microseconds.values())}


if __name__ == "__main__":
    main()
