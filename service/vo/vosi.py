"""What the TAP service says of itself: capabilities, tables, availability (VOSI 1.1) and examples (DALI 1.1)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

from service.vo import tap, uws
from service.vo.functions import ONE_NUMBER, OTHERS, TWO_NUMBERS
from service.vo.tables import SCHEMA, Table
from service.vo.tap_schema import ARRAYSIZES, SCHEMAS, VOTABLE_TYPES, foreign_keys, quoted
from service.vo.votable import MEDIA_TYPE

if TYPE_CHECKING:
    from pydantic_xml import BaseXmlModel

TAPREGEXT = "ivo://ivoa.net/std/TAPRegExt"
FEATURES = {
    f"{TAPREGEXT}#features-adqlgeo": (
        "POINT",
        "CIRCLE",
        "CONTAINS",
        "INTERSECTS",
        "DISTANCE",
        "COORD1",
        "COORD2",
    ),
    f"{TAPREGEXT}#features-adql-string": ("LOWER", "UPPER", "ILIKE"),
    f"{TAPREGEXT}#features-adql-offset": ("OFFSET",),
}
OUTPUTS = (
    (f"{MEDIA_TYPE};serialization=binary2", ("votable", "votable/b2"), f"{TAPREGEXT}#output-votable-binary2"),
    (f"{MEDIA_TYPE};serialization=tabledata", ("votable/td",), f"{TAPREGEXT}#output-votable-td"),
    (MEDIA_TYPE, (), None),
    ("text/xml", (), None),
    ("text/csv;header=present", ("csv",), None),
    ("text/tab-separated-values", ("tsv",), None),
    ("application/json", ("json",), None),
    ("application/fits", ("fits",), None),
    ("application/vnd.apache.parquet", ("parquet",), None),
)


def capabilities(base: str, with_keys: bool) -> bytes:
    """The capabilities of the service under the URL ``base``."""
    from vo_models.tapregext.models import (
        DataLimit,
        DataLimits,
        Language,
        LanguageFeature,
        LanguageFeatureList,
        OutputFormat,
        TableAccess,
        TimeLimits,
        Version,
    )
    from vo_models.vodataservice.models import ParamHTTP
    from vo_models.voresource.models import AccessURL, Capability, SecurityMethod
    from vo_models.vosi.capabilities import VOSICapabilities

    def interface(path: str, use: str, role: str | None = "std", closed: bool = with_keys) -> ParamHTTP:
        # The key is the password of HTTP's basic authentication, for clients that know no other.
        methods = [SecurityMethod(standard_id="ivo://ivoa.net/sso#BasicAA")] if closed else []
        url = AccessURL(value=f"{base}{path}", use=use)
        return ParamHTTP(access_url=[url], role=role, security_method=methods, version=None)

    def vosi(standard: str, path: str, closed: bool) -> Capability:
        return Capability(
            standard_id=f"ivo://ivoa.net/std/{standard}", interface=[interface(path, "full", "std", closed)]
        )

    rows = [DataLimit(value=n, unit="row") for n in (tap.MAXREC, tap.HARD_MAXREC)]
    access = TableAccess(
        interface=[ParamHTTP(access_url=[AccessURL(value=base, use="base")], role="std", version="1.1",
                             security_method=interface("", "base").security_method)],
        language=[
            Language(
                name="ADQL",
                version=[
                    Version(value=v, ivo_id=f"ivo://ivoa.net/std/ADQL#v{v}") for v in ("2.0", "2.1")
                ],
                description="ADQL as far as the documentation of this service says.",
                language_features=[
                    LanguageFeatureList(type=kind, feature=[LanguageFeature(form=form) for form in forms])
                    for kind, forms in FEATURES.items()
                ],
            )
        ],
        output_format=[
            OutputFormat(mime=mime, alias=list(aliases), ivo_id=ivo_id) for mime, aliases, ivo_id in OUTPUTS
        ],
        retention_period=TimeLimits(default=uws.RETENTION_S, hard=uws.HARD_RETENTION_S),
        execution_duration=TimeLimits(default=uws.SECONDS, hard=uws.HARD_SECONDS),
        output_limit=DataLimits(default=rows[0], hard=rows[1]),
    )  # fmt: skip
    document = VOSICapabilities(
        capability=[
            access,
            vosi("VOSI#capabilities", "/capabilities", False),
            vosi("VOSI#availability", "/availability", False),
            vosi("VOSI#tables-1.1", "/tables", with_keys),
            vosi("DALI#examples", "/examples", False),
        ]
    )
    return as_xml(document)


def availability(available: bool, since: datetime, note: str) -> bytes:
    from vo_models.vosi.availability import Availability

    return as_xml(Availability(available=available, up_since=since, note=[note] if note else []))


def tableset(tables: Iterable[Table], detail: bool = True) -> bytes:
    """All tables by schema; without ``detail`` their columns are left out."""
    from vo_models.vodataservice.models import TableSchema
    from vo_models.vosi.tables import VOSITableSet

    every = list(tables)
    schemas = [
        TableSchema(
            schema_name=name,
            description=text,
            table=[_described(table, every, detail) for table in every if table.name.startswith(f"{name}.")],
        )
        for name, text in SCHEMAS.items()
    ]
    return as_xml(VOSITableSet(tableset_schema=schemas))


def one_table(table: Table, tables: Iterable[Table]) -> bytes:
    from vo_models.vosi.tables import VOSITable

    return as_xml(VOSITable(**_members(table, list(tables), True)))


def _described(table: Table, every: list[Table], detail: bool) -> object:
    from vo_models.vodataservice.models import Table as VodTable

    return VodTable(**_members(table, every, detail))


def _members(table: Table, every: list[Table], detail: bool) -> dict[str, object]:
    from vo_models.vodataservice.models import FKColumn, ForeignKey, TableParam

    if not detail:
        return {"table_type": "table", "table_name": table.name, "description": table.description}
    columns = [
        TableParam(
            column_name=quoted(c.name),
            description=c.description,
            unit=c.unit or None,
            ucd=c.ucd or None,
            datatype=VOTABLE_TYPES[c.type],
            arraysize=ARRAYSIZES.get(c.type),
            indexed=int(c.name in table.indexed),
            principal=int(c.name in table.principal),
            std=int(table.name.startswith("TAP_SCHEMA.")),
        )
        for c in table.columns
    ]
    keys = [
        ForeignKey(target_table=target, fk_column=[FKColumn(from_column=column, target_column=there)])
        for _, owner, column, target, there in foreign_keys(every)
        if owner is table
    ]
    return {
        "table_type": "table",
        "table_name": table.name,
        "description": table.description,
        "column": columns,
        "foreign_key": keys,
    }


def as_xml(model: BaseXmlModel, skip_empty: bool = True) -> bytes:
    """A document of vo-models."""
    written = model.to_xml(skip_empty=skip_empty, encoding="UTF-8", xml_declaration=True)
    return bytes(written) if isinstance(written, bytes) else written.encode()


EXAMPLES = (
    (
        "outliers",
        "The most anomalous spectra, with where they are",
        f"SELECT TOP 20 object_id, ra, dec, score, p_value, q_value\nFROM {SCHEMA}.scores\n"
        "WHERE kind = 'spectrum'\nORDER BY score DESC",
    ),
    (
        "discoveries",
        "What can be called a discovery when one in ten may be none",
        f"SELECT object_id, ra, dec, score, q_value\nFROM {SCHEMA}.scores\n"
        "WHERE q_value <= 0.1 AND flags NOT LIKE '%instrument-problem%'\nORDER BY q_value",
    ),
    (
        "cone",
        "Everything within half a degree of a place, the nearest first",
        "SELECT object_id, score, DISTANCE(POINT('ICRS', ra, dec), POINT('ICRS', 186.5, 12.7)) AS separation\n"
        f"FROM {SCHEMA}.scores\nWHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 186.5, 12.7, 0.5))\n"
        "ORDER BY separation",
    ),
    (
        "in-force",
        "Only scores of the models that are in force, with the night of the observation",
        f"SELECT s.object_id, o.night, s.score\nFROM {SCHEMA}.scores AS s\n"
        f"JOIN {SCHEMA}.models AS m ON m.model = s.model\n"
        f"JOIN {SCHEMA}.observations AS o ON o.observation_key = s.observation_key\n"
        "WHERE m.in_force = 1 AND s.p_value < 0.01",
    ),
    (
        "clusters",
        "Mean score and number of members by cluster",
        f"SELECT model, cluster, COUNT(*) AS n, AVG(score) AS mean_score\nFROM {SCHEMA}.scores\n"
        "GROUP BY model, cluster\nORDER BY mean_score DESC",
    ),
    (
        "labelled",
        "What people called interesting, and how anomalous it is",
        f"SELECT l.object_id, l.author, l.said_at, s.score\nFROM {SCHEMA}.labels AS l\n"
        f"JOIN {SCHEMA}.scores AS s ON s.object_key = l.object_key\n"
        "WHERE l.label = 'interesting' AND l.newest = 1",
    ),
)


def examples() -> bytes:
    """The queries of EXAMPLES as XHTML with RDFa."""
    parts = [
        f'<div typeof="example" id="{name}" resource="#{name}">\n<h2 property="name">{escape(title)}</h2>\n'
        f'<pre property="query">{escape(query)}</pre>\n</div>\n'
        for name, title, query in EXAMPLES
    ]
    functions = ", ".join(sorted([*ONE_NUMBER, *TWO_NUMBERS, *OTHERS]))
    page = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml" lang="en">\n'
        "<head><title>Examples of queries</title></head>\n"
        '<body>\n<h1>Examples of queries</h1>\n<div vocab="http://www.ivoa.net/rdf/examples#">\n'
        f"{''.join(parts)}</div>\n<p>Functions besides COUNT, SUM, AVG, MIN and MAX: {functions}.</p>\n"
        "</body>\n</html>\n"
    )
    return page.encode()
