"""Answers of every exit on a set of samples, and their costs, as plain arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp import cost
from offramp.arguments import as_items, check_kind
from offramp.errors import OfframpError, PlanError, ShapeError
from offramp.storage.archive import Archived
from offramp.storage.arrays import (
    checked_counts,
    checked_outputs,
    checked_set_names,
    checked_source,
    checked_texts,
    checked_times,
    finite,
    kept,
    shaped,
)
from offramp.task import Measure, Task, checked_labels, measure_of

CostUnit = Literal["flops", "ms"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ExitOutputs(Archived):
    """Answers of E exits on N samples with K outputs each; the last exit is the backbone's own.

    Given arrays are checked once, here, and kept as read-only copies.

    Attributes:
        outputs: (E, N, K) float32: logits before softmax, or values (K = 1) for regression.
        labels: (N,) class numbers from 0, or values for regression.
        stage_flops: (E,) FLOPs of stage e alone, a multiply-add being 2.
        branch_flops: (E,) FLOPs of each exit's branch; 0 for the last exit, which has none.
        names: (E,) one name per exit; `exit 0`, `exit 1`, ..., `final` when left out.
        stage_ms: (E,) measured milliseconds of each stage; with `branch_ms` or not at all.
        branch_ms: (E,) measured milliseconds of each branch.
        scores: (E, N) float64, larger when more confident, where an engine gives its own.
        ids: (N,) text that names the samples; repeats are allowed.
        groups: (N,) text or integers that divide the samples into groups, which `within` speaks of.
        clusters: (N,) text or integers; samples of one source (a track, a speaker) share one and
            are not independent of each other. Samples with equal ids form a cluster by themselves.
        source: Where the answers came from, as JSON values: engine, precision, hashes of model
            and data, split, and `class_names` where they are known: names of the classes, or
            the name of the value of a regression.

    Raises:
        ShapeError: Shapes that disagree, a value that is not finite, a label out of range, a
            negative cost, a name given twice.
    """

    schema: ClassVar[str] = "offramp exit outputs 1"
    outputs: NDArray[np.float32]
    labels: NDArray[np.generic]
    task: Task = "classification"
    stage_flops: NDArray[np.int64]
    branch_flops: NDArray[np.int64]
    names: Sequence[str] = ()
    stage_ms: NDArray[np.float64] | None = None
    branch_ms: NDArray[np.float64] | None = None
    scores: NDArray[np.float64] | None = None
    ids: NDArray[np.str_] | None = None
    groups: NDArray[np.generic] | None = None
    clusters: NDArray[np.generic] | None = None
    source: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        outputs = checked_outputs("outputs", self.outputs, "(exits, samples, K)")
        exits, samples, _ = outputs.shape
        checked = {
            "outputs": outputs,
            "labels": checked_labels(self.labels, outputs, self.task),
            "stage_flops": checked_counts("stage_flops", self.stage_flops, exits),
            "branch_flops": checked_counts("branch_flops", self.branch_flops, exits),
            "names": _checked_names(self.names, exits),
            "stage_ms": checked_times("stage_ms", self.stage_ms, exits),
            "branch_ms": checked_times("branch_ms", self.branch_ms, exits),
            "scores": _checked_scores(self.scores, (exits, samples)),
            "ids": checked_texts("ids", self.ids, samples),
            "groups": checked_set_names("groups", self.groups, samples),
            "clusters": checked_set_names("clusters", self.clusters, samples),
            "source": checked_source(self.source),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_costs()

    def _check_costs(self) -> None:
        if self.branch_flops[-1] != 0:
            raise ShapeError(
                f"branch_flops[-1] is {self.branch_flops[-1]}, but the last exit is the backbone's "
                "own and has no branch. Set it to 0 and count the backbone's top in its last stage."
            )
        if (self.stage_ms is None) != (self.branch_ms is None):
            raise ShapeError("stage_ms and branch_ms go together: give both, or neither.")

    @cached_property
    def units(self) -> NDArray[np.int64] | None:
        """Independent unit of each sample, (N,) numbers from 0; None if each is its own unit.

        Samples that share an id or a cluster, directly or through other samples, are one unit.
        Intervals, tests and bounds count units, not samples.
        """
        return independent_units(self.ids, self.clusters)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K classes, or of the value, from `source`; empty if it has none."""
        return names_in(self.source, self.outputs.shape[-1])

    @property
    def measure(self) -> Measure:
        """What is averaged over samples: accuracy, or the absolute error with its unit."""
        return measure_of(self.task, self.class_names)

    @property
    def predictions(self) -> NDArray[np.generic]:
        """The class each exit answers, or its value for regression: (E, N)."""
        answers: NDArray[np.generic] = (
            self.outputs[:, :, 0] if self.task == "regression" else self.outputs.argmax(axis=-1)
        )
        return answers

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each exit answers the labelled class: (E, N).

        Raises:
            OfframpError: The task is regression, where no answer is simply right.
        """
        if self.task == "regression":
            raise OfframpError("a regression has errors, not right answers. Compare predictions.")
        right: NDArray[np.bool_] = self.predictions == self.labels
        return right

    def own_path_cost(self, unit: CostUnit = "flops") -> NDArray[np.float64]:
        """Cost of each exit: the stages up to it and its own branch only, (E,).

        Raises:
            OfframpError: Milliseconds are asked for and none were measured.
        """
        return cost.own_path(*self.costs(unit))

    def with_passed_cost(self, unit: CostUnit = "flops") -> NDArray[np.float64]:
        """Cost of each exit, with the branches passed on the way to it, (E,).

        Raises:
            OfframpError: Milliseconds are asked for and none were measured.
        """
        return cost.with_passed(*self.costs(unit))

    def costs(self, unit: CostUnit = "flops") -> tuple[ArrayLike, ArrayLike]:
        """Cost of each stage and of each branch alone, (E,) and (E,).

        Raises:
            PlanError: There is no such unit.
            OfframpError: Milliseconds are asked for and none were measured.
        """
        check_kind(unit, str, "the unit of costs", "Give 'flops' or 'ms'.")
        if unit not in get_args(CostUnit):
            raise PlanError(f"{unit!r} is not a unit of costs. Give 'flops' or 'ms'.")
        if unit == "flops":
            return self.stage_flops, self.branch_flops
        if self.stage_ms is None or self.branch_ms is None:
            raise OfframpError(
                "these outputs hold no measured milliseconds. Collect them with timing, or ask "
                "for flops."
            )
        return self.stage_ms, self.branch_ms


def names_in(source: Mapping[str, Any] | None, count: int) -> tuple[str, ...]:
    """The names of that many classes or values in a `source`; empty if it has others or none."""
    found = (source or {}).get("class_names", ())
    return tuple(map(str, found)) if len(found) == count else ()


def independent_units(
    ids: NDArray[np.generic] | None, clusters: NDArray[np.generic] | None
) -> NDArray[np.int64] | None:
    """Number samples (N,) that share an id or a cluster alike, from 0; None if no two do.

    The numbers follow from the ids and clusters alone, so rows in another order keep theirs.
    """
    named = [
        np.unique(names, return_inverse=True)[1] for names in (clusters, ids) if names is not None
    ]
    if not named:
        return None
    units = _joined(*named) if len(named) == 2 else named[0]
    return units if units.max() + 1 < len(units) else None


def _joined(clusters: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers (N,) of the connected parts where clusters (N,) that hold an equal id are linked.

    Union-find: each cluster points to a smaller one of its part, the smallest to itself.
    """
    pairs = np.unique(np.stack([ids, clusters]), axis=1)
    same = np.flatnonzero(pairs[0, 1:] == pairs[0, :-1])  # one id, two clusters
    parent = list(range(int(clusters.max()) + 1))

    def root(cluster: int) -> int:
        while parent[cluster] != cluster:
            parent[cluster] = parent[parent[cluster]]
            cluster = parent[cluster]
        return cluster

    for one, other in pairs[1][[same, same + 1]].T.tolist():
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    parts = np.array([root(cluster) for cluster in range(len(parent))])
    return np.unique(parts, return_inverse=True)[1][clusters]


def _checked_names(names: Sequence[str] | None, exits: int) -> tuple[str, ...]:
    remedy = "Give a tuple of names, one for each exit."
    given = () if names is None else tuple(map(str, as_items(names, "names", remedy)))
    if not given:
        return (*(f"exit {exit}" for exit in range(exits - 1)), "final")
    if len(given) != exits or len(set(given)) != exits:
        raise ShapeError(f"names must be {exits} different names, one per exit; got {given}.")
    return given


def _checked_scores(scores: ArrayLike | None, shape: tuple[int, int]) -> NDArray[np.float64] | None:
    if scores is None:
        return None
    return kept(finite("scores", shaped("scores", np.asarray(scores, np.float64), shape)))


def check_outputs(outputs: object, name: str = "outputs") -> None:
    """Refuse an argument that is not ExitOutputs.

    Raises:
        ArgumentError: It is something else, such as the path of a file with outputs.
    """
    check_kind(
        outputs,
        ExitOutputs,
        name,
        "Give ExitOutputs: what model.collect(data) returns, or ExitOutputs.load(path) for a file.",
    )
