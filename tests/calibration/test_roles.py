from collections.abc import Callable

import numpy as np
import pytest

from offramp.calibration.roles import ROLES, clusters_of, roles_of
from offramp.errors import DataError
from offramp.outputs import ExitOutputs

Make = Callable[..., ExitOutputs]


def test_every_row_has_one_role(make_pool: Make) -> None:
    for temperature in (False, True):
        roles = roles_of(make_pool(997), None, 4, temperature=temperature)
        every = np.concatenate([getattr(roles, role) for role in ROLES])
        np.testing.assert_array_equal(np.sort(every), np.arange(997))
        assert (roles.sizes["temperature"] > 0) == temperature
        assert roles.sizes["stopping"] == 0
        assert 0.5 < roles.test_share < 0.8


def test_the_draw_of_roles_depends_on_the_seed(make_pool: Make) -> None:
    pool = make_pool(300)
    first, again, other = (roles_of(pool, None, seed, temperature=False) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.test, again.test)
    assert not np.array_equal(first.test, other.test)


def test_rows_of_a_cluster_get_the_same_role(make_pool: Make) -> None:
    clusters = np.arange(400) // 5
    roles = roles_of(make_pool(400, clusters=clusters), None, 0, temperature=True)
    parts = [set(clusters[getattr(roles, role)]) for role in ROLES]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 80
    assert roles.num_units_with("test") == len(parts[-1])
    assert (roles.unit, roles.num_units, roles.cluster_size) == ("cluster", 80, 5)


def test_equal_clusters_or_ids_connect_rows(make_pool: Make) -> None:
    outputs = make_pool(7, clusters=[4, 4, 3, 2, 1, 0, 9], ids=["a", "b", "b", "c", "d", "e", "c"])
    np.testing.assert_array_equal(clusters_of(outputs), [0, 0, 0, 1, 2, 3, 1])
    assert clusters_of(make_pool(7, ids=list("abcdefg"))) is None
    assert clusters_of(make_pool(7)) is None


def test_a_single_cluster_is_refused_with_the_reason(make_pool: Make) -> None:
    with pytest.raises(DataError, match="all 200 rows belong to one cluster"):
        roles_of(make_pool(200, ids=["a"] * 200), None, 0, temperature=False)


def test_a_split_that_divides_a_cluster_is_refused_naming_two_rows(make_pool: Make) -> None:
    outputs = make_pool(4, clusters=["x", "y", "x", "z"])
    with pytest.raises(DataError, match="row 2 the role test and row 0 the role order"):
        roles_of(outputs, ["order", "test", "test", "test"], 0, temperature=False)


def test_given_roles_are_used_as_they_are(make_pool: Make) -> None:
    split = ["test", "order", "stopping", "test", "temperature"]
    roles = roles_of(make_pool(5), split, 0, temperature=False)
    assert [getattr(roles, role).tolist() for role in ROLES] == [[2], [4], [1], [0, 3]]
