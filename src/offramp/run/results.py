"""RunResult: what a finished run found, and the files of a run folder that hold it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from offramp.data import Splits
from offramp.evaluation import (
    Comparison,
    Rival,
    Tradeoff,
    TrialOutputs,
    compare,
    tradeoff,
)
from offramp.evaluation.quality import Quality, quality
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Trial
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, find_score
from offramp.report import Curve, Picture, ReportInputs, write_report
from offramp.run.answer import answer_one_by_one
from offramp.run.measure import ModelTimings
from offramp.run.plan import Plan, load_plan
from offramp.run.prepare import build_backbone
from offramp.storage.archive import read_arrays, write_arrays
from offramp.storage.atomic import make_folder, write_bytes
from offramp.storage.manifest import read_file, read_manifest

PLAN = "plan.yaml"
METRICS = "metrics.json"
ENVIRONMENT = "environment.json"
REPORT_FILES = ("report.html", "tradeoff.png", "tradeoff.svg")
SPLITS = ("validation", "calibration", "test")
REPORT_PICTURES = 12
PICTURES_SEED = 0
_TRIALS, _RIVALS = "outputs/trials.npz", "outputs/rivals.npz"
_RIVALS_SCHEMA = "offramp rivals 1"


@dataclass(frozen=True, eq=False)
class Answered:
    """All that a model was seen to do, before it is judged.

    Attributes:
        outputs: Of the chosen branches, by split.
        trials: Of every branch, on the test images.
        rivals: The whole backbone on smaller test images.
        timings: Of stages and branches, where they were measured.
    """

    outputs: Mapping[str, ExitOutputs]
    trials: TrialOutputs
    rivals: Sequence[Rival]
    timings: ModelTimings | None = None


@dataclass(frozen=True, eq=False)
class RunResult:
    """A finished run.

    Attributes:
        folder: Where it lies.
        comparison: Every branch over all seeds, and the static rivals, on the test images.
        exits: The chosen branches, on the test images.
        quality: Of the chosen branches on the test images, and what they do at the plan's fixed
            threshold, which carries no promise.
    """

    folder: Path
    plan: Plan
    model: MultiExit
    comparison: Comparison
    exits: Tradeoff
    quality: Quality

    @classmethod
    def judged(cls, folder: Path, plan: Plan, model: MultiExit, seen: Answered) -> "RunResult":
        """Compare and place what was seen."""
        wanted = plan.evaluate
        comparison = compare(
            seen.trials, seen.rivals, draws=wanted.bootstrap_draws, seed=wanted.bootstrap_seed
        )
        test = seen.outputs["test"]
        judged = _quality(seen, wanted.threshold, model.info.class_names)
        return cls(folder, plan, model, comparison, tradeoff(test), judged)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "comparison": self.comparison.as_json(),
            "exits": self.exits.as_json(),
            "fixed_threshold": next((each.as_json() for each in self.quality.policies), None),
        }

    def __str__(self) -> str:
        rules = [f"{each.name}: {each.rule}" for each in self.quality.policies]
        fixed = ["\n".join([str(self.quality.policy_table()), *rules])] if rules else []
        report = f"report: {self.folder / REPORT_FILES[0]}"
        return "\n\n".join([str(self.comparison), *fixed, report])


def write_result(
    result: RunResult, seen: Answered, splits: Splits, facts: Mapping[str, Any]
) -> None:
    """Write all files of a run folder; the manifest comes last, so a run is whole or unfinished."""
    folder = make_folder(result.folder)
    make_folder(folder / "outputs")
    for name, answers in seen.outputs.items():
        answers.save(folder / "outputs" / f"{name}.npz")
    seen.trials.save(folder / _TRIALS)
    write_arrays(
        folder / _RIVALS, _RIVALS_SCHEMA, {r.name: np.asarray(r.values) for r in seen.rivals}
    )
    metrics = {
        **result.as_json(),
        "rivals": [rival.as_json() for rival in seen.rivals],
        "samples": {name: len(images) for name, images in splits.named().items()},
        "timings_ms": None if seen.timings is None else seen.timings.as_json(),
        "data": data_keys(splits),
        "skipped_images": list(splits.skipped),
    }
    write_bytes(folder / METRICS, _json(metrics))
    write_bytes(folder / ENVIRONMENT, _json(facts))
    write_report(folder, _report_inputs(result, seen, splits, facts))
    outputs = [f"outputs/{name}.npz" for name in seen.outputs]
    result.model.save(
        folder, [PLAN, METRICS, ENVIRONMENT, *REPORT_FILES, _TRIALS, _RIVALS, *outputs]
    )


def load_result(folder: str | Path, backbone_file: str | None = None) -> RunResult:
    """Read a finished run; nothing is computed but the intervals of the table.

    Raises:
        BundleError: The run is unfinished, or a file of it was changed.
    """
    folder = Path(folder)
    plan, model = load_run(folder, backbone_file)
    manifest = read_manifest(folder)
    for name in ("outputs/test.npz", _TRIALS, _RIVALS, METRICS):
        read_file(folder, manifest, name)
    metrics = json.loads((folder / METRICS).read_text())
    seen = Answered(
        {"test": ExitOutputs.load(folder / "outputs" / "test.npz")},
        TrialOutputs.load(folder / _TRIALS),
        _stored_rivals(folder, metrics["rivals"]),
    )
    return RunResult.judged(folder, plan, model, seen)


def load_run(folder: Path, backbone_file: str | None = None) -> tuple[Plan, MultiExit]:
    """Plan and model of a finished run.

    Raises:
        BundleError: The run is unfinished, or a file of it was changed.
    """
    read_file(folder, read_manifest(folder), PLAN)
    plan = load_plan(folder / PLAN)
    by_flag = build_backbone(plan, backbone_file) if backbone_file is not None else None
    return plan, MultiExit.load(folder, backbone=by_flag)


def data_keys(splits: Splits) -> dict[str, str]:
    """What identifies the pictures of each split, their labels and preprocessing."""
    return {name: images.content_key for name, images in splits.named().items()}


def stored_data_keys(folder: Path) -> dict[str, str]:
    """The `data_keys` of the pictures that a finished run was made with."""
    metrics = json.loads(read_file(folder, read_manifest(folder), METRICS))
    keys: dict[str, str] = metrics["data"]
    return keys


def _stored_rivals(folder: Path, stored: Sequence[Mapping[str, Any]]) -> list[Rival]:
    known = [Rival(**facts) for facts in stored]
    values = read_arrays(folder / _RIVALS, _RIVALS_SCHEMA, [rival.name for rival in known])
    return [replace(r, values=values[r.name].astype(np.float64)) for r in known]


def _report_inputs(
    result: RunResult, seen: Answered, splits: Splits, facts: Mapping[str, Any]
) -> ReportInputs:
    plan, model = result.plan, result.model
    some = splits.test.sample(REPORT_PICTURES, PICTURES_SEED)
    answers = answer_one_by_one(model, some, range(len(some)), plan.evaluate.threshold)
    return ReportInputs(
        title=f"Early exits on {plan.backbone.name}",
        comparison=result.comparison,
        exits=result.exits,
        quality=result.quality,
        curves=[_curve(trial) for trial in model.trials],
        pictures=[
            Picture(a.picture, a.answer, a.truth, a.exit, a.confidence, a.saved) for a in answers
        ],
        facts=_readable(facts, plan, splits) | _spread(seen.timings),
        plan=plan.to_yaml(),
    )


def _quality(seen: Answered, threshold: float, class_names: Sequence[str]) -> Quality:
    """Judged on the test images, temperatures from the calibration images."""
    test = seen.outputs["test"]
    if test.task == "regression":
        return quality(test)
    fixed = ExitPolicy(
        score=find_score("max_softmax"),
        thresholds=(threshold,) * (len(test.names) - 1),
        names=tuple(test.names),
    )
    return quality(
        test,
        {f"softmax >= {threshold:g}": fixed},
        temperatures_on=seen.outputs.get("calibration"),
        class_names=class_names,
    )


def _curve(trial: Trial) -> Curve:
    return Curve(
        trial.cut,
        trial.spec.label(),
        trial.seed,
        tuple(epoch.train_loss for epoch in trial.history),
        tuple(epoch.validation_loss for epoch in trial.history),
        trial.best_epoch,
    )


def _readable(facts: Mapping[str, Any], plan: Plan, splits: Splits) -> dict[str, str]:
    images = {name: f"{len(images):,}" for name, images in splits.named().items()}
    times = plan.evaluate
    return {
        "images": ", ".join(f"{count} {name}" for name, count in images.items()),
        "left out": f"{len(splits.skipped)} images that could not be read",
        "machine": f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads",
        "device": str(facts["device"]),
        "versions": ", ".join(f"{name} {v}" for name, v in facts["versions"].items()),
        "milliseconds": (
            f"median of {times.timing_repeats} calls after {times.timing_warmup} that are not "
            "counted, batch 1, each stage and branch alone [10th and 90th percentile]"
        ),
        "seconds": ", ".join(f"{what} {s:g}" for what, s in facts["seconds"].items()),
    }


def _spread(timings: ModelTimings | None) -> dict[str, str]:
    """Medians with the 10th and 90th percentile, for the report."""
    if timings is None:
        return {"milliseconds": "not measured"}
    named = {f"{cut} {branch}": timing for (cut, branch), timing in timings.branches.items()}
    return {
        "stages, ms": ", ".join(map(str, timings.stages)),
        "branches, ms": ", ".join(f"{name} {timing}" for name, timing in named.items()),
    }


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
