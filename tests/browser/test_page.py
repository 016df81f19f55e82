"""The page in a real browser: open, look, label, undo, rank, upload, search, export, maps, phone, no mouse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from service.catalog.keys import add_key
from service.catalog.labels import labels_now
from service.catalog.schema import labels, objects

N_SPECTRA, N_CUTOUTS, ODD = 60, 30, "field 7/a?b#c%20<b>é</b>"  # as conftest.py fills the catalog
Looking = Any
Look = Callable[..., Looking]
Serve = Callable[..., str]


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


def test_a_night_is_looked_at_and_labelled_by_keys(catalog: sa.Engine, serve: Serve, look: Look) -> None:
    tab = look(serve(catalog))
    tab.gallery()
    assert tab.page.input_value("#night") == "2026-03-02"  # the newest
    names = tab.page.locator(".card .identity").all_text_contents()
    assert len(names) == 24 and any(ODD in name for name in names)
    drawn(tab, ".card canvas")
    tab.picture("gallery")
    ids = shown(tab, 24)

    tab.keys("i", "a", "ArrowRight", "l")  # the choice moves on after each label
    tab.page.wait_for_selector(".card:nth-child(1) .mark-interesting:not(.unsent)")
    tab.settle()
    assert said(catalog, *ids) == [
        (ids[0], "interesting", "ann"),
        (ids[1], "artefact", "ann"),
        (ids[3], "lens", "ann"),
    ]
    tab.keys("u")
    tab.settle()
    assert tab.page.evaluate("document.activeElement.row.object_id") == ids[3]
    assert said(catalog, ids[3]) == []
    tab.keys("Home", "w", "u")  # a label over another: undo says the former again
    tab.settle()
    assert said(catalog, ids[0]) == [(ids[0], "interesting", "ann")]
    assert [label for name, label in history(catalog) if name == ids[0]] == [
        "interesting",
        "wrong-redshift",
        "interesting",
    ]
    tab.page.reload()
    tab.page.wait_for_selector(".card:nth-child(2) .mark-artefact")


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


def test_labels_wait_for_a_service_that_is_away(catalog: sa.Engine, serve: Serve, look: Look) -> None:
    tab = look(serve(catalog))
    tab.gallery()
    first = tab.page.evaluate("document.querySelector('.card').row.object_id")
    tab.page.route("**/labels", lambda route: route.abort())
    tab.keys("i")
    tab.page.get_by_text("A label is not saved yet").wait_for()
    tab.page.wait_for_selector(".mark-interesting.unsent")
    tab.picture("unsent")
    assert said(catalog, first) == []
    tab.page.reload()  # what waits outlives the tab
    tab.page.wait_for_selector(".mark-interesting")
    tab.page.unroute("**/labels")
    tab.page.evaluate("window.dispatchEvent(new Event('online'))")
    tab.settle()
    assert said(catalog, first) == [(first, "interesting", "ann")]
    tab.errors.clear()  # the browser notes the requests that failed


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


def test_keys_are_asked_for_once(catalog: sa.Engine, serve: Serve, look: Look) -> None:
    tab = look(serve(catalog, keys_required=True))
    tab.page.goto(tab.address)
    tab.page.get_by_role("dialog").wait_for()
    tab.picture("key")
    tab.page.get_by_label("Key", exact=True).fill(add_key(catalog, "ann", "label"))
    tab.keys("Enter")
    tab.page.wait_for_selector(".card.chosen")
    drawn(tab, ".card canvas")
    tab.keys("i")
    tab.settle()
    tab.page.reload()
    tab.page.wait_for_selector(".mark-interesting")
    tab.errors.clear()  # the browser notes the 401


def test_who_labels_is_asked_once(catalog: sa.Engine, serve: Serve, look: Look) -> None:
    tab = look(serve(catalog), who=None)
    tab.gallery()
    tab.keys("a")
    tab.page.get_by_label("Your name").fill("bea")
    tab.keys("Enter")
    tab.page.wait_for_selector(".mark-artefact")
    tab.keys("a")
    tab.settle()
    assert {by for _, _, by in said(catalog, *(name for name, _ in history(catalog)))} == {"bea"}
    assert len(history(catalog)) == 2


def test_a_label_that_is_refused_is_taken_off(catalog: sa.Engine, serve: Serve, look: Look) -> None:
    tab = look(serve(catalog, keys_required=True))
    tab.page.add_init_script(f"sessionStorage.setItem('peculiar.key', {add_key(catalog, 'ann', 'read')!r})")
    tab.gallery()
    tab.keys("i")
    tab.page.get_by_text("needs a key with the role label").wait_for()
    tab.until("!document.querySelector('.marks .chip')")
    assert history(catalog) == []
    tab.errors.clear()  # the browser notes the 403


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


def stand_in_for_rankings(tab: Looking) -> None:
    """Where the service has no personal rankings: the raw one turned over, for whoever asks."""

    def described(route: Any) -> None:
        document = route.fetch().json()
        names = document["paths"]["/outliers"]["get"]["parameters"]
        names.append({"name": "for", "in": "query", "schema": {"type": "string"}})
        route.fulfill(json=document)

    def ranked(route: Any) -> None:
        if "for=ann" not in route.request.url:
            route.continue_()
            return
        page = route.fetch(url=route.request.url.replace("&for=ann", "")).json()
        items = [item | {"interest": 0.5} for item in reversed(page["items"])]
        route.fulfill(json={"items": items, "next": None, "labels_needed": 0})

    tab.page.route("**/openapi.json", described)
    tab.page.route("**/outliers?*", ranked)


def test_labels_change_the_ranking_of_their_author(catalog: sa.Engine, serve: Serve, look: Look) -> None:
    apis: list[FastAPI] = []
    tab = look(serve(catalog, extend=apis.append))
    if not any(one["name"] == "for" for one in apis[0].openapi()["paths"]["/outliers"]["get"]["parameters"]):
        stand_in_for_rankings(tab)
    tab.gallery("#/?kind=spectrum")
    tab.page.get_by_role("button", name="My ranking").wait_for()
    raw = shown(tab, 24)
    tab.keys("Home", *"iiiaaiaaiai")
    tab.settle()
    tab.keys("t")
    tab.page.get_by_text("by what your labels say").wait_for()
    tab.picture("mine")
    ranked = shown(tab, 24)
    assert ranked != raw
    assert tab.page.locator(".card dt", has_text="interest").count() == len(ranked)
    tab.keys("Home", "a")
    tab.page.get_by_text("Rank again: 1 new label").wait_for()
    tab.settle()
    tab.keys("r")
    shown(tab, 24)
    tab.keys("t")
    tab.page.get_by_text("the most anomalous first").wait_for()
    assert shown(tab, 24) == raw  # the untouched ranking is one key away


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
