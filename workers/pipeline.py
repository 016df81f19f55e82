"""One message's work: paths → samples → batches → scores → rows in the catalog.

Nothing here may lose an input. Whatever happens to one of them, the others are scored and written, and the
guilty one becomes a failure row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Protocol

import numpy as np

from models.batch import Batch, Scores
from service.catalog.rows import RejectedRow, ScoredRow
from service.queue import Manifest
from workers.batching import MAX_PIXELS, Sample, groups, make_batch, trusted_redshift
from workers.clock import Clock
from workers.patience import CATALOG_GONE
from workers.readers.sample import Rejection, Spectrum
from workers.reading import Result, read_inputs

if TYPE_CHECKING:
    from sqlalchemy import Engine

logger = logging.getLogger(__name__)

SCORER_FAILED = "the scorer failed on this input: the worker's log has the traceback, please report it"
WRITER_FAILED = "the catalog refused this row: the worker's log has the traceback, please report it"
NUMBERS = ("elbo", "log_px", "log_density", "chi2", "score", "p_value", "snr")
DOES_NOT_FIT = "this input does not fit the model: the detail says what the model takes"
MODEL_MISSING = "the model could not be loaded: check that PECULIAR_MODEL_DIR on the worker holds its bundle"


class Scorer(Protocol):
    """What the pipeline needs of ``models.scorer.Scorer``."""

    kind: str

    @property
    def id(self) -> str: ...

    def score(self, batch: Batch) -> Scores: ...


LoadScorer = Callable[[str], Scorer]
Read = Callable[..., Iterable[Result]]
"""As ``read_inputs``: one result for each path, with that path; raises nothing."""


@dataclass(slots=True)
class Rows:
    """What came of some paths; together the two lists name each path once."""

    scored: list[ScoredRow] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)

    def reject(self, sample: Sample, reason: str, detail: str, model: str = "") -> None:
        row = RejectedRow(sample.path, reason, detail, sample.kind, model, sample.sha256)
        self.rejected.append(row)


def score_manifest(
    engine: Engine, manifest: Manifest, load_scorer: LoadScorer, read: Read = read_inputs
) -> None:
    """Score every path of a manifest, write the rows, and finish the run if these were its last.

    Running it twice on the same manifest changes nothing.

    :raises sqlalchemy.exc.OperationalError: when the catalog cannot be reached; nothing is half-written.
    """
    from service.catalog.figures import add_seconds
    from service.catalog.runs import finish_if_complete

    clock, n_scored = Clock(), 0

    def timed_read(paths: Sequence[str]) -> Iterator[Result]:
        return clock.each("read", read(paths))

    for rows in score_paths(manifest.paths, manifest.models, manifest.night, load_scorer, timed_read):
        n_scored += len(rows.scored)
        with clock.stage("write"):
            write(engine, manifest.run, rows.scored, rows.rejected)
    clock.seconds["score"] = clock.total() - sum(clock.seconds.values())
    finish_if_complete(engine, manifest.run)
    add_seconds(engine, manifest.run, clock.seconds)
    logger.info("scored %d of %d paths in %.1f s", n_scored, len(manifest.paths), clock.total())


def score_paths(
    paths: Iterable[str],
    models: dict[str, str],
    night: date,
    load_scorer: LoadScorer,
    read: Read = read_inputs,
) -> Iterator[Rows]:
    """Read and score paths, a memory's worth of samples at a time.

    :param models: model id by kind.
    """
    for rows, samples in _read_some(paths, read):
        for members in groups(samples):
            _score_group(members, models, night, load_scorer, rows)
        yield rows


def _read_some(paths: Iterable[str], read: Read) -> Iterator[tuple[Rows, list[Sample]]]:
    """Samples of up to MAX_PIXELS together, with the rejections met on the way."""
    rows, samples, pixels = Rows(), [], 0
    for result in read(list(dict.fromkeys(paths))):
        if isinstance(result, Rejection):
            rows.rejected.append(
                RejectedRow(result.path, result.reason, result.detail, result.kind, "", result.sha256)
            )
            continue
        samples.append(result)
        pixels += result.flux.size
        if pixels >= MAX_PIXELS:
            yield rows, samples
            rows, samples, pixels = Rows(), [], 0
    yield rows, samples


def _score_group(
    samples: list[Sample], models: dict[str, str], night: date, load_scorer: LoadScorer, rows: Rows
) -> None:
    kind = samples[0].kind
    model = models.get(kind)
    if model is None:
        reason = f"no model for this kind: train one with `peculiar train {kind}`, or name one of this kind"
        for sample in samples:
            rows.reject(sample, reason, f"the run's models: {', '.join(models.values()) or 'none'}")
        return
    try:
        scorer = load_scorer(model)
    except (OSError, ValueError) as error:
        logger.exception("cannot load the model %s", model)
        for sample in samples:
            rows.reject(sample, MODEL_MISSING, f"{model}: {error}", model)
        return
    _score_or_halve(samples, scorer, night, rows)


def _score_or_halve(samples: list[Sample], scorer: Scorer, night: date, rows: Rows) -> None:
    """Score samples in one batch; when that fails, in two halves, down to the single guilty one."""
    try:
        scores = scorer.score(make_batch(samples))
        if len(samples) != len(scores):
            msg = f"{len(scores)} scores for {len(samples)} samples"
            raise RuntimeError(msg)
    except Exception as error:  # whatever one sample does to the scorer must not cost the others
        if len(samples) > 1:
            middle = len(samples) // 2
            _score_or_halve(samples[:middle], scorer, night, rows)
            _score_or_halve(samples[middle:], scorer, night, rows)
            return
        # Models raise ValueError for what they do not take: the input's fault. Anything else is ours.
        reason = DOES_NOT_FIT if isinstance(error, ValueError) else SCORER_FAILED
        if reason is SCORER_FAILED:
            ids = {"object": samples[0].object_id, "path": samples[0].path}
            logger.exception("the scorer %s failed on %s", scorer.id, samples[0].path, extra=ids)
        rows.reject(samples[0], reason, str(error) or repr(error), scorer.id)
        return
    rows.scored += rows_of(samples, scores, scorer.id, night)


def rows_of(samples: list[Sample], scores: Scores, model: str, night: date) -> Iterator[ScoredRow]:
    """Rows from scores, whose arrays become Python's numbers all at once."""
    latent, latent_var, responsibilities = (
        np.asarray(values, np.float32)
        for values in (scores.latent, scores.latent_var, scores.responsibilities)
    )
    clusters = responsibilities.argmax(axis=1)
    numbers = {name: getattr(scores, name).tolist() for name in NUMBERS}
    numbers |= {"cluster": clusters.tolist(), "cluster_probability": responsibilities.max(axis=1).tolist()}
    parts = {name: values.tolist() for name, values in scores.parts.items()}
    day = night.isoformat()
    for i, sample in enumerate(samples):
        spectrum = sample if isinstance(sample, Spectrum) else None
        yield ScoredRow(
            kind=sample.kind,
            survey=sample.survey,
            object_id=sample.object_id,
            path=sample.path,
            sha256=sample.sha256,
            ra=sample.ra,
            dec=sample.dec,
            night=day,
            redshift=spectrum.redshift if spectrum else None,
            spectral_class=spectrum.spectral_class if spectrum else "",
            zwarning=spectrum.zwarning if spectrum else 0,
            reader_flags=sample.flags,
            model=model,
            flags=scores.flags[i] | trusted_redshift(spectrum)[1] if spectrum else scores.flags[i],
            parts={name: values[i] for name, values in parts.items()},
            latent=latent[i],
            latent_var=latent_var[i],
            responsibilities=responsibilities[i],
            windows=scores.windows[i],
            explanation=scores.explanations[i],
            **{name: values[i] for name, values in numbers.items()},
        )


def write(engine: Engine, run: int, scored: Sequence[ScoredRow], rejected: Sequence[RejectedRow]) -> None:
    """Write rows in one transaction; when the catalog refuses one of them, all but that one.

    :raises sqlalchemy.exc.OperationalError: when the catalog cannot be reached.
    :raises CatalogError: when it has no such run or model.
    """
    from service.catalog.engine import CatalogError
    from service.catalog.writer import write_batch

    try:
        write_batch(engine, run, list(scored), list(rejected))
    except (*CATALOG_GONE, CatalogError):
        raise
    except Exception as error:  # a row that breaks a constraint must not cost the others
        if len(scored) + len(rejected) > 1:
            for half in (slice(None, len(scored) // 2), slice(len(scored) // 2, None)):
                if scored[half]:
                    write(engine, run, scored[half], ())
            for half in (slice(None, len(rejected) // 2), slice(len(rejected) // 2, None)):
                if rejected[half]:
                    write(engine, run, (), rejected[half])
        elif scored:
            row = scored[0]
            ids = {"object": row.object_id, "path": row.path}
            logger.exception("the catalog refused the row of %s", row.path, extra=ids)
            guilty = RejectedRow(row.path, WRITER_FAILED, str(error), row.kind, row.model, row.sha256)
            write_batch(engine, run, [], [guilty])
        else:
            raise
