"""Searches that are kept under a name."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from service.api import schemas
from service.api.guard import router_for
from service.api.problems import ProblemError, document
from service.api.searching import filters_of
from service.catalog import ranking
from service.catalog.searches import TakenError, delete_search, find_search, list_searches, save_search

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

reading = router_for("read", "searches")
labelling = router_for("label", "searches")

Name = Annotated[str, Path(pattern=NAME, examples=["bright-quasars"])]


class NewSearch(BaseModel):
    """A search to keep."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "bright-quasars",
                    "by": "ann",
                    "query": {"spectral_class": "QSO", "snr_min": 10, "q": 0.1},
                }
            ]
        },
    )

    name: Annotated[str, StringConstraints(pattern=NAME)] = Field(description="letters, digits, . _ and -")
    by: schemas.Text = Field(description="who keeps it")
    query: schemas.Search = Field(description="parameters of `GET /outliers`")


class SavedSearch(BaseModel):
    """A search that somebody keeps."""

    name: str
    by: str
    query: dict[str, Any] = Field(description="parameters of `GET /outliers`")
    created_at: datetime


@labelling.post("/searches", status_code=201, responses=document(400, 404, 409, 413))
def save(request: Request, new: NewSearch) -> SavedSearch:
    """Keep a search under a name. One that could not be run is refused."""
    engine = request.app.state.engine
    with engine.connect() as connection:
        ranking.chosen_models(connection, filters_of(new.query))
    query = new.query.model_dump(mode="json", exclude_defaults=True)
    try:
        return SavedSearch.model_validate(save_search(engine, new.name, new.by, query))
    except TakenError as error:
        raise ProblemError(409, str(error)) from error


@reading.get("/searches")
def searches(request: Request) -> list[SavedSearch]:
    """All searches that are kept, by name."""
    return [SavedSearch.model_validate(row) for row in list_searches(request.app.state.engine)]


@reading.get("/searches/{name}", responses=document(404))
def one_search(request: Request, name: Name) -> SavedSearch:
    """One search that is kept."""
    return SavedSearch.model_validate(find_search(request.app.state.engine, name))


@labelling.delete("/searches/{name}", status_code=204, response_class=Response, responses=document(404))
def delete(request: Request, name: Name) -> None:
    """Forget a search."""
    delete_search(request.app.state.engine, name)


@reading.get("/searches/{name}/outliers", responses=document(404))
def run_search(
    request: Request,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=schemas.MAX_PAGE)] = 50,
    page: Annotated[str | None, Query(max_length=1000, description="`next` of the page before")] = None,
) -> schemas.Outliers:
    """What a search finds now, page by page, as `GET /outliers` gives it."""
    engine = request.app.state.engine
    try:
        query = schemas.Search.model_validate(find_search(engine, name)["query"])
    except ValidationError as error:  # kept by a version that knew other filters
        raise ProblemError(422, f"the search {name!r} cannot be run by this version: keep it anew") from error
    found = ranking.outliers(engine, filters_of(query), limit, page)
    return schemas.Outliers.model_validate({"items": found.rows, "next": found.next})
