"""The API as a process: keys where others can reach it, and a log that a machine can read."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

PASSWORD = "hush-hush"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def ask(port: int, path: str, key: str | None = None) -> int:
    """The status; 0 while nobody listens."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_keys_where_others_can_reach_it(program: Callable[..., Any], until: Callable[..., Any]) -> None:
    one = program(broker_url=f"redis://:{PASSWORD}@127.0.0.1:1/0", log_format="json")
    one.run("db", "upgrade")
    key = one.run("keys", "add", "ann", "--role", "read").stdout.strip()
    port = free_port()
    process = one.start("serve", "--host", "0.0.0.0", "--port", port)
    until(lambda: process.poll() is not None or ask(port, "/health") == 200, what="the API")
    assert [ask(port, "/models"), ask(port, "/models", "wrong"), ask(port, "/models", key)] == [401, 401, 200]
    one.run("keys", "revoke", "ann")
    assert ask(port, "/models", key) == 401
    assert ask(port, "/ready") == 503  # the broker is not there, and its password not in the log
    lines = [json.loads(line) for line in one.logs().splitlines() if line.startswith("{")]
    assert [(line["caller"], line["status"]) for line in lines if line["message"] == "GET /models"] == [
        ("127.0.0.1", 401), ("127.0.0.1", 401), ("ann", 200), ("127.0.0.1", 401),
    ]  # fmt: skip
    assert PASSWORD not in one.logs() and key not in one.logs()


def test_no_keys_on_loopback(program: Callable[..., Any], until: Callable[..., Any]) -> None:
    one = program()
    one.run("db", "upgrade")
    port = free_port()
    one.start("serve", "--port", port)
    until(lambda: ask(port, "/models") == 200, what="the API")
