"""FinetunePlan: what finetuning a backbone does, as typed YAML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import field_validator, model_validator

from offramp.backbones.top import Top
from offramp.run.plan import DataPlan, load_kind
from offramp.training.finetuner import Trains
from offramp.training.settings import FinetuneSettings, StageSettings


class FinetunePlan(DataPlan):
    """One finetuning: a backbone with its weights at the start, data, and how it is trained.

    Attributes:
        top: New dense layers in place of the last layer; None keeps the last layer, or the new one
            that `backbone.num_outputs` asks for.
        trains: `all` layers, or `batch_norm`: scale, shift and running statistics of all batch-norm
            layers, and the top (without one, the last layer).
        density: A first stage that trains the density maps of a network that counts, such as
            `paper:audiocsrnet`, on data with density maps; None trains counts alone.
        train: The training, or its second stage.
    """

    top: Top | None = Top()
    trains: Trains = "all"
    density: StageSettings | None = None
    train: FinetuneSettings = FinetuneSettings()

    @field_validator("density", mode="before")
    @classmethod
    def _has_its_own_loss(cls, given: Any) -> Any:
        if isinstance(given, FinetuneSettings) or (
            isinstance(given, Mapping) and "regression_loss" in given
        ):
            raise ValueError(
                "regression_loss has no effect here: training on density maps minimises the sum of "
                "squared errors over each map (paper, section 4.2). Leave it out; the loss of the "
                "counts is train.regression_loss"
            )
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.backbone.top is not None:
            raise ValueError(
                "write `top` beside `backbone`, not inside it, since the top is yet to be trained"
            )
        if self.density is None:
            return self
        if self.task != "regression" or self.trains != "all":
            raise ValueError("`density` needs `task: regression` and `trains: all`")
        if self.density.augment is not None:
            raise ValueError(
                "density.augment would change the pictures and not their maps; leave it out"
            )
        return self


def load_finetune_plan(path: str | Path, overrides: Sequence[str] = ()) -> FinetunePlan:
    """Read a YAML plan of a finetuning. Arguments and errors are those of `load_plan`."""
    return load_kind(FinetunePlan, path, overrides)
