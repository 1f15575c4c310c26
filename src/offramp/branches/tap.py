"""What a branch reads: a feature map and side inputs, checked, and standardised if asked for."""

import torch
from einops import rearrange
from torch import Tensor, fx, nn

from offramp.arguments import check_kind
from offramp.errors import DataError, ShapeError
from offramp.spec import FeatureShape, TapShape, dims

fx.wrap("rearrange")

TapShapes = TapShape | tuple[TapShape, ...]
"""What a branch is built for: a tap's shape, or a tuple of the shapes of all its taps."""

STD_FLOOR = 0.01
"""Least deviation of a channel when standardising, as a share of the mean over channels."""


_AXES = {
    2: ", which is tokens or a map with one spatial axis, as for sound",
    4: ", a map with three spatial axes, as for video",
}


def map_and_sides(taps: TapShapes, branch: str) -> tuple[FeatureShape, tuple[TapShape, ...]]:
    """The first tap, which must be a map, and the others, which are side inputs.

    A side input is a vector (C,), or a map (C, H, W) of which a branch reads the mean of each
    channel.

    Args:
        taps: Shape of the only tap, or of each tap.
        branch: What errors call the kind of branch.

    Raises:
        ShapeError: The first tap has no height and width, or another tap is of some other form.
    """
    first, *others = shapes_of(taps)
    if not isinstance(first, FeatureShape):
        shape = ", ".join(["B", *map(str, first)])
        raise ShapeError(
            f"{branch} branch needs a 4-D map (B, C, H, W); this tap is ({shape})"
            f"{_AXES.get(len(first), '')}. Cut where the backbone still has a feature map; "
            "`offramp cuts` lists such places. Where a cut has several taps, name the map first."
        )
    for each in others:
        _check_side(each, branch)
    return _filled(first), tuple(others)


def shapes_of(taps: TapShapes) -> tuple[TapShape, ...]:
    """The shape of each tap, one or several.

    Raises:
        ArgumentError: It is neither a FeatureShape nor a tuple of sizes or shapes.
    """
    remedy = "Give a FeatureShape(channels, height, width), or a tuple with one for each tap."
    check_kind(taps, (FeatureShape, tuple, list), "features", remedy)
    if not isinstance(taps, FeatureShape):
        for each in taps:
            check_kind(each, (int, tuple, FeatureShape), "an entry of features", remedy)
        if not taps:
            raise ShapeError(f"features are empty. {remedy}")
    if isinstance(taps, FeatureShape) or isinstance(taps[0], int):
        return (taps,)
    return taps


def _check_side(shape: TapShape, branch: str) -> None:
    if isinstance(shape, FeatureShape):
        _filled(shape)
    elif len(shape) != 1:
        raise ShapeError(
            f"{branch} branch reads a map and side inputs, each a vector (B, C) or a map "
            f"(B, C, H, W); a further tap of this cut is {('B', *shape)}. Take a tap of one of "
            "these forms, such as the mean over its other axes."
        )


def _filled(features: FeatureShape) -> FeatureShape:
    if min(features.channels, features.height, features.width) < 1:
        raise ShapeError(f"a {features} map (CxHxW) is empty; every side must be at least 1.")
    return features


def check_outputs(num_outputs: int) -> None:
    """Refuse a branch that would answer nothing."""
    check_kind(num_outputs, int, "num_outputs", "Give the number of classes, or 1 for a value.")
    if num_outputs < 1:
        raise ShapeError(
            f"num_outputs={num_outputs}: a branch needs at least one output, the number of "
            "classes or 1 for a regression."
        )


def check_map(taps: Tensor, features: FeatureShape) -> None:
    """Refuse a tensor that is not (B, *features); FX tracing, which has no shapes, skips this.

    Raises:
        ShapeError: With the shape the branch was built for and the one it got.
    """
    if isinstance(taps, fx.Proxy):
        return
    expected = (features.channels, features.height, features.width)
    if taps.ndim != 4 or tuple(taps.shape[1:]) != expected:
        raise ShapeError(
            f"this branch was built for (B, {', '.join(map(str, expected))}) and got "
            f"{tuple(taps.shape)} (batch, channels, height, width). Give it the tap it was "
            "built for, or build a branch for this one."
        )


class Standardise(nn.Module):
    """Frozen shift and scale per channel: (B, C, H, W) or (B, C) to the same shape.

    The statistics are buffers, so no optimiser moves them; until they are set nothing changes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, *, spatial: bool = True) -> None:
        super().__init__()
        self.spatial = spatial
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take the mean and standard deviation of each channel over the training taps, (C,).

        A deviation below STD_FLOOR of the mean deviation is raised to it: a channel that hardly
        ever fires in training would otherwise shout in use.

        Raises:
            ShapeError: There is not one of each per channel.
            DataError: A value is not finite, or a deviation negative.
        """
        if mean.shape != self.mean.shape or std.shape != self.std.shape:
            raise ShapeError(
                f"standardising {self.mean.numel()} channels needs as many means and deviations; "
                f"got {tuple(mean.shape)} and {tuple(std.shape)}."
            )
        if not (mean.isfinite().all() and std.isfinite().all() and (std >= 0).all()):
            raise DataError(
                "the tap's statistics hold a NaN, an infinity or a negative deviation; "
                "check the taps they were taken from."
            )
        floor = (STD_FLOOR * std.float().mean()).clamp(min=1e-6)
        self.mean.copy_(mean)
        self.std.copy_(std.float().clamp(min=floor))

    def forward(self, features: Tensor) -> Tensor:
        """Standardise: (B, C, H, W) to the same shape, or (B, C)."""
        mean, std = self.mean, self.std
        if self.spatial:
            mean, std = rearrange(mean, "c -> c 1 1"), rearrange(std, "c -> c 1 1")
        return (features - mean).div_(std)  # in place: no second map is written to memory


class SideInput(nn.Module):
    """A side input as a vector: (B, C) as it is, or (B, C, H, W) by the mean of each channel.

    Attributes:
        channels: C.
    """

    def __init__(self, shape: TapShape, *, standardise: bool) -> None:
        super().__init__()
        self.channels = dims(shape)[0]
        self.is_map = isinstance(shape, FeatureShape)
        scale = Standardise(self.channels, spatial=self.is_map) if standardise else nn.Identity()
        self.standardise = scale

    def forward(self, side: Tensor) -> Tensor:
        """(B, C)."""
        scaled: Tensor = self.standardise(side)
        return scaled.mean(dim=(2, 3)) if self.is_map else scaled
