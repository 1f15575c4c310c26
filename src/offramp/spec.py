"""What a user can choose: frozen, closed settings, the same in Python, YAML and on disk."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

FINAL = "final"
"""Name of the last exit, the backbone's own; no cut has it."""


class Spec(BaseModel):
    """A frozen set of settings that refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


@dataclass(frozen=True)
class FeatureShape:
    """Shape of one feature map, without the batch axis, in cells."""

    channels: int
    height: int
    width: int

    @property
    def patches(self) -> tuple[int, ...]:
        """Sides of square patches that divide the map into at least 2x2 patches, ascending."""
        return tuple(
            side
            for side in range(1, min(self.height, self.width) // 2 + 1)
            if self.height % side == 0 and self.width % side == 0
        )

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"


TapShape = FeatureShape | tuple[int, ...]
"""Shape of a tap without the batch axis: a FeatureShape where the tap is 4-D."""


def dims(shape: TapShape) -> tuple[int, ...]:
    """The axes of a tap's shape, without the batch axis."""
    if isinstance(shape, FeatureShape):
        return (shape.channels, shape.height, shape.width)
    return shape
