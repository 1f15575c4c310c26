"""Roles: which rows fit temperatures, which order the candidates, which test them; never two.

Rows of one cluster depend on each other, so all of them get the same role.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from offramp.errors import DataError, PlanError
from offramp.outputs import ExitOutputs

ROLES = ("stopping", "temperature", "order", "test")
"""What a row is for. Those that stopped a training early are never looked at here."""

_DRAWN = {False: {"order": 0.3}, True: {"temperature": 0.15, "order": 0.25}}  # the rest tests
_USED = ("train", "validation")

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Roles:
    """Rows by their role, each in the order of the outputs.

    Attributes:
        test_share: Of all rows, those that test; where roles are drawn, their chance to.
        clusters: (N,) number of each row's cluster; None where every row is one by itself.
    """

    stopping: Ints
    temperature: Ints
    order: Ints
    test: Ints
    test_share: float
    clusters: Ints | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Number of rows of each role."""
        return {role: len(getattr(self, role)) for role in ROLES}

    @property
    def num_test_clusters(self) -> int | None:
        """How many clusters test; None where every row is one by itself."""
        return None if self.clusters is None else len(np.unique(self.clusters[self.test]))

    @property
    def cluster_size(self) -> int:
        """Rows of the largest cluster, whatever its role."""
        return 1 if self.clusters is None else int(np.bincount(self.clusters).max())


def roles_of(
    outputs: ExitOutputs, split: ArrayLike | None, seed: int, *, temperature: bool
) -> Roles:
    """Rows by the words in `split`, (N,), or drawn from `seed` for each cluster of rows.

    Raises:
        PlanError: The words are others, or not one per row.
        DataError: Nothing says which rows are fresh, and the outputs are of rows that training
            used; a role has no row; or rows of one cluster have two roles.
    """
    clusters = clusters_of(outputs)
    if split is None:
        roles = _drawn(outputs, clusters, seed, temperature)
        share = 1 - sum(_DRAWN[temperature].values())
    else:
        roles = _given(outputs, split)
        _check_whole(roles, clusters, outputs)
        share = float((roles == "test").mean())
    rows = {role: np.flatnonzero(roles == role) for role in ROLES}
    return Roles(**rows, test_share=share, clusters=clusters)


def clusters_of(outputs: ExitOutputs) -> Ints | None:
    """Cluster of each row, numbered as they first occur: rows connected by equal cluster or id.

    None where no two rows are connected.
    """
    fields = [field for field in (outputs.clusters, outputs.ids) if field is not None]
    num = len(outputs.labels)
    links = [np.unique(field, return_inverse=True)[1] for field in fields]
    if all(len(np.unique(link)) == num for link in links):
        return None
    # a graph of rows and names, each row joined to its names
    ends, first = [], num
    for link in links:
        ends.append(first + link)
        first += int(link.max()) + 1
    rows = np.tile(np.arange(num), len(links))
    graph = coo_array((np.ones(len(rows)), (rows, np.concatenate(ends))), shape=(first, first))
    component = connected_components(graph, directed=False)[1][:num]
    _, at, inverse = np.unique(component, return_index=True, return_inverse=True)
    numbers: Ints = np.argsort(np.argsort(at))[inverse].astype(np.int64)
    return numbers


def _drawn(
    outputs: ExitOutputs, clusters: Ints | None, seed: int, temperature: bool
) -> NDArray[np.str_]:
    used = (outputs.source or {}).get("split")
    if used in _USED:
        raise DataError(
            f"these outputs are of the {used} split, which training has already looked at, so "
            "they would promise too much. Calibrate on outputs/calibration.npz, or say by `split` "
            "which rows are fresh."
        )
    units = np.arange(len(outputs.labels)) if clusters is None else clusters
    if clusters is not None and units.max() == 0:
        raise DataError(
            f"all {len(units)} rows share one cluster (equal clusters or ids), so they are one "
            "independent sample, and nothing can be both learned and tested on it. Give rows of "
            "more sources."
        )
    chance = np.random.default_rng(seed).random(int(units.max()) + 1)
    shares = _DRAWN[temperature]
    place = np.searchsorted(np.cumsum(list(shares.values())), chance, side="right")
    return np.array([*shares, "test"])[place][units]


def _given(outputs: ExitOutputs, split: ArrayLike) -> NDArray[np.str_]:
    roles = np.asarray(split).astype(np.str_)
    num = len(outputs.labels)
    if roles.shape != (num,):
        raise PlanError(f"split needs one word per row, ({num},); got shape {roles.shape}.")
    unknown = sorted(set(roles.tolist()) - set(ROLES))
    if unknown:
        raise PlanError(f"split has the words {unknown}; each must be one of {', '.join(ROLES)}.")
    absent = [role for role in ("order", "test") if role not in roles]
    if absent:
        raise DataError(
            f"split gives no row the role {' or '.join(absent)}: some rows have to learn the "
            "order, and others to test it. Give both, for example 3 in 10 and the rest."
        )
    return roles


def _check_whole(roles: NDArray[np.str_], clusters: Ints | None, outputs: ExitOutputs) -> None:
    """Refuse a split that gives rows of one cluster two roles."""
    if clusters is None:
        return
    first = np.unique(clusters, return_index=True)[1]
    torn = np.flatnonzero(roles != roles[first][clusters])
    if len(torn):
        row = int(torn[0])
        raise DataError(
            f"split gives row {row} the role {roles[row]} and row {first[clusters[row]]} the role "
            f"{roles[first[clusters[row]]]}, but they share a cluster or an id, so they are not "
            "independent. Give all rows of a cluster one role."
        )
