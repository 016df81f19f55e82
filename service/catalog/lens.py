"""Lens fractions: what labels say about a cluster, and what clusters say about an object.

After Cheng et al. 2020 (MNRAS 494, 3750): people label a few members of each cluster of the latent space, and
that tells how many of the rest are lenses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from service.catalog.schema import labels, observations, scores

LENS = "lens"
NOT_LENS = ("not-lens", "artefact")
"""Labels that say an object is no lens. Any other, such as ``interesting``, says nothing about that."""


@dataclass(frozen=True, slots=True)
class LensFraction:
    """Beta posterior of a cluster's share of lenses under Jeffreys' prior, Beta(½, ½)."""

    n_labelled: int
    n_lens: int

    @property
    def mean(self) -> float:
        """(n_lens + ½) / (n_labelled + 1)"""
        return (self.n_lens + 0.5) / (self.n_labelled + 1)

    @property
    def interval(self) -> tuple[float, float]:
        """2.5 and 97.5 % points of Beta(n_lens + ½, n_labelled − n_lens + ½)."""
        from scipy.special import betaincinv

        a, b = self.n_lens + 0.5, self.n_labelled - self.n_lens + 0.5
        return float(betaincinv(a, b, 0.025)), float(betaincinv(a, b, 0.975))


def lens_fractions(connection: sa.Connection, model_ids: Sequence[str]) -> dict[str, dict[int, LensFraction]]:
    """For each model the lens fractions of those of its clusters that have labels.

    The newest label by each person on each object counts once, for the cluster of the object's newest current
    observation.
    """
    found: dict[str, dict[int, LensFraction]] = {model_id: {} for model_id in model_ids}
    if (
        connection.scalar(sa.select(labels.c.id).where(labels.c.label.in_([LENS, *NOT_LENS])).limit(1))
        is None
    ):
        return found  # the usual case of a young catalog, and its largest saving
    newer = labels.alias("newer")
    said_again = sa.exists().where(
        newer.c.by == labels.c.by, newer.c.object_id == labels.c.object_id, newer.c.id > labels.c.id
    )
    newest = sa.func.row_number().over(
        partition_by=[scores.c.model_id, labels.c.id], order_by=scores.c.observation_id.desc()
    )
    votes = (
        sa.select(scores.c.model_id, scores.c.cluster, labels.c.label, newest.label("rank"))
        .select_from(labels)
        .join(observations, observations.c.object_id == labels.c.object_id)
        .join(scores, scores.c.observation_id == observations.c.id)
        .where(
            labels.c.label.in_([LENS, *NOT_LENS]),
            ~said_again,
            observations.c.superseded.is_(False),
            scores.c.model_id.in_(model_ids),
        )
        .subquery()
    )
    counted = (
        sa.select(
            votes.c.model_id,
            votes.c.cluster,
            sa.func.count().label("n_labelled"),
            sa.func.sum(sa.case((votes.c.label == LENS, 1), else_=0)).label("n_lens"),
        )
        .where(votes.c.rank == 1)
        .group_by(votes.c.model_id, votes.c.cluster)
    )
    for model_id, cluster, n_labelled, n_lens in connection.execute(counted):
        found[model_id][cluster] = LensFraction(n_labelled, n_lens)
    return found


def expected_lens_fractions(
    rows: Sequence[tuple[str, int, bytes | None]], fractions: dict[str, dict[int, LensFraction]]
) -> list[float | None]:
    """The expected lens fraction of rows of model, cluster and responsibilities (float32).

    Σ_k r_k f_k / Σ_k r_k over the labelled clusters k; None where the row's own cluster has no labels, since
    the others say little about it.
    """
    expected: list[float | None] = [None] * len(rows)
    for model, known in fractions.items():
        shares = {
            i: share
            for i, (of, cluster, share) in enumerate(rows)
            if cluster in known and of == model and share is not None
        }
        if not shares:
            continue
        r = np.frombuffer(b"".join(shares.values()), dtype="<f4").reshape(len(shares), -1).astype(float)
        labelled = [k for k in known if k < r.shape[1]]
        mean = np.array([known[k].mean for k in labelled])
        r = r[:, labelled]
        for i, lens, weight in zip(shares, (r @ mean).tolist(), r.sum(axis=1).tolist(), strict=True):
            expected[i] = lens / weight if weight > 0 else None
    return expected
