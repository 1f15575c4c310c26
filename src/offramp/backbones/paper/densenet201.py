"""DenseNet201 as Keras has it: torchvision's graph with another epsilon."""

import torchvision
from torch import nn

from offramp.backbones.top import dense_top

_EPSILON = 1.001e-5
NUM_FEATURES = 1920


def keras_densenet201(num_outputs: int | None = None, *, pretrained: bool = False) -> nn.Module:
    """Images (B, 3, H, W) to logits (B, num_outputs), with torchvision's module names.

    Without `num_outputs` it ends in ImageNet's 1000 classes; with it, in the paper's top.

    Args:
        num_outputs: Of the paper's top.
        pretrained: Download torchvision's weights. They were trained with an epsilon of 1e-5,
            which differs from Keras's by 1e-8.
    """
    model: nn.Module = torchvision.models.densenet201(weights="DEFAULT" if pretrained else None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = _EPSILON
    if num_outputs is not None:
        model.classifier = dense_top(NUM_FEATURES, num_outputs)
    return model
