"""The command as a person meets it: help, exit codes, messages, settings."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest

from service.cli import COMMANDS
from service.cli.console import explain
from service.logs import hide_passwords

HEAVY = (
    "torch",
    "astropy",
    "sklearn",
    "scipy",
    "celery",
    "sqlalchemy",
    "pyarrow",
    "matplotlib",
    "rich",
    "numpy",
)


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = f"""
import sys
from click.testing import CliRunner
from service.cli import main
print(CliRunner().invoke(main, ["--help"]).output)
print("LOADED", *(name for name in {HEAVY!r} if name in sys.modules))
print("COMMANDS", *(name for name in sys.modules if name.startswith("service.cli.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, loaded, commands = done.stdout.rpartition("LOADED")[0], *done.stdout.splitlines()[-2:]
    for name in COMMANDS:
        assert f"  {name} " in text
    assert loaded.strip() == "LOADED"
    assert commands.strip() == "COMMANDS"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_there_and_explains_itself(name: str) -> None:
    command = importlib.import_module(f"service.cli.{name}").command
    assert isinstance(command, click.Command)
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.is_flag and len(parameter.opts[0]) == 2:
            assert parameter.help


@pytest.mark.parametrize(
    "arguments",
    [["no-such-command"], ["score"], ["simulate", "galaxy"], ["score", "x", "--night", "yesterday"]],
)
def test_wrong_usage_is_2(program: Callable[..., Any], arguments: list[str]) -> None:
    assert "Usage" in program().run(*arguments, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["score", "nothing-here.fits"], "nothing to score"),
        (["score", "@nothing.txt"], "no such list"),
        (["score", ".", "--no-wait"], "PECULIAR_BROKER_URL"),
        (["worker"], "PECULIAR_BROKER_URL"),
        (["beat"], "PECULIAR_BROKER_URL"),
        (["nightly"], "PECULIAR_DATA_ROOTS"),
        (["status"], "there is no catalog"),
    ],
)
def test_what_cannot_be_done_is_1_and_says_why(
    program: Callable[..., Any], arguments: list[str], says: str
) -> None:
    message = program().run(*arguments, code=1).stderr
    assert says in message


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"device": "quantum"}, "PECULIAR_DEVICE"),
        ({"batch_size": "3"}, "PECULIAR_BATCH_SIZE"),
        ({"nightly_at": "25:00"}, "PECULIAR_NIGHTLY_AT"),
        ({"database_url": "mysql://here"}, "SQLite or PostgreSQL"),
        ({"database_url": "postgresql+psycopg://me:secret@127.0.0.1:1/none"}, "cannot use the catalog"),
    ],
)
def test_wrong_settings_are_named(program: Callable[..., Any], settings: dict[str, str], says: str) -> None:
    message = program(**settings).run("status", code=1).stderr
    assert says in message
    assert "secret" not in message


def test_a_broker_that_is_not_there_is_said(program: Callable[..., Any], tmp_path: Any) -> None:
    one = program(broker_url="redis://127.0.0.1:1/0")
    one.run("db", "upgrade")
    assert "does not answer" in one.run("status").stdout
    (tmp_path / "a.fits").write_bytes(b"")
    assert "does not answer" in one.run("score", "a.fits", code=1).stderr


def test_settings_say_where_they_come_from_and_hide_passwords(
    program: Callable[..., Any], tmp_path: Any
) -> None:
    (tmp_path / ".env").write_text("PECULIAR_BATCH_SIZE=128\n")
    shown = program(broker_url="redis://:hush@127.0.0.1/0").json("settings")
    assert shown["PECULIAR_BATCH_SIZE"]["value"] == 128
    assert shown["PECULIAR_BATCH_SIZE"]["source"] == ".env"
    assert shown["PECULIAR_BROKER_URL"]["source"] == "environment"
    assert shown["PECULIAR_BROKER_URL"]["value"] == "redis://:***@127.0.0.1/0"
    assert shown["PECULIAR_NIGHTLY_AT"]["source"] == "default"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:p@h/0", "redis://u:***@h/0"),
        ("redis://u:p@ss/w@h/0", "redis://u:***@h/0"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("postgresql://h/d?user=u&password=p&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        ("at redis://:p@h/0, at amqp://u:p@h//", "at redis://:***@h/0, at amqp://u:***@h//"),
    ],
)
def test_passwords_are_hidden(url: str, shown: str) -> None:
    assert hide_passwords(url) == shown


def test_bad_files_without_a_model_end_as_failures(program: Callable[..., Any], tmp_path: Any) -> None:
    one = program()
    (tmp_path / "empty.fits").write_bytes(b"")
    (tmp_path / "text.fits").write_text("this is no FITS file")
    (tmp_path / "list.txt").write_text("empty.fits\ntext.fits\nempty.fits\ngone.fits\n")
    result = one.json("score", "@list.txt")
    assert (result["read"], result["scored"], result["rejected"]) == (3, 0, 3)
    assert sum(result["reasons"].values()) == 3
    status = one.json("status")
    assert status["scores"] == 0
    assert sum(status["failures"].values()) == 3
    assert status["runs"][0]["ended_at"]


def test_errors_become_one_line() -> None:
    assert (
        explain(FileNotFoundError(2, "No such file or directory", "x.csv"))
        == "x.csv: No such file or directory"
    )
    assert "internal error, KeyError" in explain(KeyError("x"))
    assert explain(ValueError("so and\n  so")) == "so and so"


def test_json_has_no_nan() -> None:
    from click.testing import CliRunner

    from service.cli import console

    @click.command
    def show() -> None:
        console.write_json({"a": float("nan"), "b": [float("inf"), 1.5]})

    assert json.loads(CliRunner().invoke(show).output) == {"a": None, "b": [None, 1.5]}
