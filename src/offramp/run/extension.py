"""Extending a run: a larger plan keeps the trained branches and trains the new ones."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from offramp.backbones.finetuned import weights_digest
from offramp.backbones.staged import StagedBackbone
from offramp.data import Splits
from offramp.errors import DataError, OfframpWarning, PlanError
from offramp.multiexit.trial import Failed, Trial
from offramp.run.data import RunData, data_keys
from offramp.run.names import EXTENSION, PLAN, WORK
from offramp.run.plan import Plan, load_plan
from offramp.run.results import RunResult
from offramp.run.stored import RUN_NAMES, load_result
from offramp.storage.atomic import write_bytes
from offramp.storage.folder import check_free, is_stored, read_folder
from offramp.storage.manifest import RUN
from offramp.training.learner import OUT_OF_MEMORY

NOTHING_TRAINED = "nothing was trained: the run of this plan is already finished"


def earlier_run(folder: Path, data: RunData[Plan], backbone_file: str | None) -> RunResult | None:
    """The finished run in a folder that a plan repeats or extends; None if there is none.

    Args:
        folder: The folder, which may be missing.
        data: The plan with its data.
        backbone_file: As in `train`.

    Raises:
        PlanError: The folder holds a run of a plan that this one does not contain.
        DataError: The data of the run, or the file of its backbone's weights, has changed since.
        BundleError: The folder has files of the names that a run writes, but holds no run.
    """
    plan = data.plan
    if is_stored(folder):
        read_folder(folder, RUN)  # a folder of another kind has another kind of plan
    if (folder / PLAN).exists():
        check_contained(folder, load_plan(folder / PLAN), plan)
    if not is_stored(folder):
        check_free(folder, RUN_NAMES)
        return None
    earlier = load_result(folder, backbone_file)
    check_contained(folder, earlier.plan, plan)
    _check_same_weights(earlier)
    check_same_data(folder, earlier.data_keys, data.splits)
    return earlier


def is_finished(earlier: RunResult, plan: Plan) -> bool:
    """Whether nothing is left to do: the run has this plan, and no branch can be resumed.

    A branch that ran out of memory can be resumed if its state is still there.
    """
    short = any(failed.reason.startswith(OUT_OF_MEMORY) for failed in earlier.model.failed)
    resumable = short and (earlier.folder / WORK).exists()
    return not earlier.plan.differences(plan) and not resumable


def _check_same_weights(earlier: RunResult) -> None:
    """Refuse a finished run whose weights file has changed; the run has its own copy."""
    facts = earlier.model.info.backbone or {}
    known, path = facts.get("weights_sha256"), Path(str(facts.get("weights")))
    if known is not None and path.exists() and weights_digest(str(path)) != known:
        raise DataError(
            f"{earlier.folder} holds a finished run, but the weights {path} of its plan have "
            "changed since. Choose another --out to train on the new weights, or restore them."
        )


def check_same_data(folder: Path, stored: Mapping[str, str], splits: Splits) -> None:
    """Refuse a finished run whose data has changed since.

    Raises:
        DataError: It names the splits.
    """
    changed = [name for name, key in data_keys(splits).items() if stored[name] != key]
    if changed:
        raise DataError(
            f"{folder} holds a finished run, but the {', '.join(changed)} data of its plan have "
            "changed since. Choose another --out to train on the new data, or delete that folder."
        )


def check_contained(folder: Path, stored: Plan, plan: Plan) -> None:
    """Refuse a plan that does not contain the plan of the run in this folder.

    Raises:
        PlanError: It names the keys.
    """
    different = stored.conflicts(plan)
    if different and not plan.conflicts(stored):
        raise PlanError(
            f"the run in {folder} has since been extended beyond this plan, in "
            f"{', '.join(different)}. Use the extended plan, {folder / PLAN}, or repeat what was "
            "added, such as --set train.seeds=[0,1]."
        )
    if different:
        raise PlanError(
            f"{folder} holds a run of another plan; the two plans differ in "
            f"{', '.join(different)}. Choose another --out, or delete that folder to start over. "
            f"To extend the run instead, take its plan, {folder / PLAN}, and only add seeds, "
            "learning rates, cuts or branches to it."
        )


def kept_trials(
    earlier: RunResult, plan: Plan, backbone: StagedBackbone
) -> tuple[Trial | Failed, ...]:
    """Trials of a finished run under their names in a larger plan.

    Branches that ran out of memory are left out, so that they are tried again.

    Raises:
        DataError: The plan's backbone has other weights than the run's.
    """
    if backbone.weights_digest() != earlier.model.backbone.weights_digest():
        raise DataError(
            f"the backbone of the plan is not the one that the run in {earlier.folder} was made "
            "with: weights or architecture have changed. Choose another --out."
        )
    rate = earlier.plan.train.rates[0] if len(plan.train.rates) > 1 else None
    found: list[Trial | Failed] = [
        *earlier.model.trials,
        *(each for each in earlier.model.failed if not each.reason.startswith(OUT_OF_MEMORY)),
    ]
    return tuple(replace(each, rate=rate) if each.rate is None else each for each in found)


@contextmanager
def extending(work: Path, plan: Plan) -> Iterator[None]:
    """Note the larger plan in the work folder; the run itself stays as it is until the end."""
    write_bytes(work / EXTENSION, plan.to_yaml().encode())
    yield
    (work / EXTENSION).unlink(missing_ok=True)


def work_done(result: RunResult, num_kept: int, earlier: RunResult | None) -> str:
    """Sentence on what a call trained and what it kept."""
    trained = len(result.model.trials) + len(result.model.failed) - num_kept
    text = f"{trained} {'branch' if trained == 1 else 'branches'} trained"
    return text if earlier is None else f"{text}, {num_kept} kept from the earlier run"


def warn_of_lost_policy(result: RunResult, earlier: RunResult) -> None:
    """Warn if the run's policy was removed because its exits have changed."""
    if earlier.model.digest() != result.model.digest():
        warnings.warn(
            f"the policy of {result.folder} was calibrated for exits that the run no longer has, "
            "and was removed. Run `offramp calibrate` again.",
            OfframpWarning,
            stacklevel=3,
        )
