"""Labelling in a real browser: by keys, with undo, without the service for a while, and what it does to the ranking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI

from service.catalog.keys import add_key
from tests.browser.conftest import ODD, Looking, drawn, history, said, shown

Look = Callable[..., Looking]
Serve = Callable[..., str]


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
