"""Rehearsal: run a copy of a module on tensors without values, for shapes and operators."""

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from offramp.compute.switches import torch_switches

T = TypeVar("T")


def rehearse(
    module: nn.Module, inputs: tuple[Any, ...], run: Callable[[nn.Module, tuple[Any, ...]], T]
) -> T:
    """Return `run(twin, inputs)` for a copy of `module` in evaluation mode.

    The copy and the inputs have no values, unless the module needs some (`.item()`, int8 weights):
    then both are real, and the inputs are zeros. Inputs may be nested and on any device. Attention
    runs as its single operators.
    """
    # The fast path of attention would hide what it multiplies.
    with torch_switches(mha_fastpath=False), _without_a_log():
        try:
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                return _run(_without_values(module, mode), inputs, run)
        except Exception:
            if any(weight.is_meta for weight in module.parameters()):
                raise
            return _run(copy.deepcopy(module), inputs, run)


@contextmanager
def _without_a_log() -> Iterator[None]:
    """Keep torch from logging the traceback of every operator that fails on missing values."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _run(
    twin: nn.Module, inputs: tuple[Any, ...], run: Callable[[nn.Module, tuple[Any, ...]], T]
) -> T:
    device = next((weight.device for weight in twin.parameters()), None)
    with torch.inference_mode():  # here whole operators are seen, bias and all
        return run(twin.eval(), tree_map(lambda value: _zero_like(value, device), inputs))


class _CopiesWithoutValues(TorchFunctionMode):
    """Also copies tensors that are results of a calculation, which torch refuses to copy.

    Inside a FakeTensorMode the copies have no values.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            return memo.setdefault(id(tensor), _zero_like(tensor, None))
        return func(*args, **(kwargs or {}))


def _without_values(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    memo = {id(weight): mode.from_tensor(weight) for weight in module.parameters()}
    with _CopiesWithoutValues():
        return copy.deepcopy(module, memo)


def _zero_like(value: Any, device: torch.device | None) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(
        value.shape, value.stride(), dtype=value.dtype, device=device or value.device
    ).zero_()
