"""A worker that lives keeps its messages; what it has acknowledged stays gone. Against a real Redis."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from service.queue import LEASE_S, Manifest, make_app, submit
from service.settings import Settings
from workers.lease import renew

LONG_AGO = 1000.0


@pytest.fixture
def consumer(redis_url: str, settings: Settings) -> Any:
    """What the step sees of a worker that has taken two messages and acknowledged none."""
    settings.broker_url = redis_url
    app = make_app(settings)
    for run in (1, 2):
        submit(app, Manifest(run=run, night="2026-03-01", models={}, paths=["/a"]))  # type: ignore[arg-type]  # pydantic reads the date
    with app.connection_for_read() as connection:
        channel = connection.channel()
        taken = [channel.basic_get(app.conf.task_default_queue) for _ in range(2)]
        yield SimpleNamespace(
            task_consumer=SimpleNamespace(channel=channel),
            connection_errors=connection.connection_errors,
            taken=taken,
        )
        for message in taken:
            if not message.acknowledged:
                message.ack()


def ages(consumer: Any) -> dict[str, float]:
    channel = consumer.task_consumer.channel
    with channel.conn_or_acquire() as client:
        return {
            tag.decode(): since
            for tag, since in client.zrange(channel.unacked_index_key, 0, -1, withscores=True)
        }


def make_old(consumer: Any) -> None:
    channel = consumer.task_consumer.channel
    with channel.conn_or_acquire() as client:
        client.zadd(channel.unacked_index_key, dict.fromkeys(ages(consumer), LONG_AGO))


def test_what_is_held_becomes_new_again(consumer: Any) -> None:
    make_old(consumer)
    renew(consumer)
    assert len(ages(consumer)) == 2
    assert all(since > LONG_AGO + LEASE_S for since in ages(consumer).values())


def test_what_is_acknowledged_stays_gone(consumer: Any) -> None:
    delivered = dict(consumer.task_consumer.channel.qos._delivered)
    consumer.taken[0].ack()
    # As if the acknowledgement came between looking and renewing.
    consumer.task_consumer.channel.qos._delivered.update(delivered)
    renew(consumer)
    assert list(ages(consumer)) == [consumer.taken[1].delivery_tag]


def test_a_dead_workers_message_is_handed_out_again(consumer: Any) -> None:
    channel = consumer.task_consumer.channel
    make_old(consumer)
    renew(consumer)
    channel.qos.restore_visible(num=100, interval=1)
    assert len(ages(consumer)) == 2
    make_old(consumer)
    channel.qos.restore_visible(num=100, interval=1)
    assert ages(consumer) == {}
