"""The HTTP API: what is in the catalog, labels, and files to be scored. Made by ``make_api``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.gzip import GZipMiddleware

from peculiar import __version__
from service.api import digests, examining, exporting, page, problems, routes, searches, vo
from service.api.access import AccessLog
from service.api.guard import RateLimit
from service.api.limits import BodyLimit
from service.catalog.engine import open_catalog
from service.catalog.maps import Atlases
from service.catalog.nearest import LatentCache
from service.queue import make_app
from service.settings import Settings
from service.vo.execute import Reader
from service.vo.uws import Jobs

MAX_BODY = 2_000_000
"""Bytes in the body of a request that brings no file."""
ROUTERS = (
    # The page's come first: `/objects/{object_id}` takes whatever begins like this and is not named before it.
    *page.ROUTERS, *routes.ROUTERS, exporting.router, examining.router, searches.reading, searches.labelling,
    digests.router, *vo.ROUTERS,
)  # fmt: skip


def make_api(
    settings: Settings, keys_required: bool = True, examine: examining.Examine | None = None
) -> FastAPI:
    """The application for these settings; without ``keys_required`` whoever reaches it may do everything.

    ``examine`` reads and scores an uploaded file; without it, uploads are answered that nobody can.
    Raises CatalogError where there is no catalog with the schema that this program needs.
    """
    engine = open_catalog(settings.database_url)

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        api.state.vo_jobs.start()
        yield
        api.state.vo_jobs.close()
        api.state.vo_reader.dispose()
        engine.dispose()

    # The page of documentation comes with its scripts: a browser in an observatory may reach no other host.
    api = FastAPIOffline(
        redoc_url=None,
        title="Peculiar",
        version=__version__,
        summary="Calibrated anomaly scores for spectra and image cutouts.",
        description="Angles are in degrees (ICRS), times in UTC. Errors are problem documents (RFC 9457). "
        "Where keys are asked for, send one as `Authorization: Bearer KEY`. The protocols of the Virtual Observatory "
        "are under /vo/cone and /vo/tap.",
        license_info={"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        lifespan=lifespan,
    )
    api.state.settings = settings
    api.state.engine = engine
    api.state.keys_required = keys_required
    api.state.rate_limit = RateLimit(settings.rate_limit)
    # A queue in memory has no worker in this process, so nothing may be put on it.
    api.state.queue = None if settings.broker_url.startswith("memory://") else make_app(settings)
    api.state.examine = examine
    api.state.latents = LatentCache(engine)
    api.state.atlases = Atlases(engine)
    api.state.started_at = datetime.now(UTC)
    api.state.vo_reader = Reader(settings.vo_database_url or settings.database_url)
    api.state.vo_jobs = Jobs(engine, api.state.vo_reader)
    for router in ROUTERS:
        api.include_router(router)
    page.mount(api)
    problems.install(api)
    api.add_middleware(BodyLimit, limit=MAX_BODY, by_path={examining.PATH: examining.MAX_UPLOAD})
    api.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    api.add_middleware(AccessLog)
    _document_problems(api)
    return api


def _document_problems(api: FastAPI) -> None:
    """Put the schema that the routes' errors refer to into the OpenAPI document."""
    plain = api.openapi

    def openapi() -> dict[str, object]:
        described = plain()
        schemas = described["components"]["schemas"]
        schemas["Problem"] = problems.Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return described

    api.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it
