"""Why an object is an outlier: where it departs from its reconstruction, and which parts make its score."""

from __future__ import annotations

from models.batch import Batch
from models.explanation import Explanation
from models.scorer import Scorer


def explain(scorer: Scorer, batch: Batch) -> Explanation:
    """Explain one object, a batch of length 1, just as the catalog keeps it for outliers.

    Raises ValueError for a batch of another length.
    """
    if len(batch) != 1:
        raise ValueError(f"an explanation is of one object, this batch has {len(batch)}")
    (data,) = scorer.score(batch, explained_p=1.0).explanations
    return Explanation.from_bytes(data or b"")
