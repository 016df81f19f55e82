"""`peculiar pack`: many small files in, one packed file out that is read by slices."""

from __future__ import annotations

from pathlib import Path

import click

from service.cli import console

AT_ONCE = 256
"""Files in memory at a time."""


@click.command
@click.argument("inputs", metavar="INPUT…", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file to write, NAME.h5.",
)
@console.as_json
def command(inputs: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Pack files into one that train, score and nightly take like a folder of them, and read much faster.

    What the readers make of each file is kept: flux, inverse variance, identity, position, redshift, flags, the
    original's path and hash, and for a file that is turned away the reason.
    """
    from collections import Counter

    from peculiar import __version__
    from workers.readers import find_inputs, read_all
    from workers.readers.inputs import PACK_ENDINGS
    from workers.readers.pack import PackWriter
    from workers.readers.sample import Rejection

    if not out.name.lower().endswith(PACK_ENDINGS):
        raise click.BadParameter("a packed file is called NAME.h5", param_hint="--out")
    found = find_inputs(list(inputs))
    for path in found.missing:
        raise console.fail(f"no such file or folder: {path}")
    paths = [path for path in found.paths if path.partition("#")[0] != str(out.absolute())]
    if not paths:
        raise console.fail("nothing to pack: no FITS file among the inputs")
    kinds: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with (
        console.progress(len(paths), "packing") as update,
        PackWriter(out, f"peculiar {__version__}") as pack,
    ):
        for start in range(0, len(paths), AT_ONCE):
            results = list(read_all(paths[start : start + AT_ONCE]))
            pack.append(results)
            reasons.update(result.reason for result in results if isinstance(result, Rejection))
            kinds.update(result.kind for result in results if not isinstance(result, Rejection))
            update(start + len(results))
    if as_json:
        console.write_json(
            {"out": str(out), "packed": kinds.total(), "rejected": reasons.total(), "reasons": reasons}
        )
        return
    click.echo(f"{out}: {kinds['spectrum']} spectra, {kinds['cutout']} cutouts, rejected {reasons.total()}")
    for reason, n in reasons.most_common():
        click.echo(f"  {n} × {reason}")
