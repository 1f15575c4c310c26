"""A backbone from a function in a user's own Python file."""

from torch import nn

from offramp.errors import PlanError
from offramp.python_function import call_function

_WANTED = "a torch.nn.Module with its weights loaded"


def module_from(place: str) -> nn.Module:
    """The model that the function `path/to/file.py:function` returns.

    Raises:
        PlanError: No such file or function, an error inside them, or something else came back.
    """
    model = call_function(place, _WANTED)
    if not isinstance(model, nn.Module):
        raise PlanError(f"{place} returned a {type(model).__name__}; it must return {_WANTED}.")
    return model
