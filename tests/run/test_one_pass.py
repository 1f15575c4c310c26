from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.backbones.staged import cut
from offramp.branches import ConvBranch, SLViT
from offramp.data import Splits, as_samples
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Failed, Trial
from offramp.run.measure import RunContext, collect_trials, measure_splits
from offramp.run.plan import EvaluatePlan, Plan
from offramp.run.results import RunResult

CLASSES = 3
COUNTS = {"train": 9, "validation": 5, "calibration": 6, "test": 7}


class TwoInputs(nn.Module):
    """Adds what one convolution sees to what another does."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(2, 5, 3, padding=1)
        self.right = nn.Conv2d(1, 5, 3, padding=1)
        self.top = nn.Linear(5, CLASSES)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        top: Tensor = self.top((self.left(left) + self.right(right)).relu().mean((2, 3)))
        return top


@pytest.fixture
def model() -> MultiExit:
    torch.manual_seed(2)
    backbone = cut(TwoInputs(), ["left"], (torch.zeros(1, 2, 8, 6), torch.zeros(1, 1, 8, 6)))
    spec = ConvBranch(filters=2)
    built = [
        Trial("left", spec, seed, spec.build(backbone.features("left"), CLASSES), (), 1, 1.0, 0.5)
        for seed in range(3)
    ]
    return MultiExit(backbone, {"left": built[2]}, built[:2])  # the chosen one is not a trial


def arrays(count: int) -> tuple[tuple[NDArray[np.float32], ...], NDArray[np.int64]]:
    rng = np.random.default_rng(count)
    left, right = (rng.normal(size=(count, c, 8, 6)).astype(np.float32) for c in (2, 1))
    return (left, right), rng.integers(0, CLASSES, count)


@pytest.fixture
def splits() -> Splits:
    parts = {name: as_samples(arrays(count)) for name, count in COUNTS.items()}
    return Splits.of(parts, target_names=tuple("abc"))


def test_each_split_runs_once_and_those_after_training_again_without_an_input(
    model: MultiExit, splits: Splits
) -> None:
    seen: list[int] = []
    model.backbone.stages[0].register_forward_hook(
        lambda _, live, out: seen.append(len(live[0][0]))
    )
    found = measure_splits(model, splits, EvaluatePlan(timing_repeats=0), RunContext())
    passes = [size for size in seen if size > 1]  # FLOPs are counted at batch 1
    again = ("calibration", "test")
    assert passes == [COUNTS[name] for name in ("validation", *again, *again)]
    assert list(found.quiet) == [(split, "right") for split in again]
    assert {rows.names for rows in found.quiet.values()} == {("left",)}


def test_one_pass_gives_what_two_did(model: MultiExit, splits: Splits) -> None:
    found = measure_splits(model, splits, EvaluatePlan(timing_repeats=0), RunContext())
    alone = model.collect(splits.test, split="test")
    np.testing.assert_array_equal(found.outputs["test"].outputs, alone.outputs)
    assert found.outputs["test"].source == alone.source
    np.testing.assert_array_equal(found.trials.outputs, collect_trials(model, splits.test).outputs)


def test_a_failed_trial_is_a_row_of_the_table_and_of_the_json(
    model: MultiExit, splits: Splits, tmp_path: Path
) -> None:
    failed = [Failed("left", SLViT(patch=2), 4, "diverged in epoch 1")]
    lost = MultiExit(model.backbone, model.chosen, model.trials, failed=failed)
    plan = Plan.model_validate(
        {
            "backbone": {"name": "python"},
            "data": {"kind": "fashion_mnist"},
            "branches": {"left": [{"kind": "conv"}, {"kind": "slvit", "patch": 2}]},
            "evaluate": {"timing_repeats": 0, "bootstrap_draws": 20},
        }
    )
    measured = measure_splits(lost, splits, plan.evaluate, RunContext())
    result = RunResult.judged(tmp_path, plan, lost, measured, {})
    assert "failed: diverged in epoch 1 (seed 4)" in str(result)
    rows = result.as_json()["comparison"]["rows"]
    assert [row["failed"] for row in rows if row["branch"] == failed[0].spec.label()] == [
        [{"seed": 4, "reason": "diverged in epoch 1"}]
    ]


def test_rivals_are_skipped_with_a_reason_where_samples_are_not_single_pictures(
    model: MultiExit, splits: Splits
) -> None:
    wanted = EvaluatePlan(timing_repeats=0, rival_sizes=(4,))
    found = measure_splits(model, splits, wanted, RunContext())
    assert found.rivals == []
    assert found.notes == (
        "Static rivals were skipped: they are the backbone on smaller pictures, and a sample here "
        "has 2 inputs.",
    )
    assert measure_splits(model, splits, EvaluatePlan(timing_repeats=0), RunContext()).notes == ()
