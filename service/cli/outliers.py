"""`peculiar outliers`: the most anomalous objects."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import click

from service.cli import console

COLUMNS = ("object", "kind", "score", "p", "q", "S/N", "RA, Dec", "cluster", "lens fraction", "flags")


@click.command
@click.option("--kind", type=click.Choice(["spectrum", "cutout"]), help="Only this kind of input.")
@click.option("--model", help="Name or id of the model; the newest that has scores unless given.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many of each kind."
)
@click.option(
    "--fdr",
    type=click.FloatRange(0, 1),
    metavar="Q",
    help="Only objects with q-value ≤ Q: among them a share of about Q are false discoveries.",
)
@click.option(
    "--cone", nargs=3, type=float, metavar="RA DEC RADIUS", help="Only this circle; all in degrees, ICRS."
)
@click.option(
    "--polygon", metavar="RA,DEC,…", help="Only this convex polygon: its vertices in degrees, ICRS."
)
@click.option("--night", callback=console.parse_night, metavar="YYYY-MM-DD", help="Only this night.")
@click.option("--since", callback=console.parse_night, metavar="YYYY-MM-DD", help="This night or later.")
@click.option("--cluster", type=click.IntRange(0, 2**31 - 1), help="Only this cluster of a model.")
@click.option(
    "--part",
    type=(str, click.FloatRange(0, 1)),
    metavar="NAME P",
    help="Only where this part of the score has a p-value ≤ P of its own.",
)
@click.option("--lens-fraction", type=click.FloatRange(0, 1), help="Expected share of lenses at least this.")
@click.option("--snr", type=float, help="Signal-to-noise ratio at least this.")
@click.option("--redshift", nargs=2, type=float, metavar="LOW HIGH", help="Redshift within these.")
@click.option("--class", "spectral_class", help="Spectral class: GALAXY, QSO, STAR.")
@click.option("--label", help="Only what somebody's newest label calls so.")
@click.option("--labelled/--unlabelled", default=None, help="Only what has labels, or has none.")
@click.option("--no-flag", metavar="FLAG", help="Only rows without this flag, such as outside-domain.")
@click.option("--search", metavar="TEXT", help="Only objects with this text in their identity.")
@click.option(
    "--flagged", is_flag=True, help="With --fdr: also from runs that look like an instrument problem."
)
@click.option(
    "--for",
    "who",
    metavar="NAME",
    help="Ranked by what this person's labels say; at most 10,000 of each kind.",
)
@console.as_json
def command(
    kind: str | None,
    model: str | None,
    limit: int,
    fdr: float | None,
    cone: tuple[float, float, float] | None,
    polygon: str | None,
    night: date | None,
    since: date | None,
    snr: float | None,
    redshift: tuple[float, float] | None,
    flagged: bool,
    who: str | None,
    as_json: bool,
    **others: Any,
) -> None:
    """List the most anomalous objects, by kind, since scores of two models do not compare."""
    from service.catalog.engine import open_catalog
    from service.catalog.filters import OPEN, Filters
    from service.catalog.healpix import Cone
    from service.catalog.interest import outliers_for
    from service.catalog.polygon import Polygon
    from service.catalog.ranking import chosen_models, flat, outliers
    from service.catalog.registry import ranked_models

    engine = open_catalog(console.load_settings().database_url)
    wanted = Filters(
        kind=kind,
        model=model,
        q=fdr,
        cone=Cone(*cone) if cone else None,
        polygon=Polygon.parse(polygon) if polygon is not None else None,
        night=night.isoformat() if night else None,
        since=since.isoformat() if since else None,
        snr=(snr, None),
        redshift=redshift or OPEN,
        flagged=flagged,
        **others,
    )
    with engine.connect() as connection:
        chosen_models(connection, wanted)  # says what cannot be, of all models together
        models = ranked_models(connection, kind, model)
    found = []
    for entry in models:
        of_model = replace(wanted, model=entry["id"])
        if who is None:
            found.append((entry, outliers(engine, of_model, limit).rows))
            continue
        page = outliers_for(engine, of_model, who, limit)
        found.append((entry, page.rows))
        if page.labels_needed:
            console.note(
                f"{entry['id']}: the raw ranking, until {who} has labelled {page.labels_needed} more objects"
            )
    rows = [row for _, rows in found for row in rows]
    if as_json:
        more = ("interest",) if who is not None else ()
        console.write_json([flat(row) | {name: row[name] for name in more} for row in rows])
    if not models:
        console.note("the catalog holds no scores yet: `peculiar score INPUT…` makes some")
    elif not rows:
        console.note("no object fits these conditions")
    _warn(engine, {entry["id"] for entry in models}, fdr is not None and not flagged)
    if as_json:
        return
    for entry, listed in found:
        if listed:
            title = f"{entry['kind']}, model {entry['id']}"
            if who is None:
                console.write_table(COLUMNS, map(_cells, listed), title)
            else:
                with_interest = ([row["interest"], *_cells(row)] for row in listed)
                console.write_table(
                    ("interest", *COLUMNS), with_interest, f"{title}, as {who}'s labels rank it"
                )
            if entry["smallest_p"] is not None:
                smallest = f"{entry['smallest_p']:.2g}"
                click.echo(f"The calibration set of {entry['id']} resolves p-values down to {smallest}.\n")


def _warn(engine: Any, models: set[str], withheld: bool) -> None:
    """Say which runs look like an instrument problem."""
    from service.catalog.drift import flagged

    for run, problems in flagged(engine).items():
        for model in models & problems.keys():
            console.note(f"run {run} looks like an instrument problem to {model}: {problems[model]}")
            if withheld:
                console.note("  its discoveries are withheld; --flagged shows them")


def _cells(row: dict[str, Any]) -> list[Any]:
    lens = "no labels" if row["lens_fraction"] is None else f"{row['lens_fraction']:.2f}"
    numbers = [row[name] for name in ("score", "p_value", "q_value", "snr")]
    return [
        row["object_id"],
        row["kind"],
        *numbers,
        console.position(row),
        row["cluster"],
        lens,
        row["flags"].replace(",", ", "),
    ]
