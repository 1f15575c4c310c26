"""The convolutional early exit, the paper's baseline (section 3.1), and its pooling-only form."""

from typing import Literal, Self

import torch
from einops import rearrange
from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, fx, nn

from offramp.branches.absent import absent_sides, zeroed
from offramp.branches.head import HeadSettings, activation, he_normal_, mlp_head
from offramp.branches.tap import (
    SideInput,
    Standardise,
    TapShapes,
    check_map,
    check_outputs,
    map_and_sides,
)
from offramp.errors import ShapeError
from offramp.spec import FeatureShape, TapShape

fx.wrap("rearrange")


class ConvBranch(HeadSettings):
    """Settings of a convolutional branch; `layers=0, pool="global"` is the pooling baseline.

    Attributes:
        kernel: Side of the square kernels.
        dilation: Distance between the cells that a kernel reads.
        layers: Number of convolutions, each followed by the activation.
        filters: Output channels of every convolution.
        padding: Zero cells added on every side; one number, or one per layer.
        pool: Side and stride of the max-pooling window (cells left over at the border are dropped;
            1 means no pooling), or "global" for the mean over the whole map. The paper uses 2, and
            4 for crowd counting.
        norm: Batch norm after every convolution; the paper's sizes leave no room for it.
    """

    kind: Literal["conv"] = "conv"
    kernel: PositiveInt = 3
    dilation: PositiveInt = 1
    layers: NonNegativeInt = 1
    filters: PositiveInt = 16
    padding: NonNegativeInt | tuple[NonNegativeInt, ...] = 0
    pool: PositiveInt | Literal["global"] = 2
    norm: bool = False

    @model_validator(mode="after")
    def _one_padding_per_layer(self) -> Self:
        if isinstance(self.padding, tuple) and len(self.padding) != self.layers:
            raise ValueError(
                f"padding has {len(self.padding)} numbers for {self.layers} layers; "
                "give one per layer, or a single number for all."
            )
        return self

    @property
    def paddings(self) -> tuple[int, ...]:
        """The padding of each layer."""
        return (self.padding,) * self.layers if isinstance(self.padding, int) else self.padding

    def label(self) -> str:
        """A short name such as `conv-k3-f16-pad1` or `pool`; most defaults are left out."""
        pool = "pool" if self.pool == "global" else f"pool{self.pool}"
        if self.layers == 0:
            return self._label(pool, {})
        own = {
            f"-l{self.layers}": self.layers > 1,
            f"-dil{self.dilation}": self._differs("dilation"),
            f"-pad{'.'.join(map(str, self.paddings))}": any(self.paddings),
            f"-{pool}": self._differs("pool"),
            "-bn": self.norm,
        }
        return self._label(f"conv-k{self.kernel}-f{self.filters}", own)

    def build(self, features: TapShapes, num_outputs: int) -> "ConvBranchModule":
        """Make a branch with new weights for a map, and side inputs where the cut has more taps.

        Raises:
            ShapeError: The first tap is not a map, a kernel or the pooling window is larger than
                what it reads, or there is no convolution for side inputs to change.
        """
        check_outputs(num_outputs)
        tap, sides = map_and_sides(features, "a convolutional")
        if sides and self.layers == 0:
            raise ShapeError(
                f"{self.label()} has no convolution that its {len(sides)} side inputs could "
                "change. Give it layers=1 or more, or a cut with one tap."
            )
        return ConvBranchModule(self, tap, num_outputs, sides)


def _after_conv(spec: ConvBranch, features: FeatureShape, layer: int) -> FeatureShape:
    """Shape after one convolution."""
    reach = spec.dilation * (spec.kernel - 1) + 1
    padding = spec.paddings[layer]
    height, width = (side + 2 * padding - reach + 1 for side in (features.height, features.width))
    if min(height, width) < 1:
        lacking = padding + (2 - min(height, width)) // 2
        raise ShapeError(
            f"kernel={spec.kernel} with dilation={spec.dilation} spans {reach} cells, and layer "
            f"{layer + 1} gets a {features.height}x{features.width} map padded by {padding}. "
            f"Use padding={lacking} or more, a smaller kernel, or cut earlier."
        )
    return FeatureShape(spec.filters, height, width)


def _after_pool(spec: ConvBranch, features: FeatureShape) -> FeatureShape:
    """Shape after the pooling."""
    if spec.pool == "global":
        return FeatureShape(features.channels, 1, 1)
    if spec.pool > min(features.height, features.width):
        raise ShapeError(
            f"pool={spec.pool} is larger than the {features.height}x{features.width} map it "
            f"gets. Use pool={min(features.height, features.width)} or less, "
            'pool="global", more padding, or cut earlier.'
        )
    return FeatureShape(
        features.channels, features.height // spec.pool, features.width // spec.pool
    )


class Modulation(nn.Module):
    """Scales and shifts each channel of a map by side inputs (paper, section 3.3).

    With a column for each side input that may be absent, its weights are what is learned for that.

    Shape:
        map (B, C, H, W), side (B, D) -> (B, C, H, W).
    """

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Linear(side, channels)
        self.beta = nn.Linear(side, channels)

    def forward(self, features: Tensor, side: Tensor) -> Tensor:
        """Change a map."""
        gamma = rearrange(self.gamma(side), "b c -> b c 1 1")
        beta = rearrange(self.beta(side), "b c -> b c 1 1")
        changed: Tensor = gamma * features + beta
        return changed


class ConvBranchModule(nn.Module):
    """Convolutions, pooling, then the dense head.

    Side inputs, joined to one vector, scale and shift the output of the last convolution. One that
    is absent is zeros in that vector, and 1 in a column of its own.

    Shape:
        features (B, C, H, W), sides (B, C') or (B, C', H', W') -> outputs (B, num_outputs).
    """

    def __init__(
        self,
        spec: ConvBranch,
        features: FeatureShape,
        num_outputs: int,
        sides: tuple[TapShape, ...] = (),
    ) -> None:
        super().__init__()
        self.spec, self.features = spec, features
        self.standardise = Standardise(features.channels) if spec.standardise else nn.Identity()
        layers: list[nn.Module] = []
        shape = features
        for layer in range(spec.layers):
            after = _after_conv(spec, shape, layer)
            layers += _convolution(spec, shape.channels, layer)
            shape = after
        read = [SideInput(side, standardise=spec.standardise) for side in sides]
        self.sides = nn.ModuleList(read)
        self.absent = absent_sides(spec, len(sides))
        heard = sum(side.channels for side in read) + (len(sides) if self.absent else 0)
        self.modulate = Modulation(heard, shape.channels) if sides else nn.Identity()
        shape = _after_pool(spec, shape)
        pooling = [_pooling(spec)]
        if layers:
            # ReLU after max pooling gives the same bits, and works on fewer cells.
            last = isinstance(layers[-1], nn.ReLU) and isinstance(pooling[0], nn.MaxPool2d)
            pooling.insert(1 if last else 0, layers.pop())
        self.convolutions = nn.Sequential(*layers)
        self.pool = nn.Sequential(*pooling)
        self.head = mlp_head(shape.channels * shape.height * shape.width, num_outputs, spec)
        he_normal_(self)

    def forward(self, features: Tensor, *sides: Tensor) -> Tensor:
        """Answer: (B, C, H, W) to (B, num_outputs), one more with an error predictor."""
        check_map(features, self.features)
        x = self.convolutions(self.standardise(features))
        if self.sides:
            x = self.modulate(x, self._joined(sides))
        x = self.pool(x)
        outputs: Tensor = self.head(rearrange(x, "b c h w -> b (c h w)"))
        return outputs

    def _joined(self, sides: tuple[Tensor, ...]) -> Tensor:
        """All side inputs as one vector (B, D)."""
        read = [module(side) for module, side in zip(self.sides, sides, strict=True)]
        if self.absent is not None:
            absent = self.absent(sides)
            read = [zeroed(each, absent[:, i : i + 1]) for i, each in enumerate(read)]
            read.append(absent.to(read[0].dtype))
        return torch.cat(read, dim=1)


def _convolution(spec: ConvBranch, channels: int, layer: int) -> list[nn.Module]:
    convolution = nn.Conv2d(
        channels,
        spec.filters,
        spec.kernel,
        padding=spec.paddings[layer],
        dilation=spec.dilation,
    )
    norm = [nn.BatchNorm2d(spec.filters)] if spec.norm else []
    return [convolution, *norm, activation(spec.activation)]


def _pooling(spec: ConvBranch) -> nn.Module:
    if spec.pool == "global":
        return nn.AdaptiveAvgPool2d(1)
    return nn.MaxPool2d(spec.pool) if spec.pool > 1 else nn.Identity()
