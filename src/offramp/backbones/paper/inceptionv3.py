"""InceptionV3 as Keras has it: torchvision's graph, but for its batch norms and mean pooling."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.inception import (
    BasicConv2d,
    Inception3,
    InceptionA,
    InceptionAux,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
)

from offramp.backbones.top import dense_top

_EPSILON = 1e-3
NUM_FEATURES = 2048


class UnscaledBatchNorm(nn.BatchNorm2d):
    """Batch norm that shifts and does not scale (Keras: `scale=False`)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, _EPSILON)
        # On CUDA torch cannot differentiate a batch norm that has a shift and no scale at all.
        del self.weight
        self.register_buffer("weight", torch.ones(channels), persistent=False)


def keras_inceptionv3(num_outputs: int | None = None) -> nn.Module:
    """Images (B, 3, H, W) to logits (B, num_outputs), with torchvision's module names.

    Batch norms have no scale, mean pooling leaves the border out of its count, and there is neither
    an auxiliary head nor dropout before the last layer. Without `num_outputs` it ends in ImageNet's
    1000 classes; with it, in the paper's top.
    """
    blocks = [BasicConv2d, _A, InceptionB, _C, InceptionD, _E, InceptionAux]
    model: nn.Module = Inception3(aux_logits=False, init_weights=False, inception_blocks=blocks)
    for module in model.modules():
        if isinstance(module, BasicConv2d):
            module.bn = UnscaledBatchNorm(module.bn.num_features)
    model.dropout = nn.Identity()
    if num_outputs is not None:
        model.fc = dense_top(NUM_FEATURES, num_outputs)
    return model


class _A(InceptionA):  # type: ignore[misc]  # untyped there
    def _forward(self, x: Tensor) -> list[Tensor]:
        wide = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch1x1(x), wide, double, self.branch_pool(_mean(x))]


class _C(InceptionC):  # type: ignore[misc]  # untyped there
    def _forward(self, x: Tensor) -> list[Tensor]:
        long = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return [self.branch1x1(x), long, double, self.branch_pool(_mean(x))]


class _E(InceptionE):  # type: ignore[misc]  # untyped there
    def _forward(self, x: Tensor) -> list[Tensor]:
        one = self.branch3x3_1(x)
        two = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return [
            self.branch1x1(x),
            *(self.branch3x3_2a(one), self.branch3x3_2b(one)),
            *(self.branch3x3dbl_3a(two), self.branch3x3dbl_3b(two)),
            self.branch_pool(_mean(x)),
        ]


def _mean(x: Tensor) -> Tensor:
    """Mean of 3x3 cells around each, of those inside the map."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
