"""Roles: each row fits temperatures, orders the candidates or tests them, never two of these.

Rows of a cluster depend on each other, so all of them get the same role.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from offramp.errors import DataError, PlanError, ShapeError
from offramp.outputs import ExitOutputs
from offramp.policy.policy import inputs_left_out
from offramp.policy.promise import Promise
from offramp.table import counted

ROLES = ("stopping", "temperature", "order", "test")
"""What a row is used for. Rows with the role `stopping` are ignored in calibration."""

_DRAWN = {False: {"order": 0.3}, True: {"temperature": 0.15, "order": 0.25}}  # all other rows test
_USED = ("train", "validation")

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Roles:
    """Row indices by role, in the order of the outputs.

    Attributes:
        test_share: Share of the rows that test; if roles are drawn, the probability of that role.
        clusters: (N,) index of each row's cluster; None if all rows are independent.
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
    def unit(self) -> str:
        """What is independent: "sample", or "cluster" where samples share one."""
        return "sample" if self.clusters is None else "cluster"

    @property
    def num_units(self) -> int:
        """Number of independent samples or clusters, over all roles."""
        return sum(self.sizes.values()) if self.clusters is None else int(self.clusters.max()) + 1

    def num_units_with(self, role: str) -> int:
        """Number of independent samples or clusters with a role."""
        rows = getattr(self, role)
        return len(rows) if self.clusters is None else len(np.unique(self.clusters[rows]))

    @property
    def cluster_size(self) -> int:
        """Number of rows of the largest cluster, over all roles."""
        return 1 if self.clusters is None else int(np.bincount(self.clusters).max())


def roles_of(
    outputs: ExitOutputs, split: ArrayLike | None, seed: int, *, temperature: bool
) -> Roles:
    """Assign roles as given in `split`, (N,), or draw them for each cluster from `seed`.

    Raises:
        PlanError: `split` has an unknown role, or not one role per row.
        DataError: `split` is None and the outputs are of a split used in training; a role has no
            row; or rows of one cluster have different roles.
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
    """Cluster index of each row, in order of first occurrence; None if all rows are independent.

    Rows are in the same cluster if they share a cluster or an id, directly or through other rows.
    """
    fields = [field for field in (outputs.clusters, outputs.ids) if field is not None]
    num = len(outputs.labels)
    links = [np.unique(field, return_inverse=True)[1] for field in fields]
    if all(len(np.unique(link)) == num for link in links):
        return None
    # a bipartite graph: each row is connected to its id and its cluster
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
            f"these outputs are of the {used} split, which was used in training, so a promise "
            "from them would be too optimistic. Calibrate on outputs/calibration.npz, or pass "
            "`split` to say which rows were not used."
        )
    units = np.arange(len(outputs.labels)) if clusters is None else clusters
    if clusters is not None and units.max() == 0:
        raise DataError(
            f"all {len(units)} rows belong to one cluster (equal clusters or ids), so there is "
            "only one independent sample, and calibration needs separate ones to learn and to "
            "test. Add rows from other sources."
        )
    chance = np.random.default_rng(seed).random(int(units.max()) + 1)
    shares = _DRAWN[temperature]
    place = np.searchsorted(np.cumsum(list(shares.values())), chance, side="right")
    return np.array([*shares, "test"])[place][units]


def _given(outputs: ExitOutputs, split: ArrayLike) -> NDArray[np.str_]:
    roles = np.asarray(split).astype(np.str_)
    num = len(outputs.labels)
    if roles.shape != (num,):
        raise PlanError(
            f"split must have one role per row, shape ({num},); got shape {roles.shape}."
        )
    unknown = sorted(set(roles.tolist()) - set(ROLES))
    if unknown:
        raise PlanError(
            f"split has the unknown roles {unknown}. Each must be one of {', '.join(ROLES)}."
        )
    absent = [role for role in ("order", "test") if role not in roles]
    if absent:
        raise DataError(
            f"split gives no row the role {' or '.join(absent)}, but calibration needs both "
            "`order` and `test` rows. Use about 30 % of the rows for `order` and the rest for "
            "`test`."
        )
    return roles


def _check_whole(roles: NDArray[np.str_], clusters: Ints | None, outputs: ExitOutputs) -> None:
    """Refuse a split that gives rows of one cluster different roles."""
    if clusters is None:
        return
    first = np.unique(clusters, return_index=True)[1]
    torn = np.flatnonzero(roles != roles[first][clusters])
    if len(torn):
        row = int(torn[0])
        raise DataError(
            f"split gives row {row} the role {roles[row]} and row {first[clusters[row]]} the role "
            f"{roles[first[clusters[row]]]}, but they are in the same cluster (equal cluster or "
            "id), so they are not independent. Give all rows of a cluster the same role."
        )


def use_of(num_samples: Mapping[str, int], promise: Promise | None) -> str:
    """What calibration samples were used for, from the number of samples in each role."""
    did = {
        "stopping": "were used for early stopping",
        "temperature": "fitted temperatures",
        "order": "ordered the candidates",
        "test": "tested them",
    }
    parts = [f"{num_samples[role]} {what}" for role, what in did.items() if num_samples.get(role)]
    clusters = None if promise is None else promise.num_clusters
    within = "" if clusters is None else f", in {counted(clusters, 'cluster')}"
    return (
        f"Of the calibration samples, {', '.join(parts[:-1])} and {parts[-1]}; the promise rests "
        f"on these {num_samples['test']}{within}."
    )


def check_early_exits(outputs: ExitOutputs) -> None:
    """Refuse outputs of a single exit, which leave nothing to calibrate.

    Raises:
        ShapeError: There is no early exit.
    """
    if len(outputs.names) > 1:
        return
    absent = " and ".join(inputs_left_out(outputs.source))
    raise ShapeError(
        f"without {absent} only the exit {outputs.names[0]!r} answers, so it answers every sample "
        "and there is nothing to calibrate. Train more branches that can do without."
        if absent
        else "these outputs have no early exit to calibrate. Train a branch first."
    )
