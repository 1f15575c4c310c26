"""A second device that every machine has: tensors that hold values and claim to be on `meta`."""

from collections.abc import Iterator
from typing import Any, Self

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

COPIES = ("aten._to_copy", "aten.copy_", "aten.to.")


class Elsewhere(Tensor):
    """A tensor with values that says it is on `meta`; computing with a CPU tensor is an error."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Self:
        made: Self = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            dtype=held.dtype,
            device=torch.device("meta"),
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


class _SecondDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    counting_flops = 0  # then tensors on `meta` are what they claim to be

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        run = func if self.counting_flops else lambda *a, **k: _compute(func, a, k)
        return run(*args, **(kwargs or {}))


def _compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    values = tree_flatten((args, kwargs))[0]
    asked = [value for value in values if isinstance(value, torch.device)]
    given = [value for value in values if isinstance(value, Tensor)]
    there = {isinstance(value, Elsewhere) for value in given if value.dim()}
    if len(there) > 1 and not str(func).startswith(COPIES):
        raise RuntimeError(f"{func}: tensors on two devices")
    args, kwargs = tree_map_only(Elsewhere, lambda value: value.held, (args, kwargs))
    args, kwargs = tree_map_only(torch.device, lambda _: torch.device("cpu"), (args, kwargs))
    out = func(*args, **kwargs)
    stays = any(isinstance(value, Elsewhere) for value in given[:1])
    lands = asked[0].type == "meta" if asked else stays
    return tree_map_only(Tensor, Elsewhere, out) if lands else out


@pytest.fixture
def second_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a device that computes, where tensors of the CPU are refused as on a GPU."""
    mode = _SecondDevice()  # type: ignore[no-untyped-call]
    enter, leave = FakeTensorMode.__enter__, FakeTensorMode.__exit__

    def begin(fakes: Any) -> Any:
        mode.counting_flops += 1
        return enter(fakes)

    def end(fakes: Any, *error: Any) -> None:
        leave(fakes, *error)
        mode.counting_flops -= 1

    monkeypatch.setattr(FakeTensorMode, "__enter__", begin)
    monkeypatch.setattr(FakeTensorMode, "__exit__", end)
    with mode:
        yield "meta"
