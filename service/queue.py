"""The queue: the messages that carry work, the Celery application, and how to put work in.

Anything that can write to the broker can submit work; it needs to know nothing else. The message is Celery's
protocol 2 with a JSON body, on the queue ``peculiar``::

    headers     {"lang": "py", "task": "peculiar.submit", "id": "<uuid>"}
    properties  {"content_type": "application/json", "content_encoding": "utf-8"}
    body        [[], {"paths": ["/data/spec-0266-51602-0031.fits", ...], "night": "2026-03-01",
                      "model": null}, {}]

``night`` null means today in UTC, ``model`` null the newest of each kind. A worker opens the run of that
night, or extends it, and queues the files; sending a message twice queues nothing twice. Paths are absolute
and lie under PECULIAR_DATA_ROOTS of the worker; any other ends as a failure with its reason.

With Redis a message is one LPUSH to the list ``peculiar``, of the JSON object::

    {"body": "<the body in base64>", "content-type": "application/json", "content-encoding": "utf-8",
     "headers": <the headers>,
     "properties": {"body_encoding": "base64", "delivery_tag": "<uuid>", "priority": 0,
                    "delivery_info": {"exchange": "", "routing_key": "peculiar"}}}

The worker's own messages, ``peculiar.score``, carry a Manifest: {"manifest": {"run": 7, "night": "2026-03-01",
"models": {"spectrum": "sdss@0123456789ab"}, "paths": [...]}}. Their run has to exist in the catalog.

How much waits: a night of a million files is 3,907 messages of 256 paths, 96 MB in Redis for paths of 60
characters. A night is queued at once; nothing larger ever is.

RabbitMQ is the alternative to Redis: with ``amqp://`` the queue is declared as a quorum queue, which is
replicated and survives the loss of a node, and a dead worker's message comes back at once. A message that
its ``delivery-limit`` (20 deliveries by default since RabbitMQ 4) ends is queued again by ``peculiar.resume``;
a policy may lift the limit. While the catalog is away for longer than ``consumer_timeout`` (30 minutes), messages
change hands without harm.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from service.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

SCORE_TASK = "peculiar.score"
SUBMIT_TASK = "peculiar.submit"
NIGHTLY_TASK = "peculiar.nightly"
RESUME_TASK = "peculiar.resume"
QUEUE = "peculiar"
LAST = 9
"""Priority of a backfill. On Redis 0 comes first, which is what messages without one have; RabbitMQ, where the queue
has no priorities unless it is told so, takes messages as they came."""

# Redis keeps a delivered message aside until it is acknowledged, and hands it out again once it has lain
# there for the visibility timeout. Workers renew that lease while they live (workers/lease.py), so it can
# be far shorter than the longest batch, and the batch of a killed worker is back within about LEASE_S +
# SWEEP_S.
LEASE_S = 20
SWEEP_S = 5
RESUME_EVERY_S = 600
LOOKED_THROUGH = 100
"""Messages in which a batch is looked for; more of them are no sign of an idle queue."""


class BrokerError(ConnectionError):
    """The broker cannot be reached; the words are for the person who asked."""


class Manifest(BaseModel):
    """One message: up to 512 paths of one run, and the models to score them with."""

    model_config = ConfigDict(extra="forbid")

    run: int
    night: date
    models: dict[str, str] = Field(
        description="model id by kind of input; inputs of any other kind are rejected with a reason"
    )
    paths: list[str] = Field(min_length=1, max_length=512)


class Request(BaseModel):
    """What a program that knows only the broker asks for: these files, in the run of this night."""

    model_config = ConfigDict(extra="forbid")

    paths: list[str] = Field(min_length=1, max_length=5000, description="absolute, under PECULIAR_DATA_ROOTS")
    night: date | None = Field(None, description="today in UTC unless given")
    model: str | None = Field(None, description="name or id; the newest of each kind unless given")


def make_app(settings: Settings) -> Celery:
    """A Celery application for these settings. Tasks are added by ``workers.tasks.register``.

    Messages are JSON only; there is no result backend, since the catalog is the result. ``memory://`` gets a
    queue of its own, because Celery's memory transport is shared by everything in the process.
    """
    from celery import Celery
    from celery.schedules import crontab

    in_memory = settings.broker_url.startswith("memory://")
    hour, minute = settings.nightly_at.split(":")
    # kombu warns of a memory:// without a host
    app = Celery(
        "peculiar", broker="memory://localhost" if in_memory else settings.broker_url, set_as_current=False
    )
    app.conf.update(
        task_default_queue=f"{QUEUE}-{uuid.uuid4().hex[:12]}" if in_memory else QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_timer_precision=0.1 if in_memory else 1.0,  # how long a worker in this process takes to stop
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options=_transport_options(settings.broker_url),
        timezone="UTC",
        beat_schedule={
            "nightly": {"task": NIGHTLY_TASK, "schedule": crontab(hour=hour, minute=minute)},
            "resume": {
                "task": RESUME_TASK,
                "schedule": RESUME_EVERY_S,
                "options": {"expires": RESUME_EVERY_S},
            },
        },
        # The default scheduler keeps its state in a pickle; the nightly run needs none.
        beat_scheduler="celery.beat:Scheduler",
    )
    if settings.broker_url.startswith("amqp"):
        app.conf.task_default_queue_type = "quorum"
    return app


def _transport_options(broker_url: str) -> dict[str, Any]:
    if broker_url.startswith("memory://"):
        return {"polling_interval": 0.02}
    if broker_url.startswith(("redis", "sentinel", "valkey")):
        return {
            "visibility_timeout": LEASE_S,
            "unacked_restore_interval": SWEEP_S,
            "unacked_restore_throttle": 1,
            "unacked_restore_limit": 100,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
        }
    return {"confirm_publish": True}


@contextmanager
def reachable(app: Celery) -> Iterator[None]:
    """Turns a broker's silence into one sentence for the user."""
    from kombu.exceptions import OperationalError

    connection = app.connection_for_write()
    try:
        yield
    except (OperationalError, *connection.connection_errors) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        # as_uri() leaves the password out.
        raise BrokerError(f"the broker at {connection.as_uri()} does not answer: {reason}") from error


def submit(app: Celery, manifest: Manifest, backfill: bool = False) -> None:
    """Put one message on the queue, with ``backfill`` behind all that are not.

    :raises BrokerError: when the broker cannot be reached.
    """
    with reachable(app):
        app.send_task(
            SCORE_TASK,
            kwargs={"manifest": manifest.model_dump(mode="json")},
            priority=LAST if backfill else None,
        )


def submit_paths(
    app: Celery, run: int, night: date, models: dict[str, str], paths: Sequence[str], batch_size: int,
    backfill: bool = False,
) -> None:  # fmt: skip
    """Put all paths of a run on the queue, ``batch_size`` to a message.

    :raises BrokerError: when the broker cannot be reached.
    """
    for start in range(0, len(paths), batch_size):
        chunk = list(paths[start : start + batch_size])
        submit(app, Manifest(run=run, night=night, models=models, paths=chunk), backfill)


def waiting_messages(app: Celery) -> int:
    """Messages on the queue that no worker has taken yet; 0 when the queue does not exist.

    :raises BrokerError: when the broker cannot be reached.
    """
    with reachable(app), app.connection_for_read() as connection, connection.channel() as channel:
        try:
            return int(channel.queue_declare(app.conf.task_default_queue, passive=True).message_count)
        except connection.channel_errors as error:
            if isinstance(error, connection.connection_errors):
                raise
            return 0


def idle(app: Celery) -> bool:
    """Whether no batch waits on the queue, and none is in a worker's hands.

    :raises BrokerError: when the broker cannot be reached.
    """
    n = waiting_messages(app)
    if n > LOOKED_THROUGH:
        return False
    with reachable(app), app.connection_for_read() as connection, connection.channel() as channel:
        if connection.transport.driver_type == "redis":
            with channel.conn_or_acquire() as client:
                held = [json.loads(text)[0] for text in client.hvals(channel.unacked_key)]
                waiting = map(json.loads, client.lrange(app.conf.task_default_queue, 0, LOOKED_THROUGH))
            tasks = [message.get("headers", {}).get("task") for message in (*held, *waiting)]
        elif connection.transport.driver_type == "memory":
            from celery.worker.state import reserved_requests

            tasks = [SCORE_TASK] * n + [request.name for request in reserved_requests]
        else:
            answers = app.control.inspect(timeout=1).active() or {} if n == 0 else {}
            tasks = [SCORE_TASK] * n + [task["name"] for each in answers.values() for task in each]
    return SCORE_TASK not in tasks


def live_workers(app: Celery, timeout: float = 1.0) -> list[str]:
    """Names of the workers that answer within ``timeout`` seconds.

    :raises BrokerError: when the broker cannot be reached.
    """
    with reachable(app):
        replies: Iterable[dict[str, Any]] = app.control.ping(timeout=timeout) or []
    return sorted(name for reply in replies for name in reply)
