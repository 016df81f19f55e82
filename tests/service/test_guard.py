"""Keys, roles and limits: who gets in, who does not, and what they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from fastapi.testclient import TestClient

from service.api import make_api
from service.api.guard import MANY, RateLimit
from service.catalog.engine import CatalogError
from service.catalog.keys import ROLES, add_key, find_caller, list_keys, revoke_key
from service.catalog.schema import api_keys
from service.settings import Settings

NEEDS = {
    ("GET", "/outliers"): "read",
    ("GET", "/objects/x"): "read",
    ("GET", "/models"): "read",
    ("GET", "/metrics"): "read",
    ("POST", "/objects/x/labels"): "label",
    ("POST", "/batches"): "submit",
    ("POST", "/models/x/promote"): "admin",
}
BODIES = {"/objects/x/labels": {"label": "lens", "by": "ann"}, "/batches": {"paths": ["/x"]}}


@pytest.fixture
def make_client(catalog_url: str) -> Callable[..., TestClient]:
    def make(keys_required: bool = True, **changes: Any) -> TestClient:
        settings = Settings(_env_file=None, database_url=catalog_url, **changes)
        return TestClient(make_api(settings, keys_required), raise_server_exceptions=False)

    return make


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> Iterator[TestClient]:
    with make_client() as client:
        yield client


def ask(client: TestClient, method: str, url: str, key: str | None) -> Any:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return client.request(method, url, json=BODIES.get(url), headers=headers)


def test_a_key_is_kept_as_its_hash(engine: sa.Engine) -> None:
    key = add_key(engine, "pipeline", "submit")
    caller = find_caller(engine, key)
    assert caller is not None and (caller.name, caller.role) == ("pipeline", "submit")
    with engine.connect() as connection:
        stored = connection.execute(sa.select(api_keys)).mappings().one()
    assert key not in map(str, stored.values()) and len(key) > 40
    assert add_key(engine, "other", "submit") != key
    assert find_caller(engine, key[:-1]) is None and find_caller(engine, "") is None


def test_a_revoked_key_is_no_longer_good_and_its_name_is_free(engine: sa.Engine) -> None:
    key = add_key(engine, "ann", "read")
    with pytest.raises(CatalogError, match="called 'ann' already"):
        add_key(engine, "ann", "read")
    revoke_key(engine, "ann")
    assert find_caller(engine, key) is None
    with pytest.raises(CatalogError, match="no good key"):
        revoke_key(engine, "ann")
    add_key(engine, "ann", "label")
    assert [(k["name"], k["role"], k["revoked_at"] is None) for k in list_keys(engine)] == [
        ("ann", "read", False),
        ("ann", "label", True),
    ]


def test_each_role_may_what_those_before_it_may(engine: sa.Engine, client: TestClient) -> None:
    keys = {role: add_key(engine, role, role) for role in ROLES}
    for (method, url), needed in NEEDS.items():
        for role, key in keys.items():
            response = ask(client, method, url, key)
            refused = response.status_code == 403 and "needs a key with the role" in response.json()["detail"]
            assert refused == (ROLES.index(role) < ROLES.index(needed)), (url, role, response.text)


@pytest.mark.parametrize("key", [None, "", "x", "peculiar_" + "A" * 43, "é", "a b", "' OR 1=1 --", "\x7f"])
def test_bad_keys_are_refused(client: TestClient, engine: sa.Engine, key: str | None) -> None:
    add_key(engine, "somebody", "admin")
    for method, url in NEEDS:
        headers = {} if key is None else {"Authorization": b"Bearer " + key.encode()}
        response = client.request(method, url, json=BODIES.get(url), headers=headers)
        assert response.status_code == 401, url
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["content-type"] == "application/problem+json"


def test_what_needs_no_key(client: TestClient) -> None:
    for url in ("/health", "/docs", "/openapi.json"):
        assert client.get(url).status_code == 200
    assert client.get("/ready").status_code == 503  # it says why, and does not ask for a key


def test_on_loopback_keys_may_be_left_out(make_client: Callable[..., TestClient]) -> None:
    with make_client(keys_required=False) as client:
        assert client.get("/models").json() == []


def test_too_many_requests_wait(make_client: Callable[..., TestClient], engine: sa.Engine) -> None:
    ann, bob = add_key(engine, "ann", "read"), add_key(engine, "bob", "read")
    with make_client() as client:
        client.app.state.rate_limit = RateLimit(2, now=lambda: 0.0)  # type: ignore[attr-defined]  # app is typed as any ASGI
        assert [ask(client, "GET", "/models", ann).status_code for _ in range(3)] == [200, 200, 429]
        refused = ask(client, "GET", "/models", ann)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["content-type"] == "application/problem+json"
        assert ask(client, "GET", "/models", bob).status_code == 200  # another key, another bucket
        tried = [ask(client, "GET", "/models", f"guess-{i}").status_code for i in range(4)]
        assert tried == [401, 401, 429, 429]  # whatever the keys, the address is one
        assert client.get("/health").status_code == 429


def test_a_bucket_fills_steadily() -> None:
    clock = [0.0]
    limit = RateLimit(60, now=lambda: clock[0])
    assert [limit.wait("a") for _ in range(61)] == [0.0] * 60 + [1.0]
    clock[0] += 2
    assert [limit.wait("a") for _ in range(3)] == [0.0, 0.0, 1.0]
    clock[0] += 10_000
    assert sum(limit.wait("a") == 0 for _ in range(100)) == 60
    for i in range(MANY + 10):
        limit.wait(str(i))
    assert len(limit._buckets) == MANY


@pytest.mark.parametrize(
    ("host", "setting", "keys"),
    [
        ("127.0.0.1", "auto", False), ("::1", "auto", False), ("localhost", "auto", False),
        ("0.0.0.0", "auto", True), ("::", "auto", True), ("10.0.0.7", "auto", True), ("box", "auto", True),
        ("127.0.0.1", "always", True),
    ],
)  # fmt: skip
def test_where_keys_are_asked_for(
    host: str, setting: str, keys: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, bool] = {}
    monkeypatch.setattr(
        "service.api.make_api", lambda s, keys_required, examine: made.update(keys=keys_required)
    )
    monkeypatch.setattr("uvicorn.run", lambda api, **options: None)
    monkeypatch.chdir(tmp_path)
    from service.cli.serve import command

    result = CliRunner().invoke(command, ["--host", host], env={"PECULIAR_API_KEYS": setting})
    assert result.exit_code == 0, result.output
    assert made == {"keys": keys}


def test_keys_on_the_command_line(catalog_url: str) -> None:
    from service.cli.keys import command

    def keys(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(command, arguments, env={"PECULIAR_DATABASE_URL": catalog_url})
        assert done.exit_code == code, done.output
        return done.stdout

    key = keys("add", "ann", "--role", "submit").strip()
    assert key.startswith("peculiar_") and " " not in key
    assert "ann" in keys("list") and key not in keys("list")
    keys("add", "bob", "--role", "owner", code=2)
    assert keys("revoke", "ann") == "revoked ann\n"
