import torch
from torch import nn

from offramp.backbones.paper.resnet152 import KerasResNet152


def test_the_paper_s_resnet152_has_keras_s_size_and_strides() -> None:
    with torch.device("meta"):
        model = KerasResNet152()
    assert sum(weight.numel() for weight in model.parameters()) == 60_268_520
    assert model.get_submodule("layer2.0.conv1").stride == (2, 2)
    assert model.get_submodule("layer2.0.conv2").stride == (1, 1)


def test_the_paper_s_top_is_two_dense_layers_with_dropout_between() -> None:
    with torch.device("meta"):
        top = KerasResNet152(10).fc
    assert isinstance(top, nn.Sequential)
    assert [type(layer) for layer in top] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [weight.shape for weight in top.parameters()] == [(256, 2048), (256,), (10, 256), (10,)]
