"""Which rows of the catalog are wanted: conditions that compose, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import eq, ge, le
from typing import Any

import sqlalchemy as sa

from service.catalog.engine import CatalogError
from service.catalog.healpix import Cone, in_cone
from service.catalog.labels import newest_label, normalised
from service.catalog.lens import LensFraction
from service.catalog.polygon import Polygon, in_polygon
from service.catalog.schema import drift, labels, objects, observations, scores
from service.catalog.statements import json_keys

INSTRUMENT = "instrument-problem"
"""Flag of rows whose run is far from what the model learnt."""
DUPLICATE = "duplicate"
"""Flag of rows whose bytes lie under another path, too."""

Range = tuple[float | None, float | None]
"""From … to, both included; None leaves an end open."""
OPEN: Range = (None, None)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which rows are wanted; None leaves a question open."""

    kind: str | None = None
    model: str | None = None
    """Id or name. Without one, the newest model of each kind that has scores."""
    night: str | None = None
    """YYYY-MM-DD"""
    since: str | None = None
    """The first night."""
    until: str | None = None
    """The last night."""
    cluster: int | None = None
    p: float | None = None
    """p-value at most this"""
    q: float | None = None
    """q-value at most this: the expected share of false discoveries among the rows"""
    part: tuple[str, float] | None = None
    """A part of the score, and what its own p-value is at most."""
    lens_fraction: float | None = None
    """At least this."""
    snr: Range = OPEN
    redshift: Range = OPEN
    spectral_class: str | None = None
    """As the survey's pipeline says: GALAXY, QSO, STAR."""
    label: str | None = None
    """What somebody's newest label says."""
    labelled: bool | None = None
    flag: str | None = None
    """A flag that the row carries."""
    no_flag: str | None = None
    """A flag that it does not carry."""
    search: str | None = None
    """Text within the object's identity, upper case or lower."""
    cone: Cone | None = None
    polygon: Polygon | None = None
    among: Sequence[int] | None = None
    """Observation ids, at most some ten thousand."""
    flagged: bool = False
    """With ``q``: also discoveries of runs that look like an instrument problem, which are withheld otherwise."""

    def check(self, connection: sa.Connection, models: list[str]) -> None:
        """Raises CatalogError where the filters contradict themselves, or do not go with the models."""
        if self.cluster is not None and len(models) > 1:
            raise CatalogError("cluster numbers belong to one model: say which kind or model is meant")
        for name, (low, high) in {"snr": self.snr, "redshift": self.redshift}.items():
            if low is not None and high is not None and low > high:
                raise CatalogError(
                    f"no {name} lies between {low:g} and {high:g}: the first is the smaller one"
                )
        if self.since is not None and self.until is not None and self.since > self.until:
            raise CatalogError(
                f"no night lies between {self.since} and {self.until}: the first is the earlier one"
            )
        if self.part is not None and models:
            known = sorted(_parts(connection, models))
            if self.part[0] not in known:
                raise CatalogError(
                    f"no part of the score is called {self.part[0]!r}; there are {', '.join(known)}"
                )

    def conditions(self, fractions: dict[int, LensFraction]) -> list[sa.ColumnElement[bool]]:
        """On ``scores`` and ``observations``, for one model with the lens fractions of its clusters.

        Rows that fit them are still to be ``accept``-ed.
        """
        s, o = scores.c, observations.c
        given: list[tuple[Any, Callable[[Any, Any], Any], Any]] = [
            (o.night, eq, self.night),
            (o.night, ge, self.since),
            (o.night, le, self.until),
            (s.cluster, eq, self.cluster),
            (s.p_value, le, self.p),
            (s.q_value, le, self.q),
            (s.snr, ge, self.snr[0]),
            (s.snr, le, self.snr[1]),
            (o.redshift, ge, self.redshift[0]),
            (o.redshift, le, self.redshift[1]),
        ]
        wanted = [compare(column, value) for column, compare, value in given if value is not None]
        if self.q is not None and not self.flagged:
            wanted.append(_no_problem())
        if self.part is not None:
            name, largest = self.part
            wanted.append(s.parts[f"{name}_p"].as_float() <= largest)
        if self.lens_fraction is not None:
            wanted.append(_may_reach(self.lens_fraction, fractions))
        if self.spectral_class is not None:
            wanted.append(o.spectral_class.in_({self.spectral_class, self.spectral_class.upper()}))
        wanted += self._about_labels()
        if self.flag is not None:
            wanted.append(_carries(self.flag))
        if self.no_flag is not None:
            wanted.append(~_carries(self.no_flag))
        # Subqueries of their own, so that no planner walks a whole ranking to look for few objects.
        if self.search is not None:
            called = objects.alias("called")
            found = sa.select(called.c.id).where(called.c.object_id.icontains(self.search, autoescape=True))
            wanted.append(o.object_id.in_(found))
        if self.cone is not None:
            wanted.append(in_cone(self.cone, o.object_id))
        if self.polygon is not None:
            wanted.append(in_polygon(self.polygon, o.object_id))
        if self.among is not None:
            wanted.append(s.observation_id.in_(self.among))
        return wanted

    @property
    def refines(self) -> bool:
        """Whether ``accept`` may turn a row away that fits the conditions."""
        return self.lens_fraction is not None

    def accept(self, row: dict[str, Any]) -> bool:
        """What no database can say: the expected lens fraction, made of a row's share in each cluster."""
        if self.lens_fraction is None:
            return True
        return row["lens_fraction"] is not None and row["lens_fraction"] >= self.lens_fraction

    def _about_labels(self) -> list[sa.ColumnElement[bool]]:
        wanted: list[sa.ColumnElement[bool]] = []
        if self.label is not None:
            said = sa.select(labels.c.object_id).where(newest_label(normalised(self.label)))
            wanted.append(observations.c.object_id.in_(said))
        if self.labelled is not None:
            some = observations.c.object_id.in_(sa.select(labels.c.object_id).where(newest_label()))
            wanted.append(some if self.labelled else ~some)
        return wanted


def _no_problem() -> sa.ColumnElement[bool]:
    # not by a column of the outer join: PostgreSQL would take the condition for a rare one
    bad = drift.alias("bad")
    of_row = sa.and_(bad.c.run_id == scores.c.run_id, bad.c.model_id == scores.c.model_id)
    return ~sa.exists().where(of_row, bad.c.problem != "")


def _carries(flag: str) -> sa.ColumnElement[bool]:
    if flag == DUPLICATE:
        return observations.c.duplicate.is_(True)
    if flag == INSTRUMENT:
        return ~_no_problem()
    both = sa.literal(",") + scores.c.flags + "," + observations.c.reader_flags + ","
    return both.contains(f",{flag},", autoescape=True)


def _may_reach(least: float, fractions: dict[int, LensFraction]) -> sa.ColumnElement[bool]:
    """Whether a row's expected lens fraction may be ``least``, by its own cluster and its probability there.

    A row's share in cluster k is r_k, and its fraction Σ r_k f_k / Σ r_k over the labelled clusters. With the share r
    in its own cluster, the others hold 1 − r at most, and their f at most the largest of all, F:
    the fraction is at most r f + (1 − r) max(F, f). Rows of clusters without labels have none.
    """
    if not fractions:
        return sa.false()
    top = max(fraction.mean for fraction in fractions.values())
    own = sa.case({k: fraction.mean for k, fraction in fractions.items()}, value=scores.c.cluster, else_=0.0)
    r = scores.c.cluster_probability
    # Shares are kept as float32, whose sum is 1 only to its last digits.
    return scores.c.cluster.in_(list(fractions)) & (r * own + (1 - r) * top >= least - 1e-5)


def _parts(connection: sa.Connection, models: list[str]) -> set[str]:
    """The parts that have p-values of their own, by the first row of each model."""
    names: set[str] = set()
    for model in models:
        first = sa.select(scores.c.parts).where(scores.c.model_id == model).limit(1).subquery()
        key = json_keys(connection, first.c.parts)
        names |= set(connection.scalars(sa.select(key.c.key).select_from(first.join(key, sa.true()))))
    return {name.removesuffix("_p") for name in names if name.endswith("_p")}
