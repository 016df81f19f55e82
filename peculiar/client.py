"""The HTTP API as Python: questions as arguments, answers as astropy tables.

    from peculiar import Client

    client = Client("http://api:8000", key="…")
    client.outliers(20, kind="spectrum", q=0.1, spectral_class="QSO")
    client.neighbours("spec-0266-51602-0031.fits")

docs/searching.md explains the filters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack
from urllib.parse import quote

import httpx

from service.catalog.columns import ROW, part_name

if TYPE_CHECKING:
    from astropy.table import QTable

PAGE = 1000
"""Rows asked for at a time."""
NUMBERS = {
    *(column.name for column in ROW if column.type in ("float", "int")),
    *("distance", "redshift", "smallest_p", "lens_fraction_low", "lens_fraction_high"),
}
"""Which are numbers, also where all of them are missing."""
TIMES = ("scored_at", "started_at", "ended_at", "first_seen", "created_at")


class PeculiarError(Exception):
    """What the service answered instead of a result, in its own words; ``status`` is 0 where nobody answered."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Filters(TypedDict, total=False):
    """Which observations are wanted: all that is given has to hold."""

    kind: str
    model: str
    night: str | date
    since: str | date
    until: str | date
    cluster: int
    p: float
    q: float
    flagged: bool
    part: str
    part_p: float
    lens_fraction: float
    snr_min: float
    snr_max: float
    redshift_min: float
    redshift_max: float
    spectral_class: str
    label: str
    labelled: bool
    flag: str
    no_flag: str
    search: str
    ra: float
    dec: float
    radius: float
    polygon: str | Sequence[tuple[float, float]]
    """Vertices (ra, dec) in degrees, of a convex polygon."""


class Client:
    """A Peculiar service. Every method raises PeculiarError where it answers with a problem, or not at all."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        timeout: float = 60.0,
        http: httpx.Client | None = None,
    ) -> None:
        """``key`` is one that `peculiar keys add` made, where the service asks for keys; ``timeout`` in seconds."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = http or httpx.Client(base_url=url, headers=headers, timeout=timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the service."""
        self._http.close()

    def outliers(self, limit: int | None = 100, **filters: Unpack[Filters]) -> QTable:
        """The most anomalous observations, the highest scores first: at most ``limit``, or all with None."""
        return _rows(self._pages("/outliers", limit, filters))

    def export(self, path: str | Path, limit: int | None = None, **filters: Unpack[Filters]) -> Path:
        """Save what ``outliers`` gives to a file: .csv, .parquet, .fits or .vot."""
        path = Path(path)
        form = {".vot": "votable", ".xml": "votable"}.get(path.suffix.lower(), path.suffix.lower()[1:])
        wanted = _parameters({**filters, "format": form, "limit": limit})
        path.write_bytes(self._ask("GET", "/outliers/export", params=wanted).content)
        return path

    def object(self, object_id: str, kind: str | None = None, survey: str | None = None) -> dict[str, Any]:
        """An object: its identity and position, and tables of its ``observations``, ``scores`` and ``labels``."""
        found = self.get(f"/objects/{quote(object_id, safe='')}", kind=kind, survey=survey)
        tables = {"scores": _rows(found["scores"])}
        return found | tables | {name: _table(found[name]) for name in ("observations", "labels")}

    def neighbours(
        self,
        what: str | Path,
        k: int = 10,
        model: str | None = None,
        kind: str | None = None,
        survey: str | None = None,
    ) -> QTable:
        """The ``k`` observations nearest in a model's latent space, with their ``distance``, the nearest first.

        ``what`` is an object's identity, or the path of a FITS file here, which is sent, scored and forgotten; the
        table's ``meta`` then has its ``score``, ``p_value``, ``parts`` and so on.
        """
        file = Path(what)
        if isinstance(what, Path) or file.is_file():
            wanted = _parameters({"k": k, "model": model, "kind": kind, "name": file.name})
            answer = self._ask("POST", "/neighbours", params=wanted, content=file.read_bytes()).json()
            return _rows(answer.pop("neighbours"), ("distance",), answer)
        path = f"/objects/{quote(what, safe='')}/neighbours"
        return _rows(self.get(path, k=k, model=model, kind=kind, survey=survey), ("distance",))

    def picture(self, object_id: str, kind: str | None = None, survey: str | None = None) -> bytes:
        """An outlier with its reconstruction and residual, a PNG image."""
        wanted = _parameters({"kind": kind, "survey": survey})
        return self._ask("GET", f"/objects/{quote(object_id, safe='')}/picture.png", params=wanted).content

    def label(self, object_id: str, label: str, by: str) -> int:
        """Record what somebody says about an object; how many objects have that identity."""
        said = {"label": label, "by": by}
        answer = self._ask("POST", f"/objects/{quote(object_id, safe='')}/labels", json=said)
        return int(answer.json()["objects"])

    def clusters(self, model: str | None = None) -> QTable:
        """The latent clusters with their lens fractions."""
        return _table(self.get("/clusters", model=model))

    def models(self, kind: str | None = None) -> QTable:
        """All models, the newest first."""
        listed = self.get("/models", kind=kind)
        return _table([{k: v for k, v in row.items() if not isinstance(v, dict)} for row in listed])

    def runs(self, limit: int = 20) -> QTable:
        """The last runs, the newest first."""
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            before = found[-1]["id"] if found else None
            page = self.get("/runs", limit=min(100, limit - len(found)), before=before)
            if not page:
                break
            found += page
        return _table([{k: v for k, v in row.items() if not isinstance(v, dict)} for row in found])

    def digest(self, night: str | date | None = None, q: float = 0.1) -> dict[str, Any]:
        """What a night brought: ``night``, a table of ``runs``, and ``models``, each with a table of ``discoveries``.

        ``problems`` says what looks like an instrument problem.
        """
        found = self.get("/digest", night=night, q=q)
        for model in found["models"]:
            model["discoveries"] = _rows(model["discoveries"])
        problems = [problem for run in found["runs"] for problem in run["problems"].values()]
        runs = [{k: v for k, v in run.items() if not isinstance(v, dict)} for run in found["runs"]]
        return found | {"runs": _table(runs), "problems": problems}

    def searches(self) -> dict[str, dict[str, Any]]:
        """The searches that are kept: their filters by name."""
        return {row["name"]: row["query"] for row in self.get("/searches")}

    def save_search(self, name: str, by: str, **filters: Unpack[Filters]) -> None:
        """Keep a search under a name."""
        self._ask("POST", "/searches", json={"name": name, "by": by, "query": _parameters(filters)})

    def search(self, name: str, limit: int | None = 100) -> QTable:
        """What a search that is kept finds now; as ``outliers``."""
        return _rows(self._pages(f"/searches/{quote(name, safe='')}/outliers", limit, {}))

    def delete_search(self, name: str) -> None:
        """Forget a search that is kept."""
        self._ask("DELETE", f"/searches/{quote(name, safe='')}")

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON that the service answers with at any path."""
        return self._ask("GET", path, params=_parameters(parameters)).json()

    def _pages(self, path: str, limit: int | None, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token: str | None = None
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            page = self.get(path, **{**filters, "limit": size, "page": token})
            found += page["items"]
            token = page["next"]
            if token is None:
                break
        return found

    def _ask(self, method: str, path: str, **what: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **what)
        except httpx.HTTPError as error:
            msg = f"no Peculiar service answers at {self._http.base_url}: {error}"
            raise PeculiarError(msg) from error
        if response.is_success:
            return response
        try:
            detail = str(response.json()["detail"])
        except (ValueError, KeyError, TypeError):  # something between here and the service
            detail = f"{response.status_code} {response.reason_phrase}"
        raise PeculiarError(detail, response.status_code)


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, as the API writes it."""
    polygon = given.get("polygon")
    written = {name: value for name, value in given.items() if value is not None}
    if polygon is not None and not isinstance(polygon, str):
        written["polygon"] = ",".join(f"{float(ra)!r},{float(dec)!r}" for ra, dec in polygon)
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in written.items()}


def _rows(
    items: Iterable[Mapping[str, Any]], more: tuple[str, ...] = (), meta: dict[str, Any] | None = None
) -> QTable:
    """Rows of scores, each part of the score a column; units and descriptions as the catalog's."""
    flat = [
        {name: value for name, value in item.items() if name not in ("parts", "windows")}
        | {part_name(name): value for name, value in item["parts"].items()}
        for item in items
    ]
    names = [column.name for column in ROW]
    # every part is a number, also one that none of the rows has
    parts = {name for row in flat for name in row if name not in names}
    table = _table(flat, [*names, *more], parts)
    for column in ROW:
        table[column.name].info.description = column.description
        if column.unit:
            table[column.name] = table[column.name] * _unit(column.unit)
            table[column.name].info.description = column.description
    table.meta.update(meta or {})
    return table


def _unit(name: str) -> Any:
    from astropy import units

    return units.Unit(name)


def _table(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str] = (), numbers: Iterable[str] = ()
) -> QTable:
    """Missing numbers are NaN, missing text is empty; times are astropy's."""
    from astropy.table import QTable

    names = list(dict.fromkeys([*names, *(name for row in rows for name in row)]))
    numbers = NUMBERS | set(numbers)
    return QTable({name: _column(name, [row.get(name) for row in rows], name in numbers) for name in names})


def _column(name: str, values: list[Any], is_number: bool) -> Any:
    import numpy as np
    from astropy.time import Time

    if name in TIMES and values and all(values):
        return Time([str(value).removesuffix("Z") for value in values], format="isot", scale="utc")
    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known) or (not known and not is_number):
        return np.array(["" if value is None else str(value) for value in values], dtype=np.str_)
    if len(known) < len(values) or any(isinstance(value, float) for value in known) or not known:
        return np.array([np.nan if value is None else value for value in values], dtype=float)
    return np.array(values)
