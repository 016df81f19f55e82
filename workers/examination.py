"""One file read and scored for somebody who asks, without the catalog learning of it."""

from __future__ import annotations

import functools
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from service.catalog.rows import RejectedRow, ScoredRow
from workers.batching import make_batch
from workers.pipeline import DOES_NOT_FIT, rows_of
from workers.readers import read_content
from workers.readers.sample import Rejection

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.scorer import Scorer

ALWAYS = 2.0
"""No p-value is larger: everything is explained."""


class ModelMissingError(Exception):
    """The model's bundle is not where this process looks for it, or is damaged."""


class Examiner:
    """Reads and scores files one at a time; models are loaded at first use and kept."""

    def __init__(self, load_scorer: Callable[[str], Scorer]) -> None:
        self._load = functools.lru_cache(maxsize=4)(load_scorer)
        self._one_at_a_time = threading.Lock()

    def __call__(self, content: bytes, name: str, models: dict[str, str]) -> ScoredRow | RejectedRow:
        """The row of a file's bytes, with an explanation whatever its score, or why there is none.

        Args:
            name: the file's, which names the object where its header does not.
            models: model id by kind.

        Raises ModelMissingError.
        """
        with self._one_at_a_time:
            sample = read_content(name, content)
            if isinstance(sample, Rejection):
                return RejectedRow(name, sample.reason, sample.detail, sample.kind, "", sample.sha256)
            refused = functools.partial(RejectedRow, name, kind=sample.kind, sha256=sample.sha256)
            if sample.kind not in models:
                known = ", ".join(models.values())
                return refused(
                    f"there is no {sample.kind} model to score it with", f"models: {known or 'none'}"
                )
            model = models[sample.kind]
            try:
                scorer = self._load(model)
            except (OSError, ValueError) as error:
                raise ModelMissingError(f"the model {model} cannot be loaded: {error}") from error
            try:
                scores = scorer.score(make_batch([sample]), ALWAYS)
            except ValueError as error:
                return refused(DOES_NOT_FIT, str(error), model=model)
            return next(rows_of([sample], scores, model, datetime.now(UTC).date()))
