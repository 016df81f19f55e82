"""Renews the lease on the messages that this worker holds, so that only a dead worker's come back.

Redis knows nothing of its consumers: a message that was delivered and not acknowledged is handed out again
when it is older than the visibility timeout, whether its worker died or is merely busy. With this step a
busy worker says every few seconds that it is alive, so the timeout can be short.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import bootsteps

from service.queue import SWEEP_S

logger = logging.getLogger(__name__)


class RenewLease(bootsteps.StartStopStep):
    """Consumer step: every SWEEP_S seconds, the messages not yet acknowledged become new again."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        self.timer: Any = None
        super().__init__(consumer, **kwargs)

    def start(self, consumer: Any) -> None:
        if consumer.connection.transport.driver_type == "redis":
            self.timer = consumer.timer.call_repeatedly(SWEEP_S, renew, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def renew(consumer: Any) -> None:
    """Renew the lease of every message that ``consumer`` was given and has not acknowledged."""
    channel = consumer.task_consumer.channel
    tags = list(channel.qos._delivered)
    if not tags:
        return
    now = time.time()
    try:
        with channel.conn_or_acquire() as client:
            # xx: a message that was acknowledged in this very moment must not come back.
            client.zadd(channel.unacked_index_key, dict.fromkeys(tags, now), xx=True)
    except consumer.connection_errors:
        logger.warning("the broker did not answer when renewing the lease of %d messages", len(tags))
