"""RunResult: what a finished run found, and the files of a run folder that hold it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from offramp.data import Samples, Splits
from offramp.errors import BundleError, PlanError
from offramp.evaluation import (
    Comparison,
    FailedTrial,
    Rival,
    Tradeoff,
    TrialOutputs,
    compare,
    tradeoff,
)
from offramp.evaluation.quality import Quality, quality
from offramp.multiexit.model import MultiExit
from offramp.multiexit.saved import WEIGHTS, describe_model, write_weights
from offramp.multiexit.trial import Trial
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, find_score
from offramp.report import Curve, Picture, ReportInputs, write_report
from offramp.run.answer import answer_one_by_one, shows_pictures
from offramp.run.measure import SPLITS, Measured, ModelTimings
from offramp.run.plan import Plan, load_plan
from offramp.run.prepare import build_backbone
from offramp.storage.archive import read_arrays, write_arrays
from offramp.storage.atomic import write_bytes
from offramp.storage.folder import Contents, changing, read_folder
from offramp.storage.manifest import RUN

PLAN = "plan.yaml"
METRICS = "metrics.json"
ENVIRONMENT = "environment.json"
POLICY = "policy.json"
REPORT_FILES = ("report.html", "tradeoff.png", "tradeoff.svg")
REPORT_PICTURES = 12
PICTURES_SEED = 0
_TRIALS, _RIVALS = "outputs/trials.npz", "outputs/rivals.npz"
_RIVALS_SCHEMA = "offramp rivals 1"


@dataclass(frozen=True, eq=False)
class RunResult:
    """A finished run.

    Attributes:
        folder: Where it lies.
        comparison: Every branch over all seeds, and the static rivals, on the test images.
        exits: The chosen branches, on the test images.
        quality: Of the chosen branches on the test images, and what they do at the plan's fixed
            threshold, which carries no promise.
        data_keys: What identifies the data of each split.
        notes: What was left out, and why.
    """

    folder: Path
    plan: Plan
    model: MultiExit
    comparison: Comparison
    exits: Tradeoff
    quality: Quality
    data_keys: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @classmethod
    def judged(
        cls,
        folder: Path,
        plan: Plan,
        model: MultiExit,
        seen: Measured,
        data_keys: Mapping[str, str],
    ) -> "RunResult":
        """Compare and place what was seen."""
        wanted = plan.evaluate
        comparison = compare(
            seen.trials,
            seen.rivals,
            failed=[
                FailedTrial(each.cut, each.spec.label(), each.spec.kind, each.seed, each.reason)
                for each in model.failed
            ],
            draws=wanted.bootstrap_draws,
            seed=wanted.bootstrap_seed,
        )
        test = seen.outputs["test"]
        judged = _quality(seen, wanted.threshold, model.info.class_names)
        exits = tradeoff(test)
        return cls(folder, plan, model, comparison, exits, judged, data_keys, seen.notes)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "measure": self.comparison.measure.name,
            "comparison": self.comparison.as_json(),
            "exits": self.exits.as_json(),
            "fixed_threshold": next((each.as_json() for each in self.quality.policies), None),
        }

    def __str__(self) -> str:
        rules = [f"{each.name}: {each.rule}" for each in self.quality.policies]
        fixed = ["\n".join([str(self.quality.policy_table()), *rules])] if rules else []
        report = f"report: {self.folder / REPORT_FILES[0]}"
        return "\n\n".join([str(self.comparison), *fixed, *self.notes, report])


def write_result(
    result: RunResult, seen: Measured, splits: Splits, facts: Mapping[str, Any]
) -> None:
    """Replace the run folder's files as a whole; a calibrated policy stays.

    Args:
        result: What was found.
        seen: What it was found from.
        splits: The data.
        facts: Of `environment.json`: machine, device, seconds.
    """
    parts = result.model.parts
    content = {
        **describe_model(parts),
        "plan": result.plan.model_dump(mode="json"),
        "data": data_keys(splits),
        "seconds": facts["seconds"],
    }
    with changing(result.folder, RUN, content, keep=[POLICY]) as staged:
        write_weights(parts, staged)
        for name, answers in seen.outputs.items():
            answers.save(staged / outputs_of(name))
        seen.trials.save(staged / _TRIALS)
        rivals = {rival.name: np.asarray(rival.values) for rival in seen.rivals}
        write_arrays(staged / _RIVALS, _RIVALS_SCHEMA, rivals)
        write_bytes(staged / METRICS, _json(_metrics(result, seen, splits)))
        write_bytes(staged / ENVIRONMENT, _json(facts))
        write_report(staged, _report_inputs(result, seen, splits, facts))


def _metrics(result: RunResult, seen: Measured, splits: Splits) -> dict[str, Any]:
    return {
        **result.as_json(),
        "rivals": [rival.as_json() for rival in seen.rivals],
        "notes": list(seen.notes),
        "samples": {name: len(images) for name, images in splits.named().items()},
        "timings_ms": None if seen.timings is None else seen.timings.as_json(),
        "data": data_keys(splits),
        "skipped_images": list(splits.skipped),
    }


def load_result(folder: str | Path, backbone_file: str | None = None) -> RunResult:
    """Read a finished run; nothing is computed but the intervals of the table.

    Raises:
        BundleError: The run is unfinished, or a file of it was changed.
    """
    folder = Path(folder)
    outputs = {split: outputs_of(split) for split in SPLITS}
    names = (WEIGHTS, *outputs.values(), _TRIALS, _RIVALS, METRICS)
    stored = read_folder(folder, RUN, names)
    plan, model = _plan_and_model(stored, backbone_file)
    seen = Measured(
        {split: ExitOutputs.load(stored.files[name]) for split, name in outputs.items()},
        TrialOutputs.load(stored.files[_TRIALS]),
        _stored_rivals(stored),
        notes=tuple(json.loads(stored.files[METRICS])["notes"]),
    )
    return RunResult.judged(folder, plan, model, seen, stored.manifest["data"])


@dataclass(frozen=True, eq=False)
class StoredRun:
    """What is needed to evaluate a finished run again.

    Attributes:
        data_keys: Of the data that the run was made with, by split.
        training_seconds: What training took.
    """

    plan: Plan
    model: MultiExit
    data_keys: Mapping[str, str]
    training_seconds: float


def load_run(folder: Path, backbone_file: str | None = None) -> StoredRun:
    """Plan, model and facts of a finished run.

    Raises:
        BundleError: The run is unfinished, or one of these was changed.
    """
    stored = read_folder(folder, RUN, [WEIGHTS])
    plan, model = _plan_and_model(stored, backbone_file)
    return StoredRun(plan, model, stored.manifest["data"], stored.manifest["seconds"]["training"])


def _plan_and_model(stored: Contents, backbone_file: str | None) -> tuple[Plan, MultiExit]:
    if "plan" not in stored.manifest:
        raise BundleError(
            f"{stored.folder} holds a model that `MultiExit.save` wrote, not a run of a plan. Read "
            "it with MultiExit.load, or name a folder that `offramp train` wrote."
        )
    plan = Plan.model_validate(stored.manifest["plan"])
    _check_plan_file(stored.folder / PLAN, plan)
    by_flag = build_backbone(plan, backbone_file) if backbone_file is not None else None
    return plan, MultiExit.read(stored, backbone=by_flag)


def _check_plan_file(path: Path, plan: Plan) -> None:
    """Refuse a run whose plan file says something else now; comments may change."""
    try:
        different = load_plan(path).differences(plan)
    except PlanError as error:
        different = [str(error)]
    if different:
        raise BundleError(
            f"{path} was changed after the run was made; it differs in {', '.join(different)}. "
            f"{RUN.remedy(PLAN)}"
        )


def outputs_of(split: str) -> str:
    """File of the outputs of a split, in a run folder."""
    return f"outputs/{split}.npz"


def data_keys(splits: Splits) -> dict[str, str]:
    """What identifies the samples of each split, their labels and preprocessing."""
    return {name: images.content_key for name, images in splits.named().items()}


def _stored_rivals(stored: Contents) -> list[Rival]:
    known = [Rival(**facts) for facts in json.loads(stored.files[METRICS])["rivals"]]
    values = read_arrays(stored.files[_RIVALS], _RIVALS_SCHEMA, [rival.name for rival in known])
    return [replace(r, values=values[r.name].astype(np.float64)) for r in known]


def _report_inputs(
    result: RunResult, seen: Measured, splits: Splits, facts: Mapping[str, Any]
) -> ReportInputs:
    plan, model = result.plan, result.model
    return ReportInputs(
        title=f"Early exits on {plan.backbone.name}",
        comparison=result.comparison,
        exits=result.exits,
        quality=result.quality,
        curves=[_curve(trial) for trial in model.trials],
        pictures=_pictures(model, splits.test, plan.evaluate.threshold),
        facts=_readable(facts, plan, splits) | _spread(seen.timings) | _left_out(seen.notes),
        plan=plan.to_yaml(),
    )


def _pictures(model: MultiExit, test: Samples, threshold: float) -> list[Picture]:
    """A few test pictures answered one by one; none where the samples are not pictures."""
    if not shows_pictures(model, test):
        return []
    some = test.sample(REPORT_PICTURES, PICTURES_SEED)
    return [
        Picture(a.picture, a.answer, a.truth, a.exit, a.confidence, a.saved)
        for a in answer_one_by_one(model, some, range(len(some)), threshold)
    ]


def _quality(seen: Measured, threshold: float, class_names: Sequence[str]) -> Quality:
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


def _left_out(notes: Sequence[str]) -> dict[str, str]:
    return {"not measured": " ".join(notes)} if notes else {}


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
