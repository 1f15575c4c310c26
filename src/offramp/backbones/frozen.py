"""A frozen copy of a model: its own modules and buffers, over the user's parameter storage."""

from copy import deepcopy

from torch import nn

from offramp.errors import CutError


def frozen_copy(model: nn.Module) -> nn.Module:
    """Copy the modules of `model` for evaluation; parameters share storage, buffers do not.

    The copy's Parameters are new objects without gradient, so the user's `.train()`,
    `.requires_grad_()` and `.grad` never reach it, nor the reverse. A later change of the user's
    weights in place does: no weight is held twice.

    Raises:
        CutError: The model cannot be copied.
    """
    shared = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False)
        for weight in model.parameters()
    }
    try:
        copy = deepcopy(model, dict(shared))
    except Exception as error:
        raise CutError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}). A cut "
            "works on a copy so that yours stays as it is. Make tensors that modules hold "
            "parameters or buffers (an old-style weight_norm can be removed with "
            "torch.nn.utils.remove_weight_norm), then cut again."
        ) from error
    return copy.requires_grad_(False).eval()
