"""What Prometheus is told, and that the dashboard and the alerts ask for nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.api.metrics import exposition
from service.catalog.figures import add_seconds
from service.catalog.rows import RejectedRow
from service.catalog.runs import add_inputs, finish_if_complete, open_run
from service.catalog.writer import write_batch
from service.queue import make_app, submit_paths
from service.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
NIGHT = "2026-03-01"


@pytest.fixture
def worked(engine: sa.Engine, run: int, models: dict[str, str], make_row: Callable[..., Any]) -> sa.Engine:
    """A run that has ended and one in which a file waits."""
    write_batch(
        engine, run, [make_row(i) for i in range(3)],
        [RejectedRow("/data/bad.fits", "truncated"), RejectedRow("/data/worse.fits", "no flux")],
    )  # fmt: skip
    add_seconds(engine, run, {"read": 1.5, "score": 3.0, "write": 0.5})
    add_seconds(engine, run, {"read": 0.5})
    finish_if_complete(engine, run)
    add_inputs(engine, open_run(engine, "next", "sdss", NIGHT, models), [("/data/new.fits", 1, 10**18)])
    return engine


def scraped(text: bytes) -> dict[str, float]:
    """Value by name and labels, ``name{label}``."""
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_figures_of_the_catalog(worked: sa.Engine) -> None:
    found = scraped(exposition(worked, None))
    assert found["peculiar_inputs_read_total"] == 5
    assert found["peculiar_inputs_scored_total"] == 3
    assert found["peculiar_inputs_failed_total{truncated}"] == 1
    assert found["peculiar_inputs_failed_total{no flux}"] == 1
    assert found["peculiar_inputs_queued"] == 1
    assert found["peculiar_stage_seconds_total{read}"] == 2.0
    assert found["peculiar_last_commit_timestamp_seconds"] > 1.7e9
    # The file is older than the run that found it, and did not wait before.
    assert found["peculiar_oldest_unscored_timestamp_seconds"] > 1.7e9
    assert "peculiar_workers" not in found


def test_figures_of_the_queue(worked: sa.Engine, settings: Settings, redis_url: str, models: Any) -> None:
    app = make_app(settings.model_copy(update={"broker_url": redis_url}))
    submit_paths(app, 1, "2026-03-01", models, ["/a", "/b", "/c"], 2)  # type: ignore[arg-type]  # pydantic makes a date of it
    found = scraped(exposition(worked, app))
    assert (found["peculiar_broker_up"], found["peculiar_queue_messages"], found["peculiar_workers"]) == (
        1,
        2,
        0,
    )


def test_a_broker_that_is_down_is_a_figure(worked: sa.Engine, settings: Settings) -> None:
    app = make_app(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))
    found = scraped(exposition(worked, app))
    assert found["peculiar_broker_up"] == 0 and "peculiar_queue_messages" not in found
    assert found["peculiar_inputs_read_total"] == 5


def test_an_empty_catalog_has_figures(engine: sa.Engine) -> None:
    found = scraped(exposition(engine, None))
    assert found["peculiar_inputs_read_total"] == 0
    assert "peculiar_last_commit_timestamp_seconds" not in found


def expressions() -> dict[str, str]:
    """Every expression of the alerts and of the dashboard, by what it is for."""
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())
    found = {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}
    board = json.loads((DEPLOY / "dashboard.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


def test_alerts_and_dashboard_ask_for_what_there_is(
    worked: sa.Engine, settings: Settings, redis_url: str
) -> None:
    app = make_app(settings.model_copy(update={"broker_url": redis_url}))
    there = {name.split("{")[0] for name in scraped(exposition(worked, app))} | {"up"}
    asked = {name: set(re.findall(r"\b(?:peculiar_\w+|up\b)", text)) for name, text in expressions().items()}
    assert len(asked) > 12 and all(asked.values())
    assert set().union(*asked.values()) <= there, asked


def test_every_alert_says_what_to_do() -> None:
    guide = (DEPLOY.parent / "docs" / "operations.md").read_text()
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert rule["annotations"]["summary"]
            assert f"`{rule['alert']}`" in guide, rule["alert"]
