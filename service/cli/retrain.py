"""`peculiar retrain`: a model of the last nights, in force where it is no worse."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from service.cli import console
from service.cli.score import report


@click.command
@click.argument("kind", type=click.Choice(["spectrum", "cutout"]))
@click.option(
    "--nights", type=click.IntRange(min=1), default=30, show_default=True, help="How many to train on."
)
@click.option(
    "--limit", type=click.IntRange(min=20), default=20_000, show_default=True, help="Files, drawn at random."
)
@click.option("--epochs", type=click.IntRange(min=0), help="As for `peculiar train`.")
@click.option("--seed", type=int, default=0, show_default=True)
@console.as_json
def command(kind: str, nights: int, limit: int, epochs: int | None, seed: int, as_json: bool) -> None:
    """Train on the last nights in the catalog; promote the result where it is no worse than the model in force.

    Both score the same held-out files, which the new one has not seen. No worse means: χ² per degree of freedom is
    as near to 1 within one standard error, and the p-values are uniform. Objects labelled as not ordinary and
    nights with an instrument problem are left out.
    """
    from workers.retraining import retrain

    settings = console.load_settings()
    with console.stages() as progress:
        done = retrain(settings, kind, nights, limit, epochs, seed, progress, console.login_name())
    new = done.trained.bundle.id
    for reason, count in done.trained.left_out.most_common():
        console.note(f"left out {count} × {reason}")
    result: dict[str, Any] = {"model": new, "promoted": done.in_force == new, "in_force": done.in_force}
    text = f"model {new}"
    if done.verdict is not None:
        v = done.verdict
        result |= asdict(v)
        text += (
            f"\n  on {v.n} held-out objects |ln χ²| {v.misfit:.3f}, of the model in force {v.misfit_in_force:.3f}; "
            f"difference {v.difference:+.3f} ± {v.standard_error:.3f}"
            f"\n  p-values at most {v.p_value_gap:.3f} from uniform, allowed {v.p_value_limit:.3f}"
        )
    text += f"\n  in force: {done.in_force}" + ("" if result["promoted"] else ", since the new one is worse")
    report(result, as_json, text)
