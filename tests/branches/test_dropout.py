import torch
from torch import nn

from offramp.branches.dropout import own_dropout, plain_dropout


def branch() -> nn.Module:
    return nn.Sequential(nn.Identity(), nn.Sequential(nn.Dropout(0.3), nn.Flatten()))


def test_a_share_is_dropped_and_the_mean_kept_from_its_own_generator_alone() -> None:
    module, generator = branch(), torch.Generator().manual_seed(5)
    own_dropout(module, generator)
    before = torch.get_rng_state()
    once = module(torch.ones(7, 11_000))
    assert torch.equal(torch.get_rng_state(), before)
    assert abs(float((once == 0).double().mean()) - 0.3) < 0.01
    torch.testing.assert_close(once[once > 0], torch.full_like(once[once > 0], 1 / 0.7))
    assert not torch.equal(module(torch.ones(7, 11_000)), once)
    generator.manual_seed(5)
    assert torch.equal(module(torch.ones(7, 11_000)), once)


def test_nothing_is_dropped_in_evaluation() -> None:
    module = branch()
    own_dropout(module, torch.Generator())
    inputs = torch.randn(5, 7)
    assert torch.equal(module.eval()(inputs), inputs)


def test_it_can_be_undone() -> None:
    module = branch()
    own_dropout(module, torch.Generator())
    plain_dropout(module)
    assert str(module) == str(branch())
