"""The page in a real browser: open, look, search, export, upload, maps, phone, no mouse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from tests.browser.conftest import N_CUTOUTS, N_SPECTRA, ODD, Looking, drawn, history, said, shown

Look = Callable[..., Looking]
Serve = Callable[..., str]


def test_more_cards_come_and_filters_compose(catalog: sa.Engine, serve: Serve, look: Look) -> None:
    tab = look(serve(catalog))
    tab.gallery("#/?night=all")
    while tab.page.locator(".more:visible").count():
        tab.keys("End")
        tab.page.wait_for_timeout(30)
    assert tab.page.locator(".card").count() == N_SPECTRA + N_CUTOUTS
    assert tab.page.get_by_text("No picture is kept").count() > 0
    tab.page.get_by_role("button", name="Cutouts").click()
    shown(tab, 24)
    assert set(tab.page.evaluate("[...document.querySelectorAll('.card')].map((card) => card.row.kind)")) == {
        "cutout"
    }
    tab.keys("f")
    tab.page.get_by_label("p at most", exact=True).fill("0.0125")
    tab.picture("filters")
    tab.keys("Enter")
    shown(tab, 5)
    tab.page.get_by_role("button", name="Take away the filter p at most").click()
    shown(tab, 24)
    tab.open("#/?night=2020-01-01")
    assert "No object fits these filters" in tab.page.locator("#gallery .summary").text_content()
    tab.open("#/?night=all&ra=10&dec=5")  # half a cone: the service says what is wrong
    assert "a cone needs ra, dec and radius" in tab.page.locator("#gallery .summary").text_content()
    tab.errors.clear()  # the browser notes the 422


def test_stretches_change_the_picture(catalog: sa.Engine, serve: Serve, look: Look) -> None:
    tab = look(serve(catalog))
    tab.gallery("#/?kind=cutout")
    drawn(tab, ".card canvas")
    pictures = []
    for name in ("asinh", "linear", "log"):
        assert tab.page.locator(".segments [aria-pressed=true]", has_text=name).count() == 1
        pictures.append(tab.page.evaluate("document.querySelector('.card canvas').toDataURL()"))
        tab.picture(name)
        tab.keys("s")
    assert len(set(pictures)) == 3


def test_the_page_of_an_object(catalog: sa.Engine, serve: Serve, look: Look) -> None:
    tab = look(serve(catalog))
    tab.gallery()
    first = tab.page.evaluate("document.querySelector('.card').row.object_id")
    tab.keys("Enter")
    tab.page.wait_for_selector("#object .cards .card")
    assert tab.page.locator("#object h1").text_content() == first
    drawn(tab, ".picture canvas")
    assert tab.page.locator("#object .parts tbody tr").count() == 3
    for name in ("SIMBAD", "NED", "SDSS", "Legacy Survey"):
        link = tab.page.get_by_role("link", name=name)
        assert link.get_attribute("href").startswith("https://") and "noreferrer" in link.get_attribute("rel")
    tab.keys("k")
    tab.page.wait_for_selector("#object .title .mark-known")
    tab.settle()
    tab.picture("spectrum")
    tab.keys("ArrowRight")
    tab.until("(first) => document.querySelector('#object h1').textContent !== first", first)
    tab.keys("Escape")
    tab.page.wait_for_selector("#gallery:not([hidden]) .card.chosen")
    assert tab.page.evaluate("document.activeElement.classList.contains('card')")
    tab.open("#/object?id=cutout-003")
    tab.page.wait_for_selector("#object .bands")
    drawn(tab, "#object .bands")
    tab.picture("cutout")


def test_any_identity_is_an_object(catalog: sa.Engine, serve: Serve, look: Look) -> None:
    tab = look(serve(catalog))
    tab.gallery()
    tab.page.get_by_label("Object identity").fill(ODD)
    tab.keys("Enter")
    tab.until("/search=|object/.test(location.hash)")
    if "search=" in tab.page.url:  # where the service can search, the gallery shows what it found
        shown(tab, 1)
        tab.keys("Escape", "Enter")
    tab.page.wait_for_selector("#object .cards .card")
    assert tab.page.locator("#object h1").text_content() == ODD
    assert tab.page.locator("#object h1 b").count() == 0
    tab.keys("i")
    tab.settle()
    assert said(catalog, ODD) == [(ODD, "interesting", "ann")]
    tab.open("#/object?id=nobody")
    tab.page.get_by_text("no object 'nobody' is in the catalog").first.wait_for()
    tab.errors.clear()  # the browser notes the 404


def test_the_latent_map_chooses_for_the_gallery(catalog: sa.Engine, serve: Serve, look: Look) -> None:
    tab = look(serve(catalog))
    tab.open("#/map?kind=spectrum")
    tab.page.wait_for_selector("#map .points li")
    box = tab.page.locator("#map canvas.map").bounding_box()
    tab.page.mouse.move(box["x"] + 6, box["y"] + 6)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] - 6, box["y"] + box["height"] - 6, steps=5)
    tab.page.mouse.up()
    assert tab.page.locator(".chosen-box strong").first.text_content() == str(N_SPECTRA)
    tab.picture("map")
    tab.page.locator("#map canvas.map").focus()
    tab.page.keyboard.press("Escape")
    tab.open("#/map?kind=cutout")  # and without a mouse
    tab.until("document.querySelector('#map .points').textContent.includes('cutout-000')")
    tab.page.locator("#map canvas.map").focus()
    tab.keys("ArrowRight", *["Shift+ArrowRight"] * 4, *["Shift+ArrowUp"] * 4)
    chosen = int(tab.page.locator(".chosen-box strong").first.text_content())
    assert 0 < chosen < N_CUTOUTS
    tab.keys("Enter")
    tab.page.wait_for_selector("#gallery:not([hidden]) .card.chosen")
    assert tab.page.locator("#gallery .card").count() == chosen
    assert tab.page.get_by_role("button", name="region of the latent map").count() == 1


def test_the_sky_and_the_runs(catalog: sa.Engine, serve: Serve, look: Look) -> None:
    tab = look(serve(catalog))
    tab.open("#/sky?kind=spectrum")
    tab.page.wait_for_selector("#sky tbody tr")
    assert f"{N_SPECTRA} of {N_SPECTRA} spectra have a position" in tab.page.locator("#sky").text_content()
    tab.picture("sky")
    tab.page.locator("canvas.sky").focus()
    tab.keys("ArrowRight", "Enter")
    tab.page.wait_for_selector("#gallery:not([hidden]) .card.chosen")
    assert tab.page.get_by_role("button", name="within 2.7° of").count() == 1
    tab.open("#/runs")
    tab.page.get_by_text("Why 1 failed").click()
    tab.page.get_by_text("truncated: copy the file again").wait_for()
    tab.picture("runs")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_phone(catalog: sa.Engine, serve: Serve, look: Look, scheme: str) -> None:
    tab = look(
        serve(catalog),
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
        color_scheme=scheme,
    )
    tab.gallery()
    drawn(tab, ".card canvas")
    wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert tab.page.evaluate(wide)
    tab.picture("gallery")
    tab.page.locator(".card").nth(1).locator(".caption .figures").tap()
    tab.page.get_by_role("button", name="Interesting").tap()
    tab.page.wait_for_selector(".card:nth-child(2) .mark-interesting")
    tab.settle()
    assert [label for _, label in history(catalog)] == ["interesting"]
    for where in ("#/object?id=spectrum-000", "#/object?id=cutout-001", "#/map", "#/sky", "#/like", "#/runs"):
        tab.open(where)
        tab.page.wait_for_load_state("networkidle")
        assert tab.page.evaluate(wide), where
        tab.picture(where.split("/")[1].split("=")[-1])


# ---- what other parts of the service bring: the page finds it in the OpenAPI document ----


def with_more(api: FastAPI) -> None:
    """Stand-ins for personal rankings, exports and uploads where the service has none of its own."""
    document = api.openapi()
    paths: Any = document["paths"]
    asked: list[str] = []
    api.state.asked = asked
    if "/outliers/export" not in paths:

        def export(format: Annotated[str, Query()]) -> Response:
            asked.append(f"export {format}")
            return Response(
                "object_id\n", media_type="text/csv", headers={"Content-Disposition": "attachment"}
            )

        api.router.add_api_route("/outliers/export", export)
        paths["/outliers/export"] = {
            "get": {"parameters": [{"name": "format", "in": "query", "schema": {"enum": ["csv", "fits"]}}]}
        }
    if "/neighbours" not in paths:

        async def like(request: Request) -> JSONResponse:
            body = await request.body()
            if not body.startswith(b"SIMPLE"):
                return JSONResponse(
                    {"detail": "this is no FITS file"}, 422, media_type="application/problem+json"
                )
            return JSONResponse(
                {"kind": "spectrum", "model": "sdss@0123456789ab", "object_id": "mine", "score": 3.2, "p_value": 0.01,
                 "parts": {}, "neighbours": []}
            )  # fmt: skip

        api.router.add_api_route("/neighbours", like, methods=["POST"])
        paths["/neighbours"] = {"post": {}}


def test_what_the_service_cannot_do_is_not_offered(catalog: sa.Engine, serve: Serve, look: Look) -> None:
    addresses: list[FastAPI] = []
    tab = look(serve(catalog, extend=addresses.append))
    paths: Any = addresses[0].openapi()["paths"]
    tab.gallery()
    tab.page.wait_for_load_state("networkidle")
    names = [one["name"] for one in paths["/outliers"]["get"]["parameters"]]
    assert (tab.page.get_by_role("button", name="My ranking").count() == 1) == ("for" in names)
    assert (tab.page.get_by_text("Export").count() == 1) == ("/outliers/export" in paths)
    tab.open("#/like")
    tab.page.wait_for_load_state("networkidle")
    refused = tab.page.get_by_text("This service takes no files").count() == 1
    assert refused == ("post" not in paths.get("/neighbours", {}))


def test_exports_and_uploads(catalog: sa.Engine, serve: Serve, look: Look, tmp_path: Path) -> None:
    tab = look(serve(catalog, extend=with_more))
    tab.gallery("#/?night=all&p=0.01")
    tab.page.get_by_text("Export").click()
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="csv").click()
    assert "p=0.01" in download.value.url and "format=csv" in download.value.url
    assert download.value.path().read_text().startswith("object_id")

    tab.open("#/like")
    bad = tmp_path / "bad.fits"
    bad.write_bytes(b"this is not FITS" * 200)
    tab.page.get_by_label("Choose a FITS file").set_input_files(bad)
    tab.page.locator("#like .problem").wait_for()
    assert tab.page.locator("#like .problem").text_content().strip()
    tab.picture("upload")
    tab.errors.clear()  # the browser notes the 422


def accessibility(tab: Looking) -> list[str]:
    """What axe finds wrong on what is shown."""
    axe = pytest.importorskip("axe_core_python.sync_playwright").Axe()
    found = axe.run(tab.page, options={"resultTypes": ["violations"]})["violations"]
    return [
        f"{one['id']}: {node['html'][:120]} {node['failureSummary']}"
        for one in found
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_without_eyes(catalog: sa.Engine, serve: Serve, look: Look, scheme: str) -> None:
    # axe runs as a script of ours in the page, which its policy would refuse
    tab = look(serve(catalog), bypass_csp=True, color_scheme=scheme)
    for where in ("#/", "#/object?id=spectrum-000", "#/map", "#/sky", "#/like", "#/runs"):
        tab.open(where)
        tab.page.wait_for_load_state("networkidle")
        assert accessibility(tab) == [], where
        tab.picture(where.split("/")[1].split("=")[-1] or "gallery")
    tab.gallery()
    tab.keys("f")
    assert accessibility(tab) == []
    tab.keys("Escape", "?")
    tab.page.get_by_role("dialog").wait_for()
    assert accessibility(tab) == []
    tab.keys("Escape")
    label = tab.page.locator(".card").first.get_attribute("aria-label")
    assert "1. cutout cutout-000 score 5.20, p ≤ 0.0025" in label
    assert "12 σ excess in g, 12 pixels off centre" in label
