from torch import nn

from offramp.compute import count_params


def test_frozen_and_shared_parameters_count_once_and_buffers_do_not() -> None:
    shared = nn.Linear(7, 5)
    model = nn.Sequential(shared, shared, nn.BatchNorm1d(5).requires_grad_(False))
    assert count_params(model) == 7 * 5 + 5 + 2 * 5
