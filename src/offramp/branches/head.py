"""The dense head that ends every branch, its settings, and how weights start."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from torch import nn

from offramp.branches.absent import WhereAbsent
from offramp.branches.predictor import AnswerAndError
from offramp.spec import Spec

Activation = Literal["relu", "gelu"]

POSITION_STD = 0.02
"""Standard deviation of a new position embedding, as in ViT; it is not a weight matrix."""


class HeadSettings(Spec):
    """Settings that both kinds of branch share; the paper leaves all but `hidden` open.

    Attributes:
        hidden: Width of the two hidden dense layers. Only 256 gives the paper's branch sizes.
        dropout: Share of hidden units dropped in training.
        dropout_place: Dropout after each hidden layer, or after only the first or the last.
        activation: Activation in the head, and after the convolutions of a ConvBranch.
        standardise: Shift and scale every channel of the tap to mean 0 and standard deviation 1
            over the training taps, with frozen statistics. The paper does not do this.
        error_predictor: Whether the branch has one more output that predicts whether its answer
            is right, or how far off it is. It comes last and is trained with the others.
        absent: Where a side input is absent, such as the sound of a picture: `refuse` to answer, or
            use a learned `token` in its place. The paper's branches need all of their inputs.
        drop_side: With `token`, the share of samples in each training step whose side inputs are
            treated as absent, all of a sample together.
    """

    hidden: PositiveInt = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    dropout_place: Literal["each", "first", "last"] = "each"
    activation: Activation = "relu"
    standardise: bool = False
    error_predictor: bool = False
    absent: WhereAbsent = "refuse"
    drop_side: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _drops_only_for_a_token(self) -> Self:
        if self.drop_side and self.absent != "token":
            raise ValueError(
                f"drop_side={self.drop_side:g} drops side inputs in training, but a branch with "
                f"absent={self.absent!r} never answers without them. Set absent='token' too, or "
                "leave out drop_side."
            )
        return self

    def _label(self, start: str, own: Mapping[str, bool]) -> str:
        """`start`, followed by the parts of `own` and of the shared settings that apply."""
        parts = {
            **own,
            f"-mlp{self.hidden}": self._differs("hidden"),
            f"-drop{self.dropout:g}": self._differs("dropout"),
            f"-drop-{self.dropout_place}": self._differs("dropout_place"),
            f"-{self.activation}": self._differs("activation"),
            "-std": self.standardise,
            "-ep": self.error_predictor,
            "-token": self.absent == "token",
            f"-sidedrop{self.drop_side:g}": self._differs("drop_side"),
        }
        return start + "".join(part for part, holds in parts.items() if holds)

    def _differs(self, field: str) -> bool:
        return bool(getattr(self, field) != type(self).model_fields[field].default)


def activation(name: Activation) -> nn.Module:
    """A new activation layer."""
    return nn.ReLU() if name == "relu" else nn.GELU()


def mlp_head(num_inputs: int, num_outputs: int, settings: HeadSettings) -> nn.Sequential:
    """Two hidden dense layers, then dense: (B, num_inputs) to (B, num_outputs).

    There is no activation at the end: outputs are logits for classes, or the value of a
    regression. An error predictor adds one column.
    Paper, section 3.1: the same head for both kinds of branch.
    """
    last_layer = AnswerAndError if settings.error_predictor else nn.Linear
    first, last = (_dropout(settings, place) for place in ("first", "last"))
    return nn.Sequential(
        nn.Linear(num_inputs, settings.hidden),
        activation(settings.activation),
        first,
        nn.Linear(settings.hidden, settings.hidden),
        activation(settings.activation),
        last,
        last_layer(settings.hidden, num_outputs),
    )


def _dropout(settings: HeadSettings, place: str) -> nn.Module:
    used = settings.dropout > 0 and settings.dropout_place in ("each", place)
    return nn.Dropout(settings.dropout) if used else nn.Identity()


def he_normal_(branch: nn.Module) -> None:
    """Draw every weight matrix and kernel from He normal (fan in); biases become zero.

    Paper, section 4.3. Norm layers keep their ones and zeros. Uses torch's global generator.
    """
    for part in branch.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
