"""Who is known to have ended processes: deaths are counted, survivals are not."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from service.catalog.attempts import put_down, recover, take_alone, take_up
from service.catalog.engine import CatalogError
from service.catalog.rows import RejectedRow
from service.catalog.runs import add_inputs, counts, list_inputs
from service.catalog.writer import write_batch

PATHS = ["/a", "/b", "/c"]


@pytest.fixture
def queued(engine: sa.Engine, run: int) -> int:
    add_inputs(engine, run, [(path, 1, 1) for path in PATHS])
    return run


def attempts(engine: sa.Engine, run: int) -> list[int]:
    return [file["attempts"] for file in list_inputs(engine, run)]


def test_a_first_delivery_takes_all_in_hand(engine: sa.Engine, queued: int) -> None:
    assert take_up(engine, queued, PATHS, "m") == dict.fromkeys(PATHS, 0)
    assert all(file["in_hand"] for file in list_inputs(engine, queued))


def test_a_second_delivery_counts_a_death_for_what_was_in_hand(engine: sa.Engine, queued: int) -> None:
    take_up(engine, queued, PATHS, "m")
    write_batch(engine, queued, [], [RejectedRow("/a", "bad")])
    assert take_up(engine, queued, PATHS, "m") == {"/b": 1, "/c": 1}
    # Now one by one: only what was touched is counted at the third.
    take_alone(engine, queued, "/b", "m")
    assert take_up(engine, queued, PATHS, "m") == {"/b": 2, "/c": 1}
    assert take_up(engine, queued, PATHS, "m") == {"/b": 2, "/c": 1}


def test_another_message_is_no_sign_of_death(engine: sa.Engine, queued: int) -> None:
    take_up(engine, queued, PATHS, "m")
    assert take_up(engine, queued, PATHS, "other") == dict.fromkeys(PATHS, 0)
    assert take_up(engine, queued, PATHS, "m") == dict.fromkeys(PATHS, 0)


def test_what_was_put_down_is_no_sign_of_death(engine: sa.Engine, queued: int) -> None:
    take_up(engine, queued, PATHS, "m")
    put_down(engine, queued, "other")
    assert take_up(engine, queued, PATHS[2:], "m") == {"/c": 1}
    put_down(engine, queued, "m")
    assert take_up(engine, queued, PATHS, "m") == {"/a": 0, "/b": 0, "/c": 1}


def test_what_no_message_carries_is_recovered(engine: sa.Engine, queued: int) -> None:
    take_up(engine, queued, PATHS[:1], "m")
    assert recover(engine, queued) == PATHS
    assert attempts(engine, queued) == [1, 0, 0]
    assert recover(engine, queued) == PATHS
    assert attempts(engine, queued) == [1, 0, 0]


def test_a_changed_file_starts_anew(engine: sa.Engine, queued: int) -> None:
    for _ in range(2):
        take_up(engine, queued, PATHS, "m")
    add_inputs(engine, queued, [("/a", 2, 2)])
    assert take_up(engine, queued, PATHS, "m")["/a"] == 0


def test_paths_that_the_run_has_not_met_join_it(engine: sa.Engine, queued: int) -> None:
    assert take_up(engine, queued, ["/new", "nul\0byte"], "m") == {"/new": 0, "nul\0byte": 0}
    assert counts(engine, queued)["queued"] == 5
    assert take_up(engine, queued, ["/new", "nul\0byte"], "m") == {"/new": 1, "nul\0byte": 1}


def test_no_such_run_is_said(engine: sa.Engine) -> None:
    with pytest.raises(CatalogError, match="no run 99"):
        take_up(engine, 99, PATHS, "m")
