import pytest
import torch

from offramp.branches import ConvBranch, SLViT
from offramp.branches.tap import STD_FLOOR, Standardise
from offramp.compute import count_params
from offramp.errors import DataError, ShapeError
from offramp.spec import FeatureShape

MAP = FeatureShape(5, 6, 4)


def test_until_statistics_are_set_nothing_changes() -> None:
    features = torch.randn(2, 5, 6, 4)
    torch.testing.assert_close(Standardise(5)(features), features, rtol=0, atol=0)


def test_each_channel_comes_out_with_mean_0_and_deviation_1() -> None:
    features = torch.randn(64, 5, 6, 4) * torch.rand(5, 1, 1).add(0.5) + torch.randn(5, 1, 1)
    standardise = Standardise(5)
    standardise.set_statistics(features.mean((0, 2, 3)), features.std((0, 2, 3)))
    out = standardise(features)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(5))


def test_a_channel_that_never_fires_is_not_blown_up() -> None:
    standardise = Standardise(2)
    standardise.set_statistics(torch.zeros(2), torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(standardise.std, torch.tensor([3.0, STD_FLOOR * 1.5]))


def test_an_all_zero_tap_stays_finite() -> None:
    standardise = Standardise(2)
    standardise.set_statistics(torch.zeros(2), torch.zeros(2))
    assert (standardise(torch.zeros(1, 2, 3, 3)) == 0).all()


def test_statistics_of_another_number_of_channels_are_refused() -> None:
    with pytest.raises(ShapeError, match="5 channels"):
        Standardise(5).set_statistics(torch.zeros(4), torch.ones(4))


@pytest.mark.parametrize(("mean", "std"), [(float("nan"), 1.0), (0.0, float("inf")), (0.0, -1.0)])
def test_statistics_that_make_no_sense_are_refused(mean: float, std: float) -> None:
    with pytest.raises(DataError, match="NaN"):
        Standardise(2).set_statistics(torch.full((2,), mean), torch.full((2,), std))


@pytest.mark.parametrize("spec", [SLViT(patch=2), ConvBranch()], ids=lambda spec: str(spec.kind))
def test_a_branch_standardises_its_tap_first_and_keeps_the_statistics_as_buffers(
    spec: SLViT | ConvBranch,
) -> None:
    plain = spec.build(MAP, 3).eval()
    branch = spec.model_copy(update={"standardise": True}).build(MAP, 3).eval()
    assert count_params(branch) == count_params(plain)
    branch.load_state_dict(plain.state_dict(), strict=False)
    assert isinstance(branch.standardise, Standardise)
    branch.standardise.set_statistics(torch.full((5,), 2.0), torch.full((5,), 4.0))
    features = torch.randn(2, 5, 6, 4)
    torch.testing.assert_close(branch(features), plain((features - 2) / 4))
    assert {"standardise.mean", "standardise.std"} <= branch.state_dict().keys()
