from collections.abc import Callable

import numpy as np

from offramp.calibration.parts import ROLES, parts_of
from offramp.outputs import ExitOutputs

Make = Callable[..., ExitOutputs]


def test_every_row_has_one_role(make_pool: Make) -> None:
    for temperature in (False, True):
        parts = parts_of(make_pool(997), None, 4, temperature=temperature)
        every = np.concatenate([getattr(parts, role) for role in ROLES])
        np.testing.assert_array_equal(np.sort(every), np.arange(997))
        assert (parts.sizes["temperature"] > 0) == temperature
        assert parts.sizes["stopping"] == 0
        assert 0.5 < parts.test_share < 0.8


def test_the_draw_is_of_the_seed(make_pool: Make) -> None:
    pool = make_pool(300)
    first, again, other = (parts_of(pool, None, seed, temperature=False) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.test, again.test)
    assert not np.array_equal(first.test, other.test)


def test_rows_with_one_id_are_drawn_one_by_one(make_pool: Make) -> None:
    plain, same = make_pool(200), make_pool(200, ids=["a"] * 200)
    one, two = (parts_of(pool, None, 0, temperature=False) for pool in (plain, same))
    np.testing.assert_array_equal(one.test, two.test)
    assert 0 < len(two.order) < 200


def test_given_words_are_taken_as_they_are(make_pool: Make) -> None:
    split = ["test", "order", "stopping", "test", "temperature"]
    parts = parts_of(make_pool(5), split, 0, temperature=False)
    assert [getattr(parts, role).tolist() for role in ROLES] == [[2], [4], [1], [0, 3]]
