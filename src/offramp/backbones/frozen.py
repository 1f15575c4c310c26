"""A frozen copy of a model: separate modules and buffers, shared parameter storage."""

import threading
from copy import deepcopy
from types import ModuleType
from typing import Any, Self

from torch import jit, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from offramp.backbones.rebinding import rebind
from offramp.backbones.values import flat_tensors
from offramp.errors import CutError

_SHARED = (type(threading.Lock()), type(threading.RLock()), ModuleType)
"""Types that cannot be copied and hold nothing of the model."""


class Shared:
    """Stands for such a value in a copy of the model, so that copies of the copy share it too."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __getattr__(self, name: str) -> Any:
        return getattr(self.held, name)

    def __enter__(self) -> Any:
        return self.held.__enter__()

    def __exit__(self, *error: object) -> Any:
        return self.held.__exit__(*error)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def frozen_copy(model: nn.Module) -> nn.Module:
    """Copy the modules of `model` for evaluation; parameters share storage, buffers do not.

    The copy's Parameters are new objects without gradient, so the user's `.train()`,
    `.requires_grad_()` and `.grad` never reach it, nor the reverse. A later change of the user's
    weights in place does: no weight is held twice. Hooks and replaced forwards are taken along,
    with the user's modules in them exchanged for their copies. Wrappers for several devices and
    for compilation come off.

    Raises:
        CutError: The model cannot be copied, or is not one whose code can be read.
    """
    check_model(model)
    model = unwrapped(model)
    memo = _memo(model)
    try:
        for module in reversed(list(model.modules())):  # the innermost wrapper first
            if (inner := unwrapped(module)) is not module:
                memo[id(module)] = deepcopy(inner, memo)
        copy = deepcopy(model, memo)
    except Exception as error:
        raise CutError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}). A cut "
            "works on a copy so that yours stays as it is. Remove what cannot be copied from the "
            "attributes of its modules, or give their class a __deepcopy__, then cut again."
        ) from error
    rebind(copy, memo)
    return copy.requires_grad_(False).eval()


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside wrappers for several devices and for compilation."""
    while True:
        if isinstance(module, DataParallel | DistributedDataParallel):
            module = module.module
        elif type(module).__name__ == "OptimizedModule" and "_orig_mod" in module._modules:
            module = module.get_submodule("_orig_mod")
        else:
            return module


def _memo(model: nn.Module) -> dict[int, Any]:
    """Objects that a deep copy uses instead of copying, by the original's id."""
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False)
        for weight in model.parameters()
    }
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, _SHARED):
                memo[id(value)] = Shared(value)
            for tensor in flat_tensors(value):
                if not tensor.is_leaf:  # as old-style weight_norm leaves one on its module
                    memo[id(tensor)] = tensor.detach().clone()
    return memo


def check_model(model: object) -> None:
    """Refuse anything but a module whose Python code can be traced.

    Raises:
        CutError: It is TorchScript, lazy, a class, a state dict or something else.
    """
    if isinstance(model, jit.ScriptModule):
        raise CutError(
            f"{type(model).__name__} is a TorchScript module: its code is compiled, and a cut "
            "needs Python. Pass the Python module that it was scripted or traced from."
        )
    if not isinstance(model, nn.Module):
        hint = "Call the class to make a model." if isinstance(model, type) else _hint(model)
        raise CutError(f"cut takes a torch.nn.Module, not {_kind(model)}. {hint}")
    lazy = [
        name
        for name, weight in model.named_parameters()
        if isinstance(weight, nn.UninitializedParameter)
    ]
    if lazy:
        raise CutError(
            f"{lazy[0]!r} of {type(model).__name__} has no shape yet: a lazy module gets it at "
            "its first call. Call model(sample) once, then cut."
        )


def _kind(model: object) -> str:
    return f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"


def _hint(model: object) -> str:
    if isinstance(model, dict):
        return "If this is a state dict: build the model, load_state_dict it, and pass the model."
    return "Pass the model itself."
