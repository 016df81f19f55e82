"""Requests that nobody thought of, drawn from the API's own OpenAPI document: none may be a fault of ours."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.api import make_api
from service.catalog.engine import open_catalog
from service.catalog.keys import add_key
from service.catalog.registry import register_model
from service.catalog.rows import ModelRow, ScoredRow
from service.catalog.runs import finish_if_complete, open_run
from service.catalog.writer import write_batch
from service.settings import Settings

REQUESTS = 20
"""For each route."""
MODEL = "sdss@0123456789ab"
PROMISED = [status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def api_and_key(tmp_path_factory: pytest.TempPathFactory, make_row: Callable[..., ScoredRow]) -> Any:
    """An API whose catalog holds something, and a key that may do everything."""
    folder = tmp_path_factory.mktemp("fuzz")
    fuzzed = Settings(
        _env_file=None, database_url=f"sqlite:///{folder}/catalog.db", rate_limit=10**9, data_roots=[folder]
    )
    engine = open_catalog(fuzzed.database_url, create=True)
    register_model(engine, ModelRow(MODEL, "sdss", "spectrum", "/models/sdss", 800, 0.005, [0.5, 0.3, 0.2]))
    run = open_run(engine, "night", "sdss", "2026-03-01", {"spectrum": MODEL})
    write_batch(engine, run, [make_row(i) for i in range(5)], [])
    finish_if_complete(engine, run)
    return make_api(fuzzed), add_key(engine, "fuzz", "admin")


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_is_a_fault_of_ours(api_and_key: Any, mode: GenerationMode) -> None:
    api, key = api_and_key
    for found in schemathesis.openapi.from_asgi("/openapi.json", api).get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=REQUESTS, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        def ask(case: Any) -> None:
            response = case.call(headers={"Authorization": f"Bearer {key}"})
            # 503 is an answer: the catalog in this test has no broker beside it.
            assert response.status_code < 500 or response.status_code == 503, response.text
            case.validate_response(response, checks=PROMISED)

        with suppress(Unsatisfiable):  # a route without parameters has no wrong ones
            ask()
