"""RunResult: the results of a run, with its table and its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offramp.data import Splits
from offramp.doubts import class_counts
from offramp.evaluation import (
    Absence,
    Comparison,
    FailedTrial,
    Tradeoff,
    compare,
    compare_absence,
    tradeoff,
)
from offramp.evaluation.quality import Quality, quality
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Trial
from offramp.policy import ExitPolicy, find_score
from offramp.report import Curve, ReportInputs
from offramp.run.measure import Measured, ModelTimings
from offramp.run.pictures import answered_pictures
from offramp.run.plan import Plan

REPORT_FILES = ("report.html", "tradeoff.png", "tradeoff.svg")
REPORT_PICTURES = 12
_CLASSES = 20  # that the report counts one by one


@dataclass(frozen=True, eq=False)
class RunResult:
    """A finished run.

    Attributes:
        folder: The run folder.
        comparison: Every branch over all seeds, and the static rivals, on the test images.
        exits: The chosen branches on the test images.
        quality: Quality of the chosen branches on the test images, also at the plan's fixed
            threshold, which carries no promise.
        data_keys: Hashes that identify the data of each split.
        notes: What was left out, and why.
        doubts: Warnings about training labels and test answers that look like a mistake.
        absence: The exits on the test images without an input that some can do without; None where
            there is no such input.
        work_done: Sentence on what the call trained and what it kept; empty if the run was only
            read.
    """

    folder: Path
    plan: Plan
    model: MultiExit
    comparison: Comparison
    exits: Tradeoff
    quality: Quality
    data_keys: Mapping[str, str]
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    absence: Absence | None = None
    work_done: str = ""

    @classmethod
    def judged(
        cls,
        folder: Path,
        plan: Plan,
        model: MultiExit,
        seen: Measured,
        data_keys: Mapping[str, str],
    ) -> "RunResult":
        """Compare what was measured."""
        wanted = plan.evaluate
        comparison = compare(
            seen.trials,
            seen.rivals,
            failed=[
                FailedTrial(each.cut, each.label, each.spec.kind, each.seed, each.reason)
                for each in model.failed
            ],
            draws=wanted.bootstrap_draws,
            seed=wanted.bootstrap_seed,
        )
        test = seen.outputs["test"]
        quiet = {absent: rows for (split, absent), rows in seen.quiet.items() if split == "test"}
        judged = _quality(seen, wanted.threshold, model.info.class_names)
        return cls(
            folder,
            plan,
            model,
            comparison,
            tradeoff(test),
            judged,
            data_keys,
            seen.notes,
            seen.doubts,
            compare_absence(test, quiet) if quiet else None,
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "measure": self.comparison.measure.name,
            "comparison": self.comparison.as_json(),
            "exits": self.exits.as_json(),
            "absence": None if self.absence is None else self.absence.as_json(),
            "warnings": list(self.doubts),
            "fixed_threshold": next((each.as_json() for each in self.quality.policies), None),
        }

    def __str__(self) -> str:
        rules = [f"{each.name}: {each.rule}" for each in self.quality.policies]
        fixed = ["\n".join([str(self.quality.policy_table()), *rules])] if rules else []
        report = f"report: {self.folder / REPORT_FILES[0]}"
        doubts = [f"Warning: {doubt}" for doubt in self.doubts]
        measure = self.comparison.measure
        best = "highest" if measure.higher_is_better else "lowest"
        exits = (
            f"Branches in use, the one with the {best} validation {measure.noun} at each cut (ties "
            f"go to the lower loss): {self.model.exits_text}."
        )
        without = [] if self.absence is None else [str(self.absence)]
        return "\n\n".join(
            [str(self.comparison), exits, *without, *fixed, *self.notes, *doubts, report]
        )


def report_inputs(
    result: RunResult, seen: Measured, splits: Splits, facts: Mapping[str, Any]
) -> ReportInputs:
    """Content of a run's report; `facts` are those of `environment.json`."""
    plan, model = result.plan, result.model
    fixed = fixed_policy(model.names, plan.evaluate.threshold)
    return ReportInputs(
        title=f"Early exits on {_backbone_name(model, plan)}",
        comparison=result.comparison,
        exits=result.exits,
        absence=result.absence,
        quality=result.quality,
        curves=[_curve(trial) for trial in model.trials],
        pictures=list(answered_pictures(model, splits.test, REPORT_PICTURES, fixed)),
        facts=_readable(facts, plan, splits) | _spread(seen.timings) | _left_out(seen.notes),
        plan=plan.to_yaml(),
        warnings=result.doubts,
    )


def _backbone_name(model: MultiExit, plan: Plan) -> str:
    """Name of the backbone in the zoo, or the user's file and function."""
    return str((model.info.backbone or {}).get("function", plan.backbone.name))


def fixed_policy(names: Sequence[str], threshold: float) -> ExitPolicy:
    """The policy that leaves at the first exit whose maximum softmax reaches a fixed threshold."""
    return ExitPolicy(
        score=find_score("max_softmax"),
        thresholds=(threshold,) * (len(names) - 1),
        names=tuple(names),
    )


def _quality(seen: Measured, threshold: float, class_names: Sequence[str]) -> Quality:
    """Quality on the test images, with temperatures from the calibration images."""
    test = seen.outputs["test"]
    if test.task == "regression":
        return quality(test)
    return quality(
        test,
        {f"softmax >= {threshold:g}": fixed_policy(test.names, threshold)},
        temperatures_on=seen.outputs.get("calibration"),
        class_names=class_names,
    )


def _curve(trial: Trial) -> Curve:
    return Curve(
        trial.cut,
        trial.label,
        trial.seed,
        tuple(epoch.train_loss for epoch in trial.history),
        tuple(epoch.validation_loss for epoch in trial.history),
        trial.best_epoch,
    )


def _readable(facts: Mapping[str, Any], plan: Plan, splits: Splits) -> dict[str, str]:
    sizes = {name: f"{len(samples):,}" for name, samples in splits.named().items()}
    times = plan.evaluate
    return {
        "samples": ", ".join(f"{count} {name}" for name, count in sizes.items()),
        **_labels(splits),
        "left out": f"{len(splits.skipped)} samples that could not be read",
        "machine": f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads",
        "device": str(facts["device"]),
        "versions": ", ".join(f"{name} {v}" for name, v in facts["versions"].items()),
        "milliseconds": (
            f"median of {times.timing_repeats} calls after {times.timing_warmup} warm-up calls, "
            "batch 1, each stage and branch alone [10th and 90th percentile]"
        ),
        "seconds": ", ".join(f"{what} {s:g}" for what, s in facts["seconds"].items()),
    }


def _labels(splits: Splits) -> dict[str, str]:
    """Number of training samples of each class, or the values of a regression, as text."""
    labels = splits.train.targets
    if splits.task == "classification":
        counts = class_counts(labels.astype(np.int64), splits.target_names, _CLASSES)
        return {"training samples by class": counts}
    least, middle, most = np.quantile(labels.astype(np.float64), (0, 0.5, 1)).tolist()
    name = splits.target_names[0] if splits.target_names else "value"
    return {f"{name} in training": f"{least:g} to {most:g}, median {middle:g}"}


def _spread(timings: ModelTimings | None) -> dict[str, str]:
    """Medians with the 10th and 90th percentile, for the report."""
    if timings is None:
        return {"milliseconds": "not measured"}
    named = {f"{cut} {branch}": timing for (cut, branch), timing in timings.branches.items()}
    return {
        "stages, ms": ", ".join(map(str, timings.stages)),
        "branches, ms": ", ".join(f"{name} {timing}" for name, timing in named.items()),
    }


def _left_out(notes: Sequence[str]) -> dict[str, str]:
    return {"not measured": " ".join(notes)} if notes else {}
