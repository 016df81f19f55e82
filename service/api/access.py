"""One log line for each request: what was asked, by whom, what came of it."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


class AccessLog:
    """ASGI middleware. The query is left out of the line: it may hold what its sender would not publish."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        scope.setdefault("state", {})
        try:
            await self.app(scope, receive, noting)
        finally:
            facts = {
                "caller": scope["state"].get("caller") or (scope["client"] or ("",))[0],
                "status": status,
                "seconds": round(time.monotonic() - started, 4),
            }
            logger.info(
                "%s %s", scope["method"], scope["path"].encode("unicode_escape").decode(), extra=facts
            )
