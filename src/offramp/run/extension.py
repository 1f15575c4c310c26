"""Extending a run: a bigger plan keeps what is trained and trains what is new."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from offramp.backbones.staged import StagedBackbone
from offramp.errors import DataError, PlanError
from offramp.multiexit.trial import Failed, Trial
from offramp.run.plan import Plan
from offramp.run.results import RunResult
from offramp.storage.atomic import write_bytes
from offramp.training.learner import OUT_OF_MEMORY

EXTENSION = "extension.yaml"
"""In the work folder, the plan of an extension that is not finished; only for those who look."""
NOTHING_TRAINED = "nothing was trained: this run is finished, and its plan is the same"


def check_contained(folder: Path, stored: Plan, plan: Plan) -> None:
    """Refuse a plan that does not contain the plan of the run in this folder.

    Raises:
        PlanError: It names the keys.
    """
    if different := stored.conflicts(plan):
        raise PlanError(
            f"{folder} holds a run of another plan; they differ in {', '.join(different)}. Choose "
            "another --out, or delete that folder to start over. A plan that has all that the "
            "run has, and more seeds, learning rates, cuts or branches, would extend the run."
        )


def kept_trials(
    earlier: RunResult, plan: Plan, backbone: StagedBackbone
) -> tuple[Trial | Failed, ...]:
    """Trials of a finished run as a bigger plan names them.

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
    """Note in the work folder what is being done; the run itself stays as it is meanwhile."""
    write_bytes(work / EXTENSION, plan.to_yaml().encode())
    yield
    (work / EXTENSION).unlink(missing_ok=True)


def work_done(result: RunResult, num_kept: int, earlier: RunResult | None, had_policy: bool) -> str:
    """What a call trained and what it took from before, as a sentence."""
    model = result.model
    trained = len(model.trials) + len(model.failed) - num_kept
    text = f"{trained} {'branch' if trained == 1 else 'branches'} trained"
    if earlier is None:
        return text
    text += f", {num_kept} kept from the run as it was"
    if not had_policy or earlier.model.digest() == model.digest():
        return text
    return (
        f"{text}. The exits have changed, so the policy that was calibrated for the earlier ones "
        "was removed: run `offramp calibrate` again"
    )
