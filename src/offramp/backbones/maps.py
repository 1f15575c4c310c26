"""Which tensors are maps (channels, height, width), judged by the layers around them.

If a model takes pictures of only one size, sizes do not tell. Then a tensor is a map if a layer on
maps reads or gives it, or if operations that keep the order of axes connect it with a map.
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
    """Observes every operation that runs in its block."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[Tensor] = []  # alive, so that ids stay theirs
        self._alike: dict[int, int] = {}
        self._maps: list[int] = []

    def is_map(self, tensor: Tensor) -> bool:
        """Whether a tensor that was seen is a map."""
        return self._first(id(tensor)) in {self._first(each) for each in self._maps}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and note which tensors have the same axes."""
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
        """Representative of all tensors with the same order of axes."""
        while (above := self._alike.get(key, key)) != key:
            key = above
        return key


def _of_four_axes(value: Any) -> list[Tensor]:
    return [tensor for tensor in flat_tensors(value) if tensor.ndim == _AXES]


def _has(name: str, parts: Sequence[str]) -> bool:
    return any(part in name for part in parts)
