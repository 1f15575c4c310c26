"""Answers of every trained branch on one set of samples, and the trials that failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from offramp.errors import ShapeError
from offramp.outputs import independent_units, names_in
from offramp.record import Record
from offramp.storage.archive import Archived
from offramp.storage.arrays import (
    checked_counts,
    checked_outputs,
    checked_set_names,
    checked_source,
    checked_texts,
    checked_times,
)
from offramp.task import Measure, Task, checked_labels, measure_of


@dataclass(frozen=True)
class FailedTrial(Record):
    """A trial whose training failed.

    Attributes:
        branch: Short label of its branch settings.
        reason: What happened, such as `diverged in epoch 1`.
    """

    cut: str
    branch: str
    kind: str
    seed: int
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`, as part of a row that has the other facts."""
        return {"seed": self.seed, "reason": self.reason}


@dataclass(frozen=True, eq=False, kw_only=True)
class TrialOutputs(Archived):
    """Answers of T trials (a branch at a cut from a seed), and of the backbone itself.

    Attributes:
        outputs: (T, N, K) float32: logits before softmax, or values (K = 1) for regression.
        final: (N, K) float32 answers of the backbone itself.
        labels: (N,) class numbers from 0, or values for regression.
        cuts: (T,) name of each trial's cut.
        branches: (T,) short label of each trial's branch settings.
        kinds: (T,) kind of each trial's branch, such as `slvit` or `conv`.
        seeds: (T,) seed of each trial; cut, branch and seed identify a trial.
        params: (T,) number of parameters of each branch.
        branch_flops: (T,) FLOPs of each branch (a multiply-add is 2).
        cut_names: (S,) names of all cuts, in the order of the backbone.
        stage_flops: (S + 1,) FLOPs of each stage alone.
        branch_ms: (T,) measured milliseconds of each branch; requires `stage_ms`.
        stage_ms: (S + 1,) measured milliseconds of each stage.
        ids: (N,) names of the samples as text; repeats are allowed.
        clusters: (N,) text or integers; samples from the same source share one (see `ExitOutputs`).
        source: Where the answers came from, as JSON values, with `class_names` as in `ExitOutputs`.

    Raises:
        ShapeError: Shapes do not match, a value is not finite, a cut is not in `cut_names`, a trial
            occurs twice, or branches of one label differ in settings.
    """

    schema: ClassVar[str] = "offramp trial outputs 1"
    outputs: NDArray[np.float32]
    final: NDArray[np.float32]
    labels: NDArray[np.generic]
    task: Task = "classification"
    cuts: NDArray[np.str_]
    branches: NDArray[np.str_]
    kinds: NDArray[np.str_]
    seeds: NDArray[np.int64]
    params: NDArray[np.int64]
    branch_flops: NDArray[np.int64]
    cut_names: NDArray[np.str_]
    stage_flops: NDArray[np.int64]
    branch_ms: NDArray[np.float64] | None = None
    stage_ms: NDArray[np.float64] | None = None
    ids: NDArray[np.str_] | None = None
    clusters: NDArray[np.generic] | None = None
    source: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        outputs = checked_outputs("outputs", self.outputs, "(trials, samples, K)")
        final = checked_outputs("final", self.final, "(samples, K)")
        trials, stages = len(outputs), np.size(self.cut_names) + 1
        checked: dict[str, Any] = {"outputs": outputs, "final": final}
        checked["labels"] = checked_labels(self.labels, outputs, self.task)
        checked["cut_names"] = checked_texts("cut_names", self.cut_names, stages - 1)
        for name in ("cuts", "branches", "kinds"):
            checked[name] = checked_texts(name, getattr(self, name), trials)
        for name in ("seeds", "params", "branch_flops"):
            checked[name] = checked_counts(name, getattr(self, name), trials)
        checked["stage_flops"] = checked_counts("stage_flops", self.stage_flops, stages)
        checked["branch_ms"] = checked_times("branch_ms", self.branch_ms, trials)
        checked["stage_ms"] = checked_times("stage_ms", self.stage_ms, stages)
        checked["ids"] = checked_texts("ids", self.ids, outputs.shape[1])
        checked["clusters"] = checked_set_names("clusters", self.clusters, outputs.shape[1])
        checked["source"] = checked_source(self.source)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_trials()

    @cached_property
    def units(self) -> NDArray[np.int64] | None:
        """Index of the independent unit of each sample, (N,); None if all are independent."""
        return independent_units(self.ids, self.clusters)

    @property
    def measure(self) -> Measure:
        """What is averaged over samples: accuracy, or the absolute error with its unit."""
        return measure_of(self.task, names_in(self.source, self.outputs.shape[-1]))

    def _check_trials(self) -> None:
        if self.final.shape != self.outputs.shape[1:]:
            raise ShapeError(
                f"outputs are {self.outputs.shape} (trials, samples, K), so final must be "
                f"{self.outputs.shape[1:]}, got {self.final.shape}. Run both on the same samples."
            )
        strangers = sorted(set(self.cuts.tolist()) - set(self.cut_names.tolist()))
        if strangers or len(set(self.cut_names.tolist())) != self.cut_names.size:
            fault = f"lacks {strangers}" if strangers else "repeats a name"
            raise ShapeError(
                f"cut_names must list every cut once; got {self.cut_names.tolist()}, which {fault}."
            )
        names = list(zip(self.cuts.tolist(), self.branches.tolist(), self.seeds, strict=True))
        if len(set(names)) != len(names):
            raise ShapeError(
                "two trials have the same cut, branch and seed. Give different branches "
                "different labels."
            )
        settings = zip(names, self.kinds.tolist(), self.params, self.branch_flops, strict=True)
        if len({(*name[:2], *rest) for name, *rest in settings}) != len({n[:2] for n in names}):
            raise ShapeError(
                "trials of the same cut and branch differ in kind, params or branch_flops. "
                "Give different settings different labels."
            )
        if (self.stage_ms is None) != (self.branch_ms is None):
            raise ShapeError("stage_ms and branch_ms belong together: give both, or neither.")

    def check_failed(self, failed: Sequence[FailedTrial]) -> None:
        """Check that failed trials can belong to this run.

        Raises:
            ShapeError: A failed trial is at an unknown cut, or also has answers.
        """
        answered = set(zip(self.cuts.tolist(), self.branches.tolist(), self.seeds, strict=True))
        for trial in failed:
            if trial.cut not in self.cut_names.tolist():
                raise ShapeError(
                    f"a failed trial is at cut {trial.cut!r}, but the cuts are "
                    f"{self.cut_names.tolist()}. Give failed trials of the same run."
                )
            if (trial.cut, trial.branch, trial.seed) in answered:
                raise ShapeError(
                    f"the trial of {trial.branch!r} at {trial.cut!r} with seed {trial.seed} is "
                    "listed as failed but has answers. List each trial once."
                )
