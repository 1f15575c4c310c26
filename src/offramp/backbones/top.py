"""The dense layers that the paper puts on top of image backbones (section 4.2)."""

from typing import Annotated, Any

from pydantic import Field, PositiveInt
from torch import nn

from offramp.errors import PlanError
from offramp.spec import Spec


class Top(Spec):
    """Two dense layers with dropout between, which replace the last layer of a network.

    Attributes:
        hidden: Outputs of the first layer. 256 fits the printed FLOPs of InceptionV3; the paper
            does not say.
        dropout: Share of these that is dropped in training. The paper does not say.
    """

    hidden: PositiveInt = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5


class DenseTop(nn.Sequential):
    """What `Top` describes: (B, num_features) to (B, num_outputs).

    In place of a last convolution, both layers are convolutions of the whole map.
    """


def dense_top(num_features: int, num_outputs: int, top: Top | None = None) -> DenseTop:
    """A new top; without `top`, the paper's."""
    chosen = top or Top()
    return _between(
        nn.Linear(num_features, chosen.hidden), nn.Linear(chosen.hidden, num_outputs), chosen
    )


def put_top(model: nn.Module, top: Top, num_outputs: int) -> None:
    """Replace the last layer of a network, or its earlier top, by a new one.

    Raises:
        PlanError: The network has no last layer that can be replaced.
    """
    place = top_place(model)
    last: Any = model.get_submodule(place)
    if isinstance(last, DenseTop):
        last = last[0]
    if isinstance(last, nn.Linear):
        new = dense_top(last.in_features, num_outputs, top)
    else:
        shape = last.kernel_size, last.stride, last.padding
        first = nn.Conv2d(last.in_channels, top.hidden, *shape)
        new = _between(first, nn.Conv2d(top.hidden, num_outputs, 1), top)
    model.set_submodule(place, new)


def top_place(model: nn.Module) -> str:
    """Path of the layer that gives a network's answers, or of a top in its place.

    It is what `get_classifier` returns, as timm's networks have it, or else the last dense or
    convolutional layer.

    Raises:
        PlanError: There is no such layer, or several answer together.
    """
    named = dict(model.named_modules())
    tops = [path for path, module in named.items() if isinstance(module, DenseTop)]
    layers = [path for path, module in named.items() if isinstance(module, nn.Linear | nn.Conv2d)]
    own = getattr(model, "get_classifier", None)
    classifier = own() if callable(own) else None
    if isinstance(classifier, tuple | list):
        raise PlanError(
            f"{type(model).__name__} answers with {len(classifier)} last layers together, which a "
            "single top cannot replace. Write `top: null`; to get new last layers, also set "
            "backbone.num_outputs."
        )
    chosen = [path for path in layers if named[path] is classifier]
    found: str = ["", *layers, *chosen, *tops][-1]
    if not found:
        raise PlanError(
            f"{type(model).__name__} has no dense or convolutional layer inside it that a new top "
            "could replace. Write `top: null` to finetune it with the layers that it has."
        )
    return found


def _between(first: nn.Module, second: nn.Module, top: Top) -> DenseTop:
    return DenseTop(first, nn.ReLU(), nn.Dropout(top.dropout), second)
