"""The nights' digests as an Atom feed (RFC 4287), an entry for each night."""

from __future__ import annotations

import html
import re
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import sqlalchemy as sa

from peculiar import __version__
from service.catalog.digest import digest, first_run_at, last_nights

ATOM = "http://www.w3.org/2005/Atom"
MEDIA_TYPE = "application/atom+xml"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def atom(engine: sa.Engine, q: float, nights: int, base: str | None = None) -> bytes:
    """The last nights, the newest first, with their discoveries at the false-discovery rate ``q``.

    Ids are made of the catalog, the night and ``q``, so they stay when the service moves. ``base`` is its URL, for
    links; without one there are none.
    """
    ElementTree.register_namespace("", ATOM)
    origin = first_run_at(engine)
    feed = ElementTree.Element(f"{{{ATOM}}}feed")
    told = [digest(engine, night, q) for night in last_nights(engine, nights)]
    _add(feed, "id", _id(origin, "feed", q))
    _add(feed, "title", f"Peculiar: discoveries at a false-discovery rate of {q:g}")
    _add(
        feed,
        "updated",
        _instant(max((_ended(night) for night in told), default=datetime.fromtimestamp(0, UTC))),
    )
    _add(_add(feed, "author"), "name", "Peculiar")
    _add(feed, "generator", "Peculiar").set("version", __version__)
    if base:
        _link(feed, "self", f"{base}/digest.atom?q={q:g}", MEDIA_TYPE)
    for night in told:
        entry = _add(feed, "entry")
        _add(entry, "id", _id(origin, night["night"], q))
        _add(entry, "title", title_of(night))
        _add(entry, "updated", _instant(_ended(night)))
        if base:
            _link(entry, "alternate", f"{base}/digest?night={night['night']}&q={q:g}", "application/json")
        _add(entry, "content", _told(night, base)).set("type", "html")
    return ElementTree.tostring(feed, encoding="utf-8", xml_declaration=True)


def title_of(night: dict[str, Any]) -> str:
    """A night in one line."""
    n = sum(model["n_discoveries"] for model in night["models"])
    scored = sum(model["scored"] for model in night["models"])
    problem = "; looks like an instrument problem" if any(run["problems"] for run in night["runs"]) else ""
    what = "discovery" if n == 1 else "discoveries"
    return f"Night {night['night']}: {n} {what} among {scored} objects (q ≤ {night['q']:g}){problem}"


def _told(night: dict[str, Any], base: str | None) -> str:
    """A night as HTML."""
    pieces: list[str] = []
    for run in night["runs"]:
        pieces.append(
            f"<p>Run {run['id']}: {run['found']} files, {run['scored']} scored, {run['failed']} rejected.</p>"
        )
        pieces += [f"<p>{_text(model)}: {_text(problem)}</p>" for model, problem in run["problems"].items()]
    for model in night["models"]:
        withheld = f", {model['withheld']} withheld" if model["withheld"] else ""
        pieces.append(
            f"<h3>{model['kind']}, {_text(model['model'])}</h3><p>{model['n_discoveries']} among {model['scored']}"
            f"{withheld}.{_resolution(model)}</p>"
        )
        if model["discoveries"]:
            rows = "".join(_row(row, base) for row in model["discoveries"])
            head = "".join(f"<th>{name}</th>" for name in ("object", "score", "p", "q", "RA", "Dec"))
            pieces.append(f"<table><tr>{head}</tr>{rows}</table>")
    return "".join(pieces)


def _resolution(model: dict[str, Any]) -> str:
    if model["smallest_p"] is None:
        return ""
    return f" The smallest p-value that its calibration set resolves is {model['smallest_p']:.2g}."


def _row(row: dict[str, Any], base: str | None) -> str:
    name = _text(row["object_id"])
    if base:
        name = f'<a href="{html.escape(base)}/objects/{quote(row["object_id"])}">{name}</a>'
    numbers = (f"{row['score']:.2f}", f"{row['p_value']:.2g}", f"{row['q_value']:.2g}")
    where = ("", "") if row["ra"] is None else (f"{row['ra']:.5f}", f"{row['dec']:+.5f}")
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in (name, *numbers, *where)) + "</tr>"


def _ended(night: dict[str, Any]) -> datetime:
    """When its last run ended, or began where that goes on."""
    return max(run["ended_at"] or run["started_at"] for run in night["runs"])


def _instant(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _id(*what: object) -> str:
    return uuid.uuid5(uuid.NAMESPACE_OID, "/".join(map(str, ("peculiar", *what)))).urn


def _text(value: str) -> str:
    return html.escape(_NOT_XML.sub("\ufffd", value))


def _add(parent: ElementTree.Element, name: str, text: str | None = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, f"{{{ATOM}}}{name}")
    child.text = None if text is None else _NOT_XML.sub("\ufffd", text)
    return child


def _link(parent: ElementTree.Element, rel: str, href: str, media_type: str) -> None:
    link = _add(parent, "link")
    for name, value in (("rel", rel), ("href", href), ("type", media_type)):
        link.set(name, value)
