"""What the API takes and gives, as OpenAPI describes it."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_PATHS = 5000
MAX_PAGE = 1000
MAX_NEIGHBOURS = 200
BIGGEST_ID = 2**63 - 1

Kind = Literal["spectrum", "cutout"]
Text = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

SPECTRUM_ROW: dict[str, Any] = {
    "object_id": "0266-51602-0031",
    "kind": "spectrum",
    "survey": "sdss",
    "path": "/data/spec-0266-51602-0031.fits",
    "ra": 146.3914,
    "dec": -0.4941,
    "model": "sdss@0123456789ab",
    "scored_at": "2026-03-01T16:04:11.250000Z",
    "elbo": -5210.4,
    "log_px": -5198.2,
    "log_density": -31.7,
    "chi2": 1.42,
    "score": 3.1,
    "p_value": 0.002,
    "q_value": 0.04,
    "cluster": 3,
    "cluster_probability": 0.91,
    "lens_fraction": None,
    "snr": 14.2,
    "flags": "",
    "parts": {"misfit": 0.8, "misfit_p": 0.004},
    "windows": [{"significance": 9.3, "low": 4860.1, "high": 4866.4, "line": "Hβ"}],
}


class Row(BaseModel):
    """One observation as one model scored it."""

    model_config = ConfigDict(json_schema_extra={"examples": [SPECTRUM_ROW]})

    object_id: str = Field(description="the survey's identity of the object")
    kind: Kind
    survey: str
    path: str = Field(description="the file that was read")
    ra: float | None = Field(description="degrees, ICRS")
    dec: float | None = Field(description="degrees, ICRS")
    model: str = Field(description="name@version")
    scored_at: datetime
    elbo: float = Field(description="evidence lower bound, nats")
    log_px: float = Field(description="importance-weighted bound on log p(x), nats")
    log_density: float = Field(description="log density of the latent under the mixture, nats")
    chi2: float = Field(description="reconstruction χ² per degree of freedom")
    score: float = Field(description="larger is more anomalous; scores of two models do not compare")
    p_value: float = Field(description="in (0, 1], uniform for objects like the training set")
    q_value: float | None = Field(description="Benjamini–Hochberg over the run; null until the run has ended")
    cluster: int
    cluster_probability: float
    lens_fraction: float | None = Field(description="expected share of lenses; null where labels are missing")
    snr: float
    flags: str = Field(description="remarks, comma-joined")
    parts: dict[str, float | None] = Field(description="score components by name")
    windows: list[dict[str, Any]] = Field(
        description="for outliers, what departs most from the reconstruction: stretches of the rest-frame spectrum "
        "with the nearest known line, or squares of the cutout with band, radius and position angle"
    )


class Neighbour(Row):
    """A row and how far it lies in the latent space."""

    distance: float = Field(description="Euclidean, between posterior means")


class Examined(BaseModel):
    """A file that was sent, as a model sees it; it is not in the catalog."""

    object_id: str = Field(description="by its header, or by its name")
    kind: Kind
    survey: str
    ra: float | None = Field(description="degrees, ICRS")
    dec: float | None = Field(description="degrees, ICRS")
    redshift: float | None
    spectral_class: str
    model: str = Field(description="name@version")
    chi2: float = Field(description="reconstruction χ² per degree of freedom")
    score: float = Field(description="larger is more anomalous")
    p_value: float = Field(description="in (0, 1], uniform for objects like the training set")
    cluster: int
    cluster_probability: float
    snr: float
    flags: str = Field(description="remarks, comma-joined")
    parts: dict[str, float | None] = Field(description="score components by name")
    windows: list[dict[str, Any]] = Field(description="what departs most from the reconstruction")
    picture: str | None = Field(description="where asked for, a PNG image as a data: URL")
    neighbours: list[Neighbour] = Field(
        description="the nearest in the latent space; the file itself, where the catalog has it, at distance 0"
    )


class Outlier(Row):
    """A row and its place in a person's ranking."""

    interest: float | None = Field(
        None, description="with `for`: larger is ranked higher; null where the ranking is the raw one"
    )


class Outliers(BaseModel):
    """One page, the highest scores first, or with `for` the most interesting to that person."""

    items: list[Outlier]
    next: str | None = Field(description="pass it as `page` for the page after this one; null on the last")
    labels_needed: int | None = Field(
        None, description="with `for`: how many more labels by this person change the ranking; 0 when they do"
    )


class Search(BaseModel):
    """Which rows are wanted: what is given has to hold, all of it."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind | None = Field(None, description="without kind and model, the rankings of all kinds are mixed")
    model: Text | None = Field(
        None, description="id or name; else the newest of each kind", examples=["sdss"]
    )
    night: date | None = Field(None, examples=["2026-03-01"])
    since: date | None = Field(None, description="this night or a later one")
    until: date | None = Field(None, description="this night or an earlier one")
    cluster: int | None = Field(
        None, ge=0, lt=2**31, description="needs kind or model where there are several"
    )
    p: Finite | None = Field(None, gt=0, le=1, description="p-value at most this")
    q: Finite | None = Field(None, gt=0, le=1, description="q-value at most this: the false-discovery rate")
    flagged: bool = Field(
        False, description="with q: also discoveries of runs that look like an instrument problem"
    )
    part: Annotated[str, StringConstraints(pattern=r"^\w{1,50}$")] | None = Field(
        None, description="a part of the score, with part_p", examples=["window"]
    )
    part_p: Finite | None = Field(None, gt=0, le=1, description="that part's own p-value is at most this")
    lens_fraction: Finite | None = Field(
        None, ge=0, le=1, description="expected share of lenses at least this"
    )
    snr_min: Finite | None = Field(None, description="signal-to-noise ratio at least this")
    snr_max: Finite | None = None
    redshift_min: Finite | None = None
    redshift_max: Finite | None = None
    spectral_class: Text | None = Field(None, description="GALAXY, QSO or STAR", examples=["QSO"])
    label: Text | None = Field(None, description="what somebody's newest label says", examples=["lens"])
    labelled: bool | None = Field(None, description="whether anybody has labelled it")
    flag: Text | None = Field(None, description="a flag that the row carries", examples=["outside-domain"])
    no_flag: Text | None = Field(None, description="a flag that it does not carry")
    search: Text | None = Field(None, description="text within the object's identity, in upper or lower case")
    ra: Finite | None = Field(None, ge=0, le=360, description="centre of a cone, degrees, ICRS")
    dec: Finite | None = Field(None, ge=-90, le=90, description="centre of a cone, degrees, ICRS")
    radius: Finite | None = Field(None, ge=0, le=180, description="of the cone, degrees")
    polygon: Annotated[str, StringConstraints(max_length=5000)] | None = Field(
        None,
        description="vertices of a convex polygon as ra,dec,ra,dec,… in degrees, ICRS; its edges are great circles",
        examples=["149,1,151,1,151,3,149,3"],
    )


class OutlierQuery(Search):
    """A page of what is wanted."""

    for_: Text | None = Field(
        None,
        alias="for",
        description="rank the 10,000 highest scores by what this person's labels say; needs kind or model where "
        "there are several, and ten labels",
        examples=["ann"],
    )
    limit: int = Field(50, ge=1, le=MAX_PAGE)
    page: Annotated[str, StringConstraints(max_length=1000)] | None = Field(
        None, description="`next` of the page before"
    )


class Observation(BaseModel):
    """A file in which the object was seen."""

    path: str
    sha256: str
    night: str
    first_seen: datetime
    redshift: float | None
    spectral_class: str
    zwarning: int
    reader_flags: str
    duplicate: bool = Field(description="equal bytes lie under another path")
    superseded: bool = Field(description="the file has other bytes by now")


class Said(BaseModel):
    """A label as it was recorded."""

    label: str
    by: str
    created_at: datetime


class Object(BaseModel):
    """An object and all that is known of it."""

    object_id: str
    kind: Kind
    survey: str
    ra: float | None = Field(description="degrees, ICRS")
    dec: float | None = Field(description="degrees, ICRS")
    observations: list[Observation] = Field(description="the newest first")
    scores: list[Row] = Field(description="of its current observations, the newest first")
    labels: list[Said] = Field(description="their whole history, the oldest first")


class Cluster(BaseModel):
    """A cluster of a model's latent space."""

    model: str
    kind: Kind
    cluster: int
    weight: float = Field(description="share of the training set")
    size: int = Field(description="current observations in it")
    n_labelled: int
    n_lens: int
    lens_fraction: float | None = Field(description="posterior mean; null without labels")
    lens_fraction_low: float | None = Field(description="2.5 % point")
    lens_fraction_high: float | None = Field(description="97.5 % point")


class Model(BaseModel):
    """A trained model."""

    id: str = Field(description="name@version", examples=["sdss@0123456789ab"])
    name: str
    kind: Kind
    created_at: datetime
    n_training: int
    held_out: dict[str, Any] = Field(description="held-out figures by name")
    smallest_p: float | None = Field(description="the smallest p-value that its calibration set resolves")
    domain: dict[str, Any] = Field(description="what the training set covered")
    in_force: bool = Field(description="scores what comes in when no model is named")


class Run(BaseModel):
    """A set of inputs that were scored together; found = queued + scored + failed."""

    id: int
    key: str
    survey: str
    night: str
    models: dict[str, str] = Field(description="model id by kind")
    started_at: datetime
    ended_at: datetime | None = Field(description="null while inputs are queued")
    found: int
    queued: int
    scored: int
    failed: int
    problems: dict[str, str] = Field(
        description="by model id, what looks like an instrument problem; its discoveries are withheld"
    )
    reasons: dict[str, int] = Field(description="how many failed for each reason")


class Batch(BaseModel):
    """Files to score."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"paths": ["/data/spec-0266-51602-0031.fits"], "night": "2026-03-01"}]
        },
    )

    paths: list[Annotated[str, StringConstraints(min_length=1, max_length=4096)]] = Field(
        min_length=1, max_length=MAX_PATHS, description="absolute paths, under PECULIAR_DATA_ROOTS"
    )
    model: Text | None = Field(None, description="id or name; else the newest of each kind")
    night: date | None = Field(None, description="join this night's run; else a run of their own")


class Accepted(BaseModel):
    """What became of a batch: its run tells how far it is."""

    run: int
    queued: int = Field(description="paths that were put on the queue; others were done in this run already")
    night: date
    models: dict[str, str]


class NewLabel(BaseModel):
    """What somebody says about an object."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"label": "lens", "by": "ann"}]}
    )

    label: Text = Field(description="lens, not-lens, interesting, artefact, or another word")
    by: Text = Field(description="who says so")


class Recorded(BaseModel):
    objects: int = Field(description="how many objects have this identity and carry the label now")


class Health(BaseModel):
    status: Literal["ok"] = "ok"
