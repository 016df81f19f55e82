"""A night in a catalog, served, and a browser to look at it.

The browser is the system's Chromium, driven by Playwright; `make test` installs it where it may. Screenshots of every
test lie in build/screenshots afterwards, for whoever changed the page to look at.
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import uvicorn

from models.explanation import Explanation, ImageWindow, SpectralWindow
from service.api import make_api
from service.catalog.engine import open_catalog
from service.catalog.labels import labels_now
from service.catalog.registry import register_model
from service.catalog.rows import ModelRow, RejectedRow, ScoredRow
from service.catalog.runs import finish_if_complete, open_run
from service.catalog.schema import labels, objects
from service.catalog.writer import write_batch
from service.settings import Settings

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
MODELS = {"spectrum": "sdss@0123456789ab", "cutout": "lens@ba9876543210"}
NIGHTS = ("2026-03-01", "2026-03-02")
PATIENCE = 20
"""Seconds that anything may take on a busy machine."""
N_SPECTRA, N_CUTOUTS, N_EXPLAINED = 60, 30, 20
ODD = "field 7/a?b#c%20<b>é</b>"
"""An identity that no address and no markup may take for its own."""


def explained_spectrum(i: int) -> bytes:
    rng = np.random.default_rng(i)
    loglam = (3.58, 1e-3)
    wavelength = 10 ** (loglam[0] + loglam[1] * np.arange(380))
    expected = 1 + 0.2 * np.sin(wavelength / 900)
    flux = expected + rng.normal(0, 0.05, 380) + 1.5 * np.exp(-0.5 * ((wavelength - 4862.7) / 12) ** 2)
    flux[:5] = np.nan
    residual = np.nan_to_num((flux - expected) / 0.05)
    windows = [SpectralWindow(21.0 + i, 4840.0, 4885.0, "Hβ")]
    planes = (plane[None].astype(np.float32) for plane in (flux, expected, residual))
    return Explanation(*planes, windows, {"misfit": 0.7, "window": 0.3}, loglam=loglam).to_bytes()


def explained_cutout(i: int) -> bytes:
    rng = np.random.default_rng(i)
    y, x = np.mgrid[:48, :48]
    galaxy = np.exp(-np.hypot(x - 24, (y - 24) * (1 + 0.1 * (i % 5))) / 5)
    arc = np.exp(-((np.hypot(x - 24, y - 24) - 12) ** 2) / 6) * (x > 24)
    shape = np.array([0.6, 1.0, 1.3])[:, None, None]
    flux = np.arcsinh(8 * shape * galaxy + 2 * arc[None] / shape + rng.normal(0, 0.1, (3, 48, 48)))
    expected = np.arcsinh(8 * shape * galaxy)[:, ::2, ::2]
    residual = 4 * (flux[:, ::2, ::2] - expected)
    windows = [ImageWindow(12.0 + i, "g", 24, 36, 6, 12.0, 270.0)]
    planes = (plane.astype(np.float32) for plane in (flux, expected, residual))
    return Explanation(*planes, windows, {"appearance": 1.0}, bands=("g", "r", "i")).to_bytes()


def row(kind: str, i: int, **changes: Any) -> ScoredRow:
    """The i-th most anomalous of a kind."""
    p = (i + 1) / 400
    rng = np.random.default_rng([i, len(kind)])
    windows: list[dict[str, Any]] = [{"significance": 21.0 + i, "low": 4840.0, "high": 4885.0, "line": "Hβ"}]
    if kind == "cutout":
        windows = [
            {"significance": 12.0 + i, "band": "g", "row": 24, "column": 36, "size": 6, "radius": 12.0,
             "position_angle": 270.0}
        ]  # fmt: skip
    explain = explained_spectrum if kind == "spectrum" else explained_cutout
    values: dict[str, Any] = {
        "kind": kind, "survey": "sdss" if kind == "spectrum" else "", "object_id": f"{kind}-{i:03d}",
        "path": f"/data/{kind}-{i:03d}.fits", "sha256": f"{i:04d}{kind}", "ra": (i * 37.3) % 360,
        "dec": math.degrees(math.asin(math.sin(i * 1.7))) * 0.9, "night": NIGHTS[i % 5 != 4], "redshift": 0.1 + i / 100,
        "spectral_class": "GALAXY", "zwarning": 0, "reader_flags": set(), "model": MODELS[kind], "elbo": -100.0,
        "log_px": -99.0, "log_density": -5.0, "chi2": 1.5, "score": -math.log10(p) * 2, "p_value": p, "cluster": i % 3,
        "cluster_probability": 0.8, "snr": 12.0, "flags": {"zwarning"} if i == 2 else set(),
        "parts": {"misfit": 2.0, "misfit_p": p, "window": 1.0, "window_p": min(1.0, 4 * p), "sharpness": 0.3},
        "latent": (rng.normal(size=4) * (3, 2, 1, 1)).astype(np.float32), "latent_var": np.ones(4, np.float32),
        "responsibilities": np.roll(np.array([0.8, 0.2, 0.0], np.float32), i % 3), "windows": windows,
        "explanation": explain(i) if i < N_EXPLAINED else None,
    }  # fmt: skip
    return ScoredRow(**(values | changes))


def fill(url: str) -> sa.Engine:
    """A catalog of two nights of spectra and cutouts."""
    engine = open_catalog(url, create=True)
    for kind, model in MODELS.items():
        name = model.split("@")[0]
        register_model(engine, ModelRow(model, name, kind, f"/models/{name}", 800, 0.0025, [0.5, 0.3, 0.2]))
    run = open_run(engine, "sdss/2026-03-02", "sdss", NIGHTS[1], MODELS)
    rows = [row("spectrum", i) for i in range(N_SPECTRA)] + [row("cutout", i) for i in range(N_CUTOUTS)]
    rows[1].object_id = ODD
    rejected = [RejectedRow("/data/bad.fits", "truncated: copy the file again")]
    write_batch(engine, run, rows, rejected)
    finish_if_complete(engine, run)
    return engine


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = fill(f"sqlite:///{tmp_path}/catalog.db")
    yield engine
    engine.dispose()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serve a catalog on a free port; gives the address."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(
        engine: sa.Engine, keys_required: bool = False, extend: Callable[[Any], None] | None = None
    ) -> str:
        settings = Settings(_env_file=None, database_url=str(engine.url), rate_limit=100_000)
        api = make_api(settings, keys_required)
        if extend is not None:
            extend(api)
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(api, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        servers.append((server, thread))
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The system's Chromium, headless."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = os.environ.get("PECULIAR_TEST_CHROMIUM") or shutil.which("chromium")
    if program is None:
        if os.environ.get("PECULIAR_TEST_SERVICES") == "required":
            pytest.fail("no chromium here; `make test` installs it")
        pytest.skip("no chromium here: PECULIAR_TEST_CHROMIUM names one")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


class Looking:
    """A tab, and what may not happen in it: errors on the console, requests to other hosts."""

    def __init__(self, page: Any, address: str, name: str) -> None:
        self.page, self.address, self.name = page, address, name
        page.set_default_timeout(1000 * PATIENCE)
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def open(self, where: str = "#/") -> None:
        """Open a view and wait until it has read what it shows."""
        self.page.goto(f"{self.address}/{where}")
        self.until(
            """() => {
              const section = document.querySelector("main > section:not([hidden])");
              return section.childElementCount > 0 && !section.textContent.includes("Reading the");
            }"""
        )

    def until(self, expression: str, argument: Any = None) -> None:
        """Wait until an expression of JavaScript is true; Playwright's own way needs a policy that allows eval."""
        end = time.monotonic() + PATIENCE
        while not self.page.evaluate(expression, argument):
            assert time.monotonic() < end, f"waited in vain for {expression}"
            self.page.wait_for_timeout(20)

    def gallery(self, where: str = "#/") -> None:
        """Open the gallery and wait until its cards are there."""
        self.open(where)
        self.page.wait_for_selector("#cards:not([aria-busy]) .card.chosen")

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def picture(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{self.name}-{name}.png")

    def settle(self) -> None:
        """Wait until every label is saved."""
        self.until("JSON.parse(localStorage.getItem('peculiar.unsent') ?? '[]').length === 0")


@pytest.fixture
def look(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Looking]]:
    """Open a tab of its own for an address; at the end nothing may have gone wrong in it."""
    opened: list[tuple[Looking, Any]] = []

    def start(address: str, who: str | None = "ann", **options: Any) -> Looking:
        context = chromium.new_context(
            **({"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"} | options)
        )
        if who is not None:
            context.add_init_script(f"localStorage.setItem('peculiar.who', {who!r})")
        looking = Looking(context.new_page(), address, request.node.name.removeprefix("test_"))
        opened.append((looking, context))
        return looking

    yield start
    for looking, context in opened:
        context.close()
        assert looking.hosts <= {looking.address.removeprefix("http://")}, looking.hosts
        assert looking.errors == []


def said(engine: sa.Engine, *object_ids: str) -> list[tuple[str, str, str]]:
    return [(row["object_id"], row["label"], row["by"]) for row in labels_now(engine, object_ids)]


def history(engine: sa.Engine) -> list[tuple[str, str]]:
    wanted = sa.select(objects.c.object_id, labels.c.label).join(labels, labels.c.object_id == objects.c.id)
    with engine.connect() as connection:
        return [(row.object_id, row.label) for row in connection.execute(wanted.order_by(labels.c.id))]


def drawn(looking: Looking, selector: str) -> None:
    """Wait until the first such canvas shows more than one colour."""
    looking.until(
        """(selector) => {
          const canvas = document.querySelector(selector);
          if (!canvas) return false;
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          return new Set(new Uint32Array(data.buffer)).size > 3;
        }""",
        selector,
    )


def shown(tab: Looking, n: int) -> list[str]:
    """Wait for ``n`` cards, and say whose they are."""
    tab.until(f"document.querySelectorAll('#cards:not([aria-busy]) .card:not(.ghost)').length === {n}")
    return tab.page.evaluate("[...document.querySelectorAll('.card')].map((card) => card.row.object_id)")
