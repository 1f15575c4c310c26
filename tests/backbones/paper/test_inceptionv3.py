import pytest
import torch
from torch import nn

from offramp.backbones.paper.inceptionv3 import UnscaledBatchNorm, keras_inceptionv3


def test_the_network_has_as_many_weights_to_train_as_keras_s() -> None:
    model = keras_inceptionv3()
    assert sum(weight.numel() for weight in model.parameters()) == 23_817_352


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_batch_norm_shifts_and_does_not_scale(device: str) -> None:
    norm = UnscaledBatchNorm(3).to(device)
    torch.nn.init.normal_(norm.bias)
    assert [name for name, _ in norm.named_parameters()] == ["bias"]
    assert "weight" not in norm.state_dict()
    plain = nn.BatchNorm2d(3, 1e-3).to(device)
    plain.load_state_dict(norm.state_dict(), strict=False)
    inputs = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0)).to(device)
    both = []
    for module in (norm, plain):
        given = inputs.clone().requires_grad_()
        (answer := module(given)).square().sum().backward()
        assert module.bias.grad is not None
        both.append((answer, module.bias.grad, given.grad))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other)
