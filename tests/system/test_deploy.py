"""What can be checked of deploy/ without a container engine: keys, commands, settings, paths."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli import COMMANDS
from service.settings import Settings

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
COMPOSE = ("compose.yaml", "compose.gpu.yaml")
# https://github.com/compose-spec/compose-spec/blob/main/05-services.md, as far as it is used here
SERVICE_KEYS = {
    *("build", "cap_drop", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "ports"),
    *("read_only", "restart", "security_opt", "shm_size", "stop_grace_period", "tmpfs", "volumes"),
}
HEALTHCHECK_KEYS = {"test", "interval", "timeout", "retries", "start_period"}
CONDITIONS = {"service_healthy", "service_completed_successfully", "service_started"}


def compose(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return loaded


def ours() -> list[tuple[str, dict[str, Any]]]:
    """The services that run this program."""
    return [(name, body) for name, body in compose("compose.yaml")["services"].items() if "build" in body]


@pytest.mark.parametrize("name", COMPOSE)
def test_keys_are_those_of_compose(name: str) -> None:
    top = compose(name)
    assert {key for key in top if not key.startswith("x-")} <= {"name", "services", "volumes"}
    for service, body in top["services"].items():
        assert set(body) <= SERVICE_KEYS, service
        assert set(body.get("healthcheck", {})) <= HEALTHCHECK_KEYS, service


def test_services_depend_on_services_that_can_answer() -> None:
    services = compose("compose.yaml")["services"]
    for name, body in services.items():
        for other, how in body.get("depends_on", {}).items():
            assert how["condition"] in CONDITIONS
            assert other in services, name
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], other


def test_named_volumes_are_declared() -> None:
    top = compose("compose.yaml")
    used = {volume.split(":")[0] for body in top["services"].values() for volume in body.get("volumes", [])}
    named = {volume for volume in used if not volume.startswith(("/", ".", "$"))}
    assert named == set(top["volumes"])


def test_commands_exist() -> None:
    started = [body["command"][0] for _, body in ours()]
    assert sorted(started) == ["beat", "db", "serve", "worker"]
    assert set(started) <= set(COMMANDS)


def test_the_api_answers_where_its_healthcheck_asks(settings: Settings) -> None:
    from service.api import make_api
    from service.catalog.engine import open_catalog

    open_catalog(settings.database_url, create=True).dispose()
    asked = re.search(r"http://127\.0\.0\.1:8000(/\w+)", str(compose("compose.yaml")["services"]["api"]))
    assert asked
    assert asked[1] in make_api(settings).openapi()["paths"]


def test_settings_exist() -> None:
    known = {f"PECULIAR_{field.upper()}" for field in Settings.model_fields}
    for name in COMPOSE:
        for service, body in compose(name)["services"].items():
            used = {key for key in body.get("environment", {}) if key.startswith("PECULIAR_")}
            assert used <= known, service
    for variable in re.findall(r"\bPECULIAR_\w+", (DEPLOY / "Containerfile").read_text()):
        assert variable in known


def test_settings_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for _, body in ours():
        for key, value in body["environment"].items():
            monkeypatch.setenv(key, re.sub(r"\$\{\w+(:-([^}]*)|[^}]*)\}", lambda m: m[2] or "secret", value))
        assert Settings(_env_file=None).broker_url == "redis://redis:6379/0"


def test_variables_are_in_the_example_and_no_secret_is() -> None:
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    lines = [line for line in (DEPLOY / "env.example").read_text().splitlines() if line and line[0] != "#"]
    example = dict(line.split("=", 1) for line in lines)
    assert used == set(example)
    assert example["POSTGRES_PASSWORD"] == ""
    assert ".env" in (DEPLOY / ".gitignore").read_text().split()


def test_the_override_changes_what_there_is() -> None:
    assert set(compose("compose.gpu.yaml")["services"]) <= set(compose("compose.yaml")["services"])


def test_the_image_is_built_from_files_that_exist() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    copied = [path for line in re.findall(r"^COPY ([^-].*)", text, re.M) for path in line.split()[:-1]]
    assert copied
    missing = [path for path in copied if not (REPOSITORY / path).exists()]
    assert not missing
    packages = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert set(packages["wheel"]["packages"]) <= set(copied)
    for name in COMPOSE:
        for body in compose(name)["services"].values():
            if "build" in body:
                assert (DEPLOY / body["build"]["context"] / body["build"]["dockerfile"]).is_file()


def test_the_image_has_the_torch_that_the_project_asks_for() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = next(line for line in project["dependencies"] if line.startswith("torch"))
    assert f'"{wanted}"' in (DEPLOY / "Containerfile").read_text()


def test_the_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\S+)", (DEPLOY / "Containerfile").read_text(), re.M)
    assert users
    assert users[-1] not in ("root", "0")
