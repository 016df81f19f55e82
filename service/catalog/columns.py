"""The columns of one exported row and of one failure: name, type, unit, UCD, description."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    """``text``, ``float``, ``int`` or ``time``"""
    description: str
    unit: str = ""
    """As in the VOUnits standard."""
    ucd: str = ""
    """UCD1+ words, see https://www.ivoa.net/documents/UCD1+/."""


ROW = (
    Column("object_id", "text", "the survey's identity of the object", ucd="meta.id;meta.main"),
    Column("kind", "text", "spectrum or cutout", ucd="meta.code.class"),
    Column("survey", "text", "where the object comes from", ucd="meta.id"),
    Column("path", "text", "the file that was read", ucd="meta.file"),
    Column("ra", "float", "right ascension, ICRS", "deg", "pos.eq.ra;meta.main"),
    Column("dec", "float", "declination, ICRS", "deg", "pos.eq.dec;meta.main"),
    Column("model", "text", "the model that scored it, name@version", ucd="meta.id"),
    Column("scored_at", "time", "when it was scored, UTC", ucd="time.processing"),
    Column("elbo", "float", "evidence lower bound, nats", ucd="stat.likelihood"),
    Column("log_px", "float", "importance-weighted bound on log p(x), nats", ucd="stat.likelihood"),
    Column(
        "log_density", "float", "log density of the latent under the mixture, nats", ucd="stat.likelihood"
    ),
    Column("chi2", "float", "reconstruction chi-squared per degree of freedom", ucd="stat.fit.chi2"),
    Column("score", "float", "anomaly score, larger is more anomalous", ucd="stat.value"),
    Column(
        "p_value",
        "float",
        "chance of such a score for an object like the training set",
        ucd="stat.probability",
    ),
    Column("q_value", "float", "Benjamini-Hochberg over the run", ucd="stat.probability"),
    Column("cluster", "int", "the most probable cluster of the latent space", ucd="meta.id"),
    Column("cluster_probability", "float", "of that cluster", ucd="stat.probability"),
    Column(
        "lens_fraction",
        "float",
        "expected share of lenses given its clusters' labels",
        ucd="stat.probability",
    ),
    Column("snr", "float", "signal-to-noise ratio", ucd="stat.snr"),
    Column("flags", "text", "remarks, comma-joined", ucd="meta.code.qual"),
)
NAMES = tuple(column.name for column in ROW)

FAILURE = (
    Column("path", "text", "the file", ucd="meta.file"),
    Column("reason", "text", "why it was not scored and what to do", ucd="meta.note"),
    Column("kind", "text", "spectrum or cutout where known", ucd="meta.code.class"),
    Column("model", "text", "the model that could not score it, where one was at fault", ucd="meta.id"),
    Column("run", "int", "the last run that met it", ucd="meta.id"),
    Column("attempts", "int", "how often it was tried", ucd="meta.number"),
    Column("first_seen", "time", "UTC", ucd="time.processing"),
    Column("last_seen", "time", "UTC", ucd="time.processing"),
    Column("detail", "text", "the particulars of this file", ucd="meta.note"),
)


def part_columns(names: list[str]) -> tuple[Column, ...]:
    """Columns for score components; a name that a row has already is spelled ``part_NAME``."""
    return tuple(
        Column(part_name(name), "float", f"score component {name}", ucd="stat.value") for name in names
    )


def part_name(name: str) -> str:
    return f"part_{name}" if name in NAMES else name
