"""Which tensors are maps, channels before height and width, by the layers that read and give them.

Sizes show nothing where a model takes pictures of one size only. There a map is what a layer on
maps reads or gives, and what is made from a map, or into one, by operations that keep its axes in
their order.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from offramp.backbones.values import flat_tensors

_LAYERS = ("conv", "pool2d", "_norm", "pixel_", "upsample", "interpolate")
_NOT_ON_CHANNELS = ("layer_norm", "rms_norm")
_REORDER = ("permute", "transpose", "swap", "move", "einsum", "rot90", "adjoint", "__get__")
_RESIZE = frozenset({"cat", "concat", "concatenate", "chunk", "split", "narrow", "pad", "mean"})
_AXES = 4


class MapWatch(TorchFunctionMode):
    """Follows every operation that runs inside."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[Tensor] = []  # alive, so that ids stay theirs
        self._alike: dict[int, int] = {}
        self._maps: list[int] = []

    def is_map(self, tensor: Tensor) -> bool:
        """Whether a tensor that was seen is a map."""
        return self._first(id(tensor)) in {self._first(each) for each in self._maps}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and note what its tensors have in common."""
        made = func(*args, **(kwargs or {}))
        self._note(
            getattr(func, "__name__", ""), _of_four_axes((args, kwargs)), _of_four_axes(made)
        )
        return made

    def _note(self, name: str, read: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        if not read or not made:
            return
        self._seen += (*read, *made)
        if _has(name, _LAYERS) and not _has(name, _NOT_ON_CHANNELS):
            self._maps += (id(read[0]), *map(id, made))
        elif not _has(name, _REORDER):
            for one in read:
                for other in made:
                    if one.shape == other.shape or name in _RESIZE:
                        self._alike[self._first(id(other))] = self._first(id(one))

    def _first(self, key: int) -> int:
        """What stands for all tensors whose axes are in the same order."""
        while (above := self._alike.get(key, key)) != key:
            key = above
        return key


def _of_four_axes(value: Any) -> list[Tensor]:
    return [tensor for tensor in flat_tensors(value) if tensor.ndim == _AXES]


def _has(name: str, parts: Sequence[str]) -> bool:
    return any(part in name for part in parts)
