"""Page tokens: where a list goes on, as text that a client passes back unread."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

from service.catalog.engine import CatalogError


def make_token(*values: float | str) -> str:
    """A token of whole numbers, numbers and texts."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def read_token(token: str, *types: type) -> tuple[Any, ...]:
    """The values of a token, of these types. Raises CatalogError for a token that was not made of such."""
    try:
        values = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if [type(value) for value in values] != list(types):
            raise ValueError(values)
        for value in values:
            if isinstance(value, int) and abs(value) >= 2**63:  # no database has such an id
                raise ValueError(value)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(value)
    except (ValueError, TypeError, binascii.Error):
        raise CatalogError(
            "this page token is not one that was given out: start from the first page"
        ) from None
    return tuple(values)
