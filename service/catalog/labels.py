"""Human labels: recording them one by one or from a CSV file. Nothing is overwritten; the newest counts."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.catalog.engine import CatalogError, writing
from service.catalog.schema import clean, labels, objects
from service.catalog.statements import chunks

ORDINARY = ("ordinary", "normal", "not-lens")
"""Labels that leave an object among the ordinary ones; ``not-lens`` says only what it is not."""
WITHDRAWN = "withdrawn"
"""Takes its author's label back: the history keeps both, and nothing of them counts any more."""
LONGEST = 100
"""Characters in a label or a name."""


@dataclass(frozen=True, slots=True)
class Label:
    """What ``by`` says about the object called ``object_id``."""

    object_id: str
    label: str
    by: str


class UnknownObjectsError(CatalogError):
    """Labels for objects that are not in the catalog."""

    def __init__(self, object_ids: list[str]) -> None:
        first = ", ".join(object_ids[:5]) + (", …" if len(object_ids) > 5 else "")
        what = "object is" if len(object_ids) == 1 else "objects are"
        super().__init__(
            f"{len(object_ids)} labelled {what} not in the catalog: {first}; no label was recorded"
        )
        self.object_ids = object_ids


def record_labels(engine: sa.Engine, said: Iterable[Label]) -> int:
    """Record labels, all of them or none; returns how many objects they were put on.

    A label goes to every object with that identity (its spectrum and its cutout, say). ``Not lens`` and
    ``not_lens`` mean ``not-lens``.
    Raises UnknownObjectsError, and CatalogError for a label that is empty or too long.
    """
    said = [Label(clean(one.object_id), normalised(one.label), _author(one.by)) for one in said]
    now = datetime.now(UTC)
    with writing(engine) as connection:
        ids: dict[str, list[int]] = {}
        for part in chunks({one.object_id for one in said}):
            wanted = sa.select(objects.c.object_id, objects.c.id).where(objects.c.object_id.in_(part))
            for object_id, id_ in connection.execute(wanted):
                ids.setdefault(object_id, []).append(id_)
        unknown = list(dict.fromkeys(one.object_id for one in said if one.object_id not in ids))
        if unknown:
            raise UnknownObjectsError(unknown)
        rows = [
            {"object_id": id_, "label": one.label, "by": one.by, "created_at": now}
            for one in said
            for id_ in ids[one.object_id]
        ]
        if rows:
            connection.execute(sa.insert(labels), rows)
    return len({row["object_id"] for row in rows})


def newest_label(label: str | None = None) -> sa.ColumnElement[bool]:
    """Whether a row of ``labels`` is the newest of its person on its object, and says ``label``; without one,
    whether it says anything, which what was withdrawn does not."""
    newest = labels.c.id.in_(sa.select(sa.func.max(labels.c.id)).group_by(labels.c.object_id, labels.c.by))
    return sa.and_(newest, labels.c.label != WITHDRAWN if label is None else labels.c.label == label)


def labels_now(engine: sa.Engine, object_ids: Iterable[str]) -> list[dict[str, Any]]:
    """What people say of the objects with these identities: each person's newest label on each, the oldest first.

    Rows with ``object_id``, ``kind``, ``survey``, ``label``, ``by`` and ``created_at``.
    """
    found: list[dict[str, Any]] = []
    with engine.connect() as connection:
        for part in chunks({clean(object_id) for object_id in object_ids}):
            meant = sa.select(objects.c.id).where(objects.c.object_id.in_(part))
            # the same as ``newest_label``, looked for among these objects only
            newest = (
                sa.select(sa.func.max(labels.c.id))
                .where(labels.c.object_id.in_(meant))
                .group_by(labels.c.object_id, labels.c.by)
            )
            wanted = (
                sa.select(
                    objects.c.object_id, objects.c.kind, objects.c.survey,
                    labels.c.label, labels.c.by, labels.c.created_at,
                )
                .join(objects, objects.c.id == labels.c.object_id)
                .where(labels.c.id.in_(newest), labels.c.label != WITHDRAWN)
                .order_by(labels.c.id)
            )  # fmt: skip
            found += (dict(row) for row in connection.execute(wanted).mappings())
    return found


def not_ordinary(engine: sa.Engine, kind: str) -> set[tuple[str, str]]:
    """(survey, object_id) of the objects of which somebody's newest label is none of ORDINARY."""
    wanted = (
        sa.select(objects.c.survey, objects.c.object_id)
        .join(labels, labels.c.object_id == objects.c.id)
        .where(objects.c.kind == kind, newest_label(), labels.c.label.not_in(ORDINARY))
    )
    with engine.connect() as connection:
        return {(row.survey, row.object_id) for row in connection.execute(wanted)}


def read_labels(path: Path, by: str) -> list[Label]:
    """Labels from a CSV file with the columns ``object_id``, ``label`` and optionally ``by``.

    ``by`` stands in where the file names nobody. Raises CatalogError, with the line's number, for a file that
    is not of this form.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            names = [name.strip() for name in reader.fieldnames or []]
            if not {"object_id", "label"} <= set(names):
                raise CatalogError(f"{path}: the first line has to name the columns object_id,label[,by]")
            reader.fieldnames = names
            return [_read_line(row, f"{path}, line {reader.line_num}", by) for row in reader]
    except OSError as error:
        raise CatalogError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CatalogError(f"{path} is not a CSV file in UTF-8: {error}") from error


def _read_line(row: dict[str, str | None], where: str, by: str) -> Label:
    object_id, label = (row["object_id"] or "").strip(), (row["label"] or "").strip()
    if not object_id or not label:
        raise CatalogError(f"{where}: an object_id and a label are needed")
    try:
        return Label(object_id, normalised(label), _author(row.get("by") or by))
    except CatalogError as error:
        raise CatalogError(f"{where}: {error}") from error


def normalised(label: str) -> str:
    """A label as it is recorded: ``Not lens`` and ``not_lens`` are ``not-lens``. Raises CatalogError."""
    label = "-".join(clean(label).lower().replace("_", " ").split())
    if not label or len(label) > LONGEST:
        raise CatalogError(f"a label has 1 to {LONGEST} characters")
    return label


def _author(by: str) -> str:
    by = clean(by).strip()
    if not by or len(by) > LONGEST:
        raise CatalogError(f"who labels is named in 1 to {LONGEST} characters")
    return by
