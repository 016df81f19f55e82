"""A ranking learnt from a few labels."""

from __future__ import annotations

import numpy as np
import pytest

from models.interest import interest


def two_groups(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Latents of two groups that lie apart, p-values of parts, raw scores, and the group."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % 2
    latent = rng.normal(size=(n, 4)) / 4 + group[:, None]
    return latent, rng.uniform(0.01, 0.02, (n, 3)), rng.normal(size=n), group


def ranked(labelled: np.ndarray, wanted: np.ndarray, **changes: np.ndarray) -> np.ndarray:
    latent, part_p, raw, _ = two_groups()
    values = {"latent": latent, "part_p": part_p, "raw": raw} | changes
    return interest(**values, labelled=labelled, wanted=wanted)


def test_wanted_rises_and_unwanted_sinks() -> None:
    group = two_groups()[-1]
    labelled = np.arange(10)
    found = ranked(labelled, group[labelled] == 1)
    rest = np.arange(10, 200)
    top = rest[np.argsort(-found[rest])[:90]]
    assert (group[top] == 1).mean() > 0.95


def test_without_labels_it_is_the_raw_order() -> None:
    raw = two_groups()[2]
    found = ranked(np.empty(0, int), np.empty(0, bool))
    assert (np.argsort(-found) == np.argsort(-raw)).all()


def test_far_from_labels_the_raw_order_holds() -> None:
    latent, part_p, raw, _ = two_groups()
    latent[180:] += 50
    untouched = interest(latent, part_p, raw, np.empty(0, int), np.empty(0, bool))
    found = interest(latent, part_p, raw, np.arange(10), np.ones(10, bool))
    change = found - untouched
    assert change[10:180].min() > 0.1 > 0.01 > np.abs(change[180:]).max()


@pytest.mark.parametrize("wanted", [True, False])
def test_labels_of_one_sort_suffice(wanted: bool) -> None:
    group = two_groups()[-1]
    found = ranked(np.arange(0, 20, 2), np.full(10, wanted))
    same, other = found[20:][group[20:] == 0], found[20:][group[20:] == 1]
    assert (np.median(same) > np.median(other)) == wanted


def test_scale_and_place_of_a_latent_do_not_matter() -> None:
    latent, part_p, raw, group = two_groups()
    labelled = np.arange(12)
    first = interest(latent, part_p, raw, labelled, group[:12] == 1)
    second = interest(latent * [1, 100, 1e-3, 5] + 7, part_p, 3 * raw + 2, labelled, group[:12] == 1)
    np.testing.assert_allclose(first, second, atol=1e-8)


def test_repeated_objects_contradictory_labels_and_extremes_stay_finite() -> None:
    latent, part_p, raw, _ = two_groups()
    latent[1], latent[2] = latent[0], 1e9
    part_p[3], part_p[4] = 0, 1
    raw[5] = 1e12
    found = interest(latent, part_p, raw, np.array([0, 1, 2, 3, 4, 5]), np.array([1, 0, 1, 0, 1, 0], bool))
    assert np.isfinite(found).all()
    assert np.isfinite(
        interest(np.ones((5, 2)), np.ones((5, 0)), np.ones(5), np.arange(2), np.ones(2, bool))
    ).all()


def test_shapes_that_do_not_fit() -> None:
    latent, part_p, raw, _ = two_groups()
    with pytest.raises(ValueError, match="rows"):
        interest(latent, part_p[:5], raw, np.arange(3), np.ones(3, bool))
    with pytest.raises(ValueError, match="label"):
        interest(latent, part_p, raw, np.arange(3), np.ones(2, bool))
    with pytest.raises(ValueError, match="label"):
        interest(latent, part_p, raw, np.array([200]), np.ones(1, bool))
