"""Who may ask for what, and how often: keys with roles, and a limit on requests."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.api.problems import ProblemError, document
from service.catalog.keys import find_caller

MANY = 10_000
"""Callers remembered at a time."""

_bearer = HTTPBearer(auto_error=False, description="a key that `peculiar keys add` made")


class RateLimit:
    """A token bucket for each caller: a minute's requests at once, refilled steadily.

    It lives in this process, and `peculiar serve` is one process.
    """

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self.now = per_minute, now
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def wait(self, caller: str) -> float:
        """Seconds until the caller may ask; 0 takes one request from the bucket."""
        now, rate = self.now(), self.per_minute / 60
        with self._lock:
            left, then = self._buckets.pop(caller, (float(self.per_minute), now))
            left = min(self.per_minute, left + (now - then) * rate)
            allowed = left >= 1
            self._buckets[caller] = (left - 1 if allowed else left, now)
            while len(self._buckets) > MANY:  # the one that has been silent for longest goes
                del self._buckets[next(iter(self._buckets))]
        return 0.0 if allowed else (1 - left) / rate


def limited(request: Request) -> None:
    """Dependency of routes without keys: the limit of the address."""
    _take(request, f"address {request.client.host if request.client else ''}")


def allow(role: str, basic: bool = False) -> Callable[..., None]:
    """Dependency of routes for this role and those above it.

    With ``basic``, a key may also come as the password of HTTP's basic authentication, whatever the user is called:
    many clients know nothing else.
    Without a key, or with a bad one, an address has its limit, which makes trying keys slow.
    """

    def check(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> None:
        state = request.app.state
        if not state.keys_required:
            return limited(request)
        key = given.credentials if given else _password(request) if basic else None
        caller = find_caller(state.engine, key) if key else None
        if caller is None:
            limited(request)
            what = "this key is not good: it is misspelt or revoked" if key else "this needs a key"
            how = ", or as a password" if basic else ""
            challenge = 'Basic realm="peculiar", Bearer' if basic else "Bearer"
            raise ProblemError(
                401, f"{what}; send one as `Authorization: Bearer KEY`{how}", {"WWW-Authenticate": challenge}
            )
        request.state.caller = caller.name
        _take(request, f"key {caller.name}")
        if not caller.may(role):
            raise ProblemError(
                403, f"this needs a key with the role {role}, and {caller.name!r} has {caller.role}"
            )

    return check


def router_for(role: str, *tags: str) -> APIRouter:
    """A router whose routes take keys of this role and those above it, and say so in OpenAPI."""
    refusals = document(401, 403, 429)
    return APIRouter(dependencies=[Depends(allow(role))], responses=refusals, tags=list(tags))


def _password(request: Request) -> str | None:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except ValueError:
        return None


def _take(request: Request, caller: str) -> None:
    wait = request.app.state.rate_limit.wait(caller)
    if wait > 0:
        seconds = str(int(wait) + 1)
        raise ProblemError(429, f"too many requests: try again in {seconds} s", {"Retry-After": seconds})
