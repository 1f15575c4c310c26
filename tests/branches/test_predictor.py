import pytest
import torch
from torch import Tensor, fx, nn

from offramp.branches import ConvBranch, ShippedBranch, SLViT
from offramp.branches.predictor import AnswerAndError, parted, score_of
from offramp.compute import count_flops
from offramp.spec import FeatureShape
from offramp.task import surest

MAP = FeatureShape(7, 6, 4)
SPECS: list[ShippedBranch] = [
    SLViT(patch=2, dim=5, heads=3, hidden=13, error_predictor=True),
    ConvBranch(filters=3, hidden=13, error_predictor=True),
]


def taps(count: int = 9) -> Tensor:
    return torch.randn(count, 7, 6, 4, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.kind))
def test_a_predictor_is_one_more_column_and_costs_a_dense_output(spec: ShippedBranch) -> None:
    plain = spec.model_copy(update={"error_predictor": False})
    with_it, without = spec.build(MAP, 11).eval(), plain.build(MAP, 11).eval()
    assert with_it(taps()).shape == (9, 12)
    assert without(taps()).shape == (9, 11)
    more = count_flops(with_it, (taps(1),)) - count_flops(without, (taps(1),))
    assert more == 2 * 13
    assert count_flops(with_it, (taps(1),), "paper") > count_flops(without, (taps(1),), "paper")


def test_it_starts_as_the_maximum_softmax() -> None:
    branch = SPECS[0].build(MAP, 11).eval()
    outputs, prediction = parted(branch(taps()))
    torch.testing.assert_close(score_of(prediction, "classification"), outputs.softmax(1).amax(1))


def test_answers_too_sure_for_a_float_keep_their_order() -> None:
    layer = AnswerAndError(2, 2)
    layer.load_state_dict(layer.state_dict() | {"answer.weight": torch.eye(2)})
    sure = torch.tensor([[40.0, 0.0], [50.0, 0.0], [60.0, 0.0]])
    assert parted(layer(sure))[1].diff().gt(5).all()


def test_its_loss_moves_nothing_that_the_answer_is_made_of() -> None:
    branch = SPECS[1].build(MAP, 11)
    parted(branch(taps()))[1].square().sum().backward()  # type: ignore[no-untyped-call]
    grads = {name: weight.grad for name, weight in branch.named_parameters()}
    moved = {name for name, grad in grads.items() if grad is not None and grad.any()}
    assert moved == {"head.6.weight", "head.6.bias", "head.6.scale"}


def test_a_value_has_no_odds() -> None:
    branch = SPECS[0].build(MAP, 1).eval()
    assert branch(taps())[:, -1].tolist() == [0.0] * 9
    assert "head.6.scale" not in branch.state_dict()


def test_a_score_is_larger_when_the_answer_is_more_certain() -> None:
    assert score_of(torch.tensor([-2.0, 0.0, 3.0]), "classification").diff().gt(0).all()
    assert score_of(torch.tensor([0.5, 2.0]), "regression").tolist() == [-0.5, -2.0]
    assert (surest("classification"), surest("regression")) == (1.0, 0.0)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.kind))
def test_a_traced_branch_answers_the_same(spec: ShippedBranch) -> None:
    branch: nn.Module = spec.build(MAP, 11).eval()
    traced = fx.symbolic_trace(branch)
    assert torch.equal(traced(taps(4)), branch(taps(4)))
