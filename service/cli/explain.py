"""`peculiar explain`: one object, drawn with what makes it an outlier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from service.cli import console


@click.command
@click.argument("object_id", metavar="OBJECT")
@click.option(
    "--kind", type=click.Choice(["spectrum", "cutout"]), help="Where both have an object of this name."
)
@click.option("--model", help="Name or id of the model; the one that scored the object last unless given.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="PNG to draw; OBJECT.png unless given."
)
@console.as_json
def command(object_id: str, kind: str | None, model: str | None, out: Path | None, as_json: bool) -> None:
    """Explain why an object is an outlier, and draw it.

    Names the stretches of the spectrum, or the regions of the cutout, that depart most from what the model
    expects, the share of each part in the score, and the nearest normal objects.

    An outlier is drawn as it was scored, even where its file is gone; any other object's file is read again.
    """
    from models.explain import explain, likelihood_regret
    from models.explanation import Explanation
    from service import drawing
    from service.catalog.engine import open_catalog
    from service.catalog.queries import explained, neighbours

    settings = console.load_settings()
    engine = open_catalog(settings.database_url)
    row = explained(engine, object_id, model, kind)
    try:
        scorer, batch = model_and_input(settings, row)
        regret = likelihood_regret(scorer, batch)
    except (OSError, ValueError) as error:
        if not row["data"]:
            raise
        console.note(f"drawn as it was scored, without the likelihood regret: {error}")
        regret = None
    explanation = Explanation.from_bytes(row["data"]) if row["data"] else explain(scorer, batch)
    near = neighbours(engine, object_id, 5, row["model"], row["kind"])
    out = out or Path(f"{object_id.replace('/', '_')}.png")
    title = drawing.title_of(object_id, row["score"], row["p_value"])
    out.write_bytes(drawing.picture(explanation, title))
    if as_json:
        console.write_json(
            {
                "object_id": object_id,
                "model": row["model"],
                "score": row["score"],
                "p_value": row["p_value"],
                "shares": explanation.shares,
                "likelihood_regret": regret,
                "windows": explanation.named_windows(),
                "neighbours": near,
                "picture": str(out),
            }
        )
        return
    click.echo(title)
    for name, share in sorted(explanation.shares.items(), key=lambda item: -item[1]):
        click.echo(f"  {share:4.0%} of the score from {name}")
    for window in explanation.windows:
        click.echo(f"  {describe(window)}")
    if regret is not None:
        click.echo(
            f"  likelihood regret: {regret:.1f} nats (the encoder's answer was that far from the best)"
        )
    nearest = ", ".join(f"{n['object_id']} (p = {n['p_value']:.2g})" for n in near)
    click.echo(f"  nearest in latent space: {nearest or 'no other object yet'}")
    click.echo(f"drawn to {out}")


def model_and_input(settings: Any, row: dict[str, Any]) -> tuple[Any, Any]:
    """The scorer of a row and the batch of its one input. Raises OSError or ValueError where one is gone."""
    from workers.batching import make_batch
    from workers.readers import read
    from workers.readers.sample import Rejection
    from workers.tasks import load_bundle

    sample = read(row["path"])
    if isinstance(sample, Rejection):
        raise ValueError(f"{row['path']} can no longer be read: {sample.reason}")
    return load_bundle(settings, row["model"]), make_batch([sample])


def describe(window: Any) -> str:
    """One window in words."""
    what = "excess" if window.significance > 0 else "deficit"
    if hasattr(window, "line"):
        line = f", at {window.line}" if window.line else ""
        return (
            f"{abs(window.significance):5.1f} σ {what} at {window.low:.0f}–{window.high:.0f} Å (rest){line}"
        )
    return (
        f"{abs(window.significance):5.1f} σ {what} in {window.band}, {window.size} × {window.size} pixels at radius "
        f"{window.radius:.0f}, position angle {window.position_angle:.0f}°"
    )
