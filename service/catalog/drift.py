"""How far a run is from what its model learnt: nights that are broken are told from nights that are rich.

Three figures for each run and model, each with a limit:

- the largest distance of the p-values' distribution from the uniform one (Kolmogorov–Smirnov);
- the largest population-stability index of a latent dimension, Σ (a − e) ln(a / e) over the tenths of the calibration
  set's, where a and e are the actual and the expected shares (Siddiqi 2006);
- the share of the inputs that were rejected.

A limit is what a night may differ by without being broken, and what chance adds for so many objects at most once in a
thousand runs: by the inequality of Dvoretzky, Kiefer and Wolfowitz (Massart 1990) for the p-values, by the χ²
distribution of the index (Yurdakul 2018), and by Hoeffding's inequality (1963) for the rejections.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import sqlalchemy as sa

from service.catalog.bulk import Upsert
from service.catalog.schema import drift, embeddings, failures, models, scores

DRIFT = Upsert(drift, ("run_id", "model_id"), ("figures", "problem"))
FEWEST = 30
"""Inputs that a run needs to be judged."""
MOST = 50_000
"""Objects that a larger run is judged by."""
CHANCE = 1e-3
GAP = 0.2
"""Of the p-values: one object in five may be out of the ordinary."""
SHIFT = 0.25
"""Of the latents: where a population counts as changed by the index's common rule."""
REJECTED = 0.1
"""Share of the inputs."""
N_BINS = 10


def reference(latents: np.ndarray, rejected: float) -> dict[str, Any]:
    """What runs are compared with, JSON values.

    Args:
        latents: (m, L) of the calibration set, which is as new to the model as a night is.
        rejected: share of the training inputs that could not be read.
    """
    edges = np.quantile(np.asarray(latents, float), np.linspace(0, 1, N_BINS + 1)[1:-1], axis=0)
    return {"edges": edges.T.tolist(), "n": len(latents), "rejected": rejected}


def largest_gap(p_values: np.ndarray, step: float = 0.0) -> float:
    """Kolmogorov–Smirnov distance of n p-values from uniform ones, which come in multiples of ``step``."""
    values, counts = np.unique(p_values, return_counts=True)
    at = np.cumsum(counts) / len(p_values)
    before = np.concatenate([[0.0], at[:-1]])
    return float(max((at - values).max(), (values - step - before).max()))


def widest_gap(n: int, n_calibration: int) -> float:
    """The limit of ``largest_gap`` for n objects and a calibration set of this size."""
    return GAP + math.sqrt(math.log(2 / CHANCE) / 2 * (1 / n + 1 / n_calibration))


def shifts(latents: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(L,) population-stability index of (n, L) latents by the (L, N_BINS − 1) inner edges of a reference."""
    expected = 1 / N_BINS
    index = []
    for values, inner in zip(latents.T, edges, strict=True):
        counts = np.bincount(np.searchsorted(inner, values), minlength=N_BINS)
        # Half an object in every bin keeps the logarithm finite.
        actual = (counts + 0.5) / (len(values) + 0.5 * N_BINS)
        index.append(((actual - expected) * np.log(actual / expected)).sum())
    return np.array(index)


def widest_shift(n: int, n_reference: int, n_latent: int) -> float:
    """The limit of the largest of ``shifts``."""
    from scipy.special import chdtri

    return SHIFT + float(chdtri(N_BINS - 1, CHANCE / n_latent)) * (1 / n + 1 / n_reference)


def most_rejected(n: int, expected: float) -> float:
    """The limit of the share of rejected inputs."""
    return expected + REJECTED + math.sqrt(math.log(1 / CHANCE) / (2 * n))


def measure(connection: sa.Connection, run_id: int, model_ids: dict[str, str]) -> None:
    """Compare a run with each of its models (id by kind) and keep the figures; doing so again replaces them."""
    rows = []
    for kind, model_id in model_ids.items():
        wanted = sa.select(models.c.smallest_p, models.c.reference).where(models.c.id == model_id)
        model = connection.execute(wanted).one_or_none()
        if model is not None:
            figures = _figures(connection, run_id, kind, model_id, model.smallest_p, model.reference or {})
            rows.append(
                {"run_id": run_id, "model_id": model_id, "figures": figures, "problem": _problem(figures)}
            )
    if rows:
        DRIFT.write(connection, {name: [row[name] for row in rows] for name in rows[0]})


def flagged(engine: sa.Engine, run_ids: list[int] | None = None) -> dict[int, dict[str, str]]:
    """What is wrong with the runs that look like an instrument problem: problem by model id, by run id."""
    wanted = sa.select(drift).where(drift.c.problem != "")
    if run_ids is not None:
        wanted = wanted.where(drift.c.run_id.in_(run_ids))
    found: dict[int, dict[str, str]] = {}
    with engine.connect() as connection:
        for row in connection.execute(wanted.order_by(drift.c.run_id.desc(), drift.c.model_id)):
            found.setdefault(row.run_id, {})[row.model_id] = row.problem
    return found


def _figures(
    connection: sa.Connection,
    run_id: int,
    kind: str,
    model_id: str,
    smallest_p: float | None,
    learnt: dict[str, Any],
) -> dict[str, Any]:
    s = scores.c
    mine = sa.and_(s.run_id == run_id, s.model_id == model_id)
    n = connection.execute(sa.select(sa.func.count()).where(mine)).scalar_one()
    lost = sa.select(sa.func.count()).where(failures.c.run_id == run_id, failures.c.kind.in_(("", kind)))
    n_failed = connection.execute(lost).scalar_one()
    figures: dict[str, Any] = {"scored": n, "failed": n_failed}
    if n + n_failed >= FEWEST:
        figures["rejected"] = n_failed / (n + n_failed)
        figures["rejected_limit"] = most_rejected(n + n_failed, learnt.get("rejected", 0.0))
    if n < FEWEST:
        return figures
    sample = sa.select(s.p_value, embeddings.c.latent).where(mine, s.observation_id % max(1, n // MOST) == 0)
    same = sa.and_(embeddings.c.observation_id == s.observation_id, embeddings.c.model_id == s.model_id)
    found = connection.execute(sample.join(embeddings, same)).all()
    if smallest_p:
        p_values = np.array([row.p_value for row in found])
        figures["p_value_gap"] = largest_gap(p_values, smallest_p)
        figures["p_value_gap_limit"] = widest_gap(len(found), max(1, round(1 / smallest_p) - 1))
    if "edges" in learnt:
        latents = np.frombuffer(b"".join(row.latent for row in found), dtype="<f4").reshape(len(found), -1)
        index = shifts(latents, np.array(learnt["edges"]))
        figures["latent_shift"] = float(index.max())
        figures["latent"] = int(index.argmax())
        figures["latent_shift_limit"] = widest_shift(len(found), learnt["n"], len(index))
    return figures


def _problem(figures: dict[str, Any]) -> str:
    """In words, what exceeds its limit."""

    def over(name: str) -> bool:
        return name in figures and figures[name] > figures[f"{name}_limit"]

    found = []
    if over("p_value_gap"):
        found.append(
            f"p-values are {figures['p_value_gap']:.2f} from uniform, {figures['p_value_gap_limit']:.2f} allowed"
        )
    if over("latent_shift"):
        found.append(
            f"latent {figures['latent']} has shifted by {figures['latent_shift']:.2f}, "
            f"{figures['latent_shift_limit']:.2f} allowed"
        )
    if over("rejected"):
        found.append(
            f"{figures['rejected']:.0%} of the inputs were rejected, {figures['rejected_limit']:.0%} allowed"
        )
    return "; ".join(found)
