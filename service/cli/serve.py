"""`peculiar serve`: the HTTP API."""

from __future__ import annotations

import click

from service.cli import console


@click.command
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
def command(host: str, port: int) -> None:
    """Serve the HTTP API until stopped; its documentation is under /docs."""
    import uvicorn

    from service.api import make_api

    api = make_api(console.load_settings())
    console.note(f"listening on http://{host}:{port}, documentation at http://{host}:{port}/docs")
    uvicorn.run(api, host=host, port=port, log_level="warning", access_log=False)
