"""Metrics for Prometheus, derived from the catalog and the queue when they are asked for.

Nothing is counted in this process, so the figures are right whatever was restarted and however many workers there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import sqlalchemy as sa
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from service.catalog.figures import figures
from service.queue import BrokerError, live_workers, waiting_messages

if TYPE_CHECKING:
    from celery import Celery

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def exposition(engine: sa.Engine, app: Celery | None) -> bytes:
    """All metrics in Prometheus' text format; those of the queue only where there is a broker."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(engine, app))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, engine: sa.Engine, app: Celery | None) -> None:
        self.engine, self.app = engine, app

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from _of_catalog(self.engine)
        if self.app is not None:
            yield from _of_queue(self.app)


def _of_catalog(engine: sa.Engine) -> Iterator[Metric]:
    now = figures(engine)
    read = now.scored + now.failed.total()
    yield CounterMetricFamily("peculiar_inputs_read", "Inputs that have a score or a failure", read)
    yield CounterMetricFamily("peculiar_inputs_scored", "Inputs that have a score", now.scored)
    failed = CounterMetricFamily("peculiar_inputs_failed", "Inputs that have a failure", labels=["reason"])
    for reason, n in now.failed.items():
        failed.add_metric([reason], n)
    yield failed
    yield _gauge("inputs_queued", "Inputs of open runs that have neither yet", now.queued)
    yield _gauge(
        "oldest_unscored_timestamp_seconds", "When the input that has waited longest came", now.oldest_queued
    )
    yield _gauge("last_commit_timestamp_seconds", "When a worker last wrote a batch", now.last_commit)
    yield _gauge("last_run_end_timestamp_seconds", "When a run last ended", now.last_run_end)
    yield _gauge("flagged_runs", "Runs of the last day that look like an instrument problem", now.flagged)
    stages = CounterMetricFamily("peculiar_stage_seconds", "Work of all workers", labels=["stage"])
    for stage, seconds in now.seconds.items():
        stages.add_metric([stage], seconds)
    yield stages


def _of_queue(app: Celery) -> Iterator[Metric]:
    try:
        waiting, workers = waiting_messages(app), len(live_workers(app))
    except BrokerError:
        yield _gauge("broker_up", "Whether the broker answers", 0)
        return
    yield _gauge("broker_up", "Whether the broker answers", 1)
    yield _gauge("queue_messages", "Messages that no worker has taken", waiting)
    yield _gauge("workers", "Workers that answer", workers)


def _gauge(name: str, meaning: str, value: float | None) -> GaugeMetricFamily:
    """Without a sample where there is no value: nothing was ever written, nothing waits."""
    if value is None:
        return GaugeMetricFamily(f"peculiar_{name}", meaning, labels=[])
    return GaugeMetricFamily(f"peculiar_{name}", meaning, value)
