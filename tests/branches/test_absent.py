from typing import Any

import pytest
import torch
from torch import Tensor

from offramp.branches import BranchSpec, ConvBranch, SLViT
from offramp.branches.absent import AbsentSides
from offramp.branches.dropout import own_dropout
from offramp.branches.probe import probe_branch
from offramp.compute import count_params
from offramp.errors import PlanError, ShapeError
from offramp.spec import FeatureShape

MAP, VECTOR, SMALL = FeatureShape(7, 6, 4), (9,), FeatureShape(7, 3, 2)
SHAPES = (MAP, VECTOR, SMALL)
SLVIT = SLViT(patch=2, dim=5, heads=3, hidden=13, absent="token")
CONV = ConvBranch(filters=3, hidden=13, absent="token")
BOTH = pytest.mark.parametrize("spec", [SLVIT, CONV], ids=["slvit", "conv"])


def taps(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(batch, 7, 6, 4), torch.randn(batch, 9), torch.randn(batch, 7, 3, 2)


@BOTH
def test_each_sample_is_answered_by_what_it_has(spec: BranchSpec) -> None:
    branch = spec.build(SHAPES, 4).eval()
    features, vector, small = taps(4)
    vector[1], small[2], vector[3], small[3] = (torch.nan,) * 4
    answers = branch(features, vector, small)
    assert answers.isfinite().all()
    for row in range(4):
        one = branch(*(tap[row : row + 1] for tap in (features, vector, small)))
        torch.testing.assert_close(one[0], answers[row])
    vector[0], small[0] = torch.nan, torch.nan
    assert not torch.equal(branch(features, vector, small)[0], answers[0])


@BOTH
def test_what_stands_for_an_absent_input_is_learned(spec: BranchSpec) -> None:
    branch = spec.build(SHAPES, 4)
    features, vector, small = taps(3)
    vector[:2] = torch.nan
    branch(features, vector, small).square().sum().backward()
    grads = {name: weight.grad for name, weight in branch.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    if isinstance(spec, SLViT):
        token = grads["token"]
        assert token is not None
        assert token[0].abs().sum() > 0
        assert token[1].abs().sum() == 0  # nothing was absent there
    else:
        gamma = grads["modulate.gamma.weight"]
        assert gamma is not None
        assert gamma[:, -2].abs().sum() > 0
        assert gamma[:, -1].abs().sum() == 0


@BOTH
def test_a_value_that_is_not_a_number_alone_marks_nothing(spec: BranchSpec) -> None:
    branch = spec.build(SHAPES, 4).eval()
    features, vector, small = taps(1)
    vector[0, 3] = torch.nan
    assert branch(features, vector, small).isnan().any()


@BOTH
def test_only_a_branch_with_a_token_has_weights_for_it(spec: Any) -> None:
    plain = spec.model_copy(update={"absent": "refuse"})
    more = count_params(spec.build(SHAPES, 4)) - count_params(plain.build(SHAPES, 4))
    assert more == (2 * 5 if isinstance(spec, SLViT) else 2 * 2 * 3)
    assert (spec.label(), plain.label()) == (f"{plain.label()}-token", spec.label()[:-6])


def test_a_share_of_the_samples_is_dropped_in_training_and_none_in_use() -> None:
    drop = AbsentSides(0.3)
    own_dropout(drop, torch.Generator().manual_seed(1))
    sides = (torch.randn(2000, 9), torch.randn(2000, 7, 3, 2))
    absent = drop.train()(sides)
    torch.testing.assert_close(absent.float().mean().item(), 0.3, atol=0.04, rtol=0)
    assert torch.equal(absent[:, 0], absent[:, 1])  # all side inputs of a sample together
    assert not drop.eval()(sides).any()


@BOTH
def test_a_branch_that_drops_side_inputs_draws_from_its_own_stream_only(spec: Any) -> None:
    dropping = spec.model_copy(update={"drop_side": 0.5, "dropout": 0.0})
    assert dropping.label().endswith("-token-sidedrop0.5")
    probe_branch(dropping, SHAPES, 4)  # refuses what draws from elsewhere
    branch, given = dropping.build(SHAPES, 4), taps(8)
    generator = torch.Generator()
    own_dropout(branch, generator)
    answers = []
    for seed in (1, 1, 2):
        generator.manual_seed(seed)
        answers.append(branch(*given))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_side_inputs_are_dropped_only_where_a_token_replaces_them() -> None:
    with pytest.raises(PlanError, match="Set absent='token' too, or leave out drop_side"):
        ConvBranch(drop_side=0.2)


@BOTH
def test_a_token_at_a_cut_without_side_inputs_is_refused(spec: BranchSpec) -> None:
    with pytest.raises(ShapeError, match="its only tap is the map"):
        spec.build(MAP, 4)


@BOTH
def test_an_exported_branch_keeps_its_batch_free(spec: BranchSpec) -> None:
    branch, free = spec.build(SHAPES, 4).eval(), {0: torch.export.Dim("batch")}
    exported = torch.export.export(branch, taps(2), dynamic_shapes=(free, (free, free))).module()
    more = taps(5)
    more[1][2] = torch.nan
    torch.testing.assert_close(exported(*more), branch(*more))
