"""`peculiar serve`: the HTTP API."""

from __future__ import annotations

import functools
import os
import threading
from ipaddress import ip_address
from typing import Any

import click

from service.cli import console


@click.command
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
def command(host: str, port: int) -> None:
    """Serve the HTTP API until stopped; its documentation is under /docs.

    Clients need a key (`peculiar keys add`) unless it listens on loopback and PECULIAR_API_KEYS is auto.
    """
    # Before numpy is imported: requests share the cores, and BLAS threads that wait for one another make the search for
    # nearest latents take twenty times as long on a busy machine.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import uvicorn

    from service.api import make_api

    console.start_logging("info")
    settings = console.load_settings()
    keys_required = settings.api_keys == "always" or not _is_loopback(host)
    api = make_api(settings, keys_required, examine=_examiner(settings))
    who = "with keys" if keys_required else "without keys, to this host only"
    console.note(f"listening on http://{host}:{port} {who}, documentation at http://{host}:{port}/docs")
    threading.Thread(target=_import_ahead, daemon=True).start()
    uvicorn.run(api, host=host, port=port, log_level="warning", log_config=None, access_log=False)


def _import_ahead() -> None:
    """What the first ranking by labels needs and takes seconds to import, so that it need not wait."""
    import sklearn.ensemble  # noqa: F401  # to have been imported is all

    import models.interest  # noqa: F401  # likewise


def _examiner(settings: Any) -> Any:
    """What reads and scores uploaded files; torch and the models are loaded when the first one comes."""
    from service.api.problems import ProblemError
    from workers.examination import Examiner, ModelMissingError
    from workers.tasks import load_bundle

    examiner = Examiner(functools.partial(load_bundle, settings))

    def examine(content: bytes, name: str, models: dict[str, str]) -> Any:
        try:
            return examiner(content, name, models)
        except ModelMissingError as error:
            raise ProblemError(
                503, f"{error}; PECULIAR_MODEL_DIR has to hold its bundle here, too"
            ) from error

    return examine


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
