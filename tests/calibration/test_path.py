import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from offramp import cost
from offramp.calibration.path import Ground, learned_path, walk

STAGES, BRANCHES = [20, 30, 50], [2, 3, 0]


def costs(enabled: NDArray[np.bool_]) -> NDArray[np.float64]:
    return cost.with_passed(STAGES, BRANCHES, np.append(enabled, True))


def ground(seed: int, num: int = 61, strata: int = 1) -> Ground:
    random = np.random.default_rng(seed)
    losses = random.choice([-1.0, 0, 1], (3, num), p=[0.05, 0.75, 0.2])
    losses[-1] = 0
    return Ground(
        first=random.integers(1, 9, (2, num)),
        num_levels=np.array([7, 7]),
        losses=losses,
        strata=random.integers(0, strata, num),
        costs=costs,
    )


@given(seed=st.integers(0, 500), strata=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_a_path_goes_up_one_level_of_one_exit_at_a_time(seed: int, strata: int) -> None:
    path = learned_path(ground(seed, strata=strata))
    steps = np.diff(np.vstack([np.zeros((1, 2), np.int64), path]), axis=0)
    assert np.all(steps >= 0)
    np.testing.assert_array_equal(steps.sum(axis=1), 1)


@given(seed=st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_a_walk_leaves_where_each_state_alone_would(seed: int) -> None:
    place = ground(seed)
    path = learned_path(place)
    for state, leaves in zip(path, walk(place.first, path), strict=True):
        fired = np.vstack([place.first <= state[:, np.newaxis], np.ones((1, 61), bool)])
        np.testing.assert_array_equal(leaves, fired.argmax(axis=0))


@given(seed=st.integers(0, 500), strata=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_permuted_rows_give_the_same_path(seed: int, strata: int) -> None:
    place = ground(seed, strata=strata)
    moved = np.random.default_rng(seed).permutation(61)
    other = Ground(
        first=place.first[:, moved],
        num_levels=place.num_levels,
        losses=place.losses[:, moved],
        strata=place.strata[moved],
        costs=costs,
    )
    np.testing.assert_array_equal(learned_path(place), learned_path(other))


def test_the_path_ends_where_no_move_saves() -> None:
    place = ground(3)
    path = learned_path(place)
    leaves = list(walk(place.first, path))[-1]
    here = costs(path[-1] > 0)[leaves].mean()
    for exit in range(2):
        for level in range(int(path[-1][exit]) + 1, 8):
            state = path[-1].copy()
            state[exit] = level
            [then] = walk(place.first, state[np.newaxis])
            assert costs(state > 0)[then].mean() >= here - 1e-9


def test_levels_without_loss_come_before_those_with() -> None:
    first = np.array([[1, 1, 2, 2, 3, 3], [4, 4, 4, 4, 4, 4]])
    losses = np.zeros((3, 6))
    losses[0, 4:] = 1
    place = Ground(first, np.array([3, 3]), losses, np.zeros(6, np.int64), costs)
    np.testing.assert_array_equal(learned_path(place)[:2], [[1, 0], [2, 0]])


def test_a_branch_dearer_than_what_it_saves_is_never_enabled() -> None:
    place = ground(1)

    def dear(enabled: NDArray[np.bool_]) -> NDArray[np.float64]:
        return cost.with_passed(STAGES, [200, 3, 0], np.append(enabled, True))

    path = learned_path(Ground(place.first, place.num_levels, place.losses, place.strata, dear))
    assert path[:, 0].max() == 0
    assert path[:, 1].max() > 0


@pytest.mark.parametrize("num", [1, 2])
def test_few_rows_are_enough_for_a_path(num: int) -> None:
    assert learned_path(ground(0, num)).shape[1] == 2
