"""`peculiar train`: files in, a registered model bundle out."""

from __future__ import annotations

import re

import click

from service.cli import console


@click.command
@click.argument("kind", type=click.Choice(["spectrum", "cutout"]))
@click.argument("inputs", metavar="INPUT…", nargs=-1, required=True)
@click.option("--name", required=True, help="What to call the model; its version is added.")
@click.option(
    "--epochs", type=click.IntRange(min=0), help="Passes of the network's training; 0 keeps the linear model."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--promote", is_flag=True, help="Put it in force, also where another model is.")
@console.as_json
def command(
    kind: str,
    inputs: tuple[str, ...],
    name: str,
    epochs: int | None,
    seed: int,
    promote: bool,
    as_json: bool,
) -> None:
    """Train a model of KIND on files, and print its id and held-out figures.

    The first model of a kind is in force at once, which means that it scores when none is named; a later one
    when it is promoted, with --promote or `peculiar models promote`.

    Most of the files should be ordinary objects. 70 % of them, drawn at random, train the model, 10 % stop it
    early, and 20 % calibrate the p-values. When interrupted, the same command goes on where it was.
    """
    from models.calibration import calibration_size
    from service.catalog.engine import open_catalog
    from service.catalog.registry import models_in_force
    from workers.readers import find_inputs
    from workers.training import train

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise click.BadParameter("a name has up to 64 letters, digits, '.', '_' and '-'", param_hint="--name")
    settings = console.load_settings()
    found = find_inputs(list(inputs))
    for path in found.missing:
        raise console.fail(f"no such file or folder: {path}")
    if not found.paths:
        raise console.fail("nothing to train on: no FITS file among the inputs")
    with console.stages() as report:
        trained = train(
            settings, kind, found.paths, name, epochs, seed, report, promote, console.login_name()
        )
    engine = open_catalog(settings.database_url)
    in_force = models_in_force(engine)[kind]
    spec = trained.bundle.spec
    result = {
        "model": trained.bundle.id,
        "kind": kind,
        "in_force": in_force == trained.bundle.id,
        "inputs": trained.n_inputs,
        "left_out": dict(trained.left_out),
        **{k: spec["training"][k] for k in ("n_train", "n_held_out", "n_calibration")},
        "n_latent": spec["network"]["n_latent"],
        "has_networks": spec["network"]["has_networks"],
        **spec["held_out"],
    }
    if as_json:
        console.write_json(result)
        return
    for reason, count in trained.left_out.most_common():
        console.note(f"left out {count} × {reason}")
    click.echo(f"model {trained.bundle.id}")
    if in_force != trained.bundle.id:
        console.note(f"{in_force} stays in force: `peculiar models promote {trained.bundle.id}` changes that")
    network = "linear basis and networks" if result["has_networks"] else "linear basis alone"
    click.echo(
        f"  trained on {result['n_train']} objects ({result['n_latent']} latent dimensions, {network}), "
        f"judged on {result['n_held_out']}, calibrated on {result['n_calibration']}"
    )
    thirds = ", ".join(f"{value:.2f}" for value in result["chi2_by_snr_third"])
    click.echo(f"  held-out χ² per degree of freedom by third of S/N, faint to bright: {thirds}")
    click.echo(
        f"  held-out log p(x): {result['held_out_linear_log_px']:.1f} nats per object (linear basis)",
        nl=False,
    )
    if "held_out_network_elbo" in result:
        click.echo(f", ELBO with the networks {result['held_out_network_elbo']:.1f}", nl=False)
    densities = ", ".join(f"{value:.1f} for {k}" for k, value in result["latent_log_density"].items())
    weights = " ".join(f"{weight:.2f}" for weight in result["dirichlet_weights"][:8])
    click.echo(
        f"\n  latent clusters: at most {len(result['dirichlet_weights'])}, of weight {weights}"
        f"{' …' if len(result['dirichlet_weights']) > 8 else ''}; held-out log density {densities}"
    )
    needed = calibration_size(10, 10_000, 0.1)
    click.echo(
        f"  smallest p-value that the calibration set resolves: {result['smallest_p']:.2g}; ten discoveries among "
        f"10,000 objects at q ≤ 0.1 need {needed:,} calibration objects, a fifth of the training files"
    )
