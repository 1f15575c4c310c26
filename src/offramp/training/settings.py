"""How branches are trained, and networks finetuned; the defaults are the paper's (section 4)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypedDict

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from offramp.data.augment import Augment
from offramp.errors import PlanError
from offramp.features import CacheDtype
from offramp.spec import Spec, listed, mistakes

How = Literal["cached", "fused", "auto"]
Precision = Literal["fp32", "bf16"]
RegressionLoss = Literal["mae", "mse"]
Profile = Literal["torch", "keras"]
Keep = Literal["best", "last"]


Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_RATES: TypeAdapter[tuple[float, ...]] = TypeAdapter(tuple[Rate, ...])

_NOT_OF_A_TRIAL = {"profile", "seeds", "how", "disk_gb", "memory_gb"}


_PROFILES: Mapping[str, Mapping[str, Any]] = {
    "torch": {},
    "keras": {"lr_min_delta": 1e-4, "adam_epsilon": 1e-7},
}
"""For each profile, its defaults where they differ from those of the fields."""


class Schedule(Spec):
    """How anything is trained: epochs, batches, the learning rate on a plateau, when to stop.

    Attributes:
        profile: Defaults of `lr_min_delta` and `adam_epsilon`: those of `torch` (0 and 1e-8), or
            those of `keras` (1e-4 and 1e-7), which the paper's authors used.
        epochs: Largest number of epochs.
        batch_size: Samples per step; the last batch of an epoch may be smaller.
        lr_factor: Factor for the learning rate on a plateau.
        lr_patience: Number of epochs without a lower validation loss before the learning rate is
            reduced.
        lr_min_delta: How much lower the loss has to be to count for `lr_patience`; any decrease
            counts for `stop_patience`.
        stop_patience: Number of epochs without a lower validation loss before training stops.
        keep: `best` keeps the weights of the epoch with the lowest validation loss, `last` those
            of the last epoch, which is Keras's default; the paper does not say.
        adam_epsilon: Added to the denominator of Adam's steps.
        data_seed: Seed of the order of the samples.
        precision: Precision of the forward passes that are trained (bf16: autocast).
        augment: Random changes of the training images.
    """

    profile: Profile = "torch"
    epochs: PositiveInt = 100
    batch_size: PositiveInt = 64
    lr_factor: Annotated[float, Field(gt=0, lt=1)] = 0.6
    lr_patience: PositiveInt = 2
    lr_min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    stop_patience: PositiveInt = 5
    keep: Keep = "best"
    adam_epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-8
    data_seed: NonNegativeInt = 0
    precision: Precision = "fp32"
    augment: Augment | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_defaults_of_the_profile(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or not isinstance(given.get("profile"), str):
            return given
        return {**_PROFILES.get(given["profile"], {}), **given}


class TrainSettings(Schedule):
    """How branches are trained: a schedule for each branch, and what all branches share.

    The order of the samples (`data_seed`) is the same for all branches and seeds. Taps are computed
    in fp32 whatever the `precision` of the branches. `augment` is for the fused mode or a number of
    views.

    Attributes:
        seeds: Every branch is trained once with each seed. A seed decides initial weights and
            dropout only.
        lr: Initial learning rate of Adam, or several rates: every branch is trained with each
            rate and each seed. The paper uses 1e-4.
        regression_loss: `mae`, the mean absolute error, as in the paper, or `mse`, the mean squared
            error. Classification uses cross entropy.
        cache_dtype: Precision that taps are rounded to in both modes; float16 has a scale per
            channel.
        how: `cached` computes taps once and stores them on disk. `fused` runs each batch through
            the backbone once for all branches and stores nothing. `auto` caches if the disk has
            room.
        disk_gb: Disk space that `auto` may use, in GB of 1e9 bytes; None allows nine tenths of the
            free space.
        memory_gb: Memory that `auto` may use for the fused mode; None allows what is free.
    """

    seeds: tuple[NonNegativeInt, ...] = (0,)
    lr: Rate | tuple[Rate, ...] = 1e-4
    regression_loss: RegressionLoss = "mae"
    cache_dtype: CacheDtype = "float16"
    how: How = "auto"
    disk_gb: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    memory_gb: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds:
            raise ValueError("give at least one seed, for example [0, 1, 2]")
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{list(seeds)} has a seed twice; list each once")
        return seeds

    @field_validator("lr", mode="plain", json_schema_input_type=Rate | tuple[Rate, ...])
    @classmethod
    def _distinct_rates(cls, lr: Any) -> float | tuple[float, ...]:
        """Check one rate or several. A union type would report each mistake twice."""
        try:
            rates = _RATES.validate_python(lr if isinstance(lr, list | tuple) else [lr])
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"]) from None
        if not rates:
            raise ValueError("give at least one learning rate, for example [1e-3, 1e-4]")
        if len(set(rates)) < len(rates):
            raise ValueError(f"{list(rates)} has a learning rate twice; list each once")
        return rates if len(rates) > 1 else rates[0]

    @field_serializer("lr")
    def _rates_as_given(self, lr: float | tuple[float, ...]) -> Any:
        """Return the value itself, since a union's serializer would warn about a list from JSON."""
        return lr

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates to try."""
        return self.lr if isinstance(self.lr, tuple) else (self.lr,)

    @property
    def named_rates(self) -> tuple[float | None, ...]:
        """Rates as trials name them: the rates if there are several, else only None."""
        return self.lr if isinstance(self.lr, tuple) else (None,)

    @property
    def num_trials(self) -> int:
        """Number of trials of each branch: one per rate and seed."""
        return len(self.rates) * len(self.seeds)

    def at(self, rate: float | None) -> Self:
        """The same settings with one of the rates; None changes nothing."""
        return self if rate is None else self.model_copy(update={"lr": rate})

    def of(self, rate: float | None) -> dict[str, Any]:
        """The settings that decide the result of a trial at this rate."""
        return self.at(rate).model_dump(mode="json", exclude=_NOT_OF_A_TRIAL, exclude_defaults=True)


class StageSettings(Schedule):
    """How a whole network is trained in one stage; defaults are the paper's (section 4.2).

    Attributes:
        optimiser: `adam`, or `adamw`, whose weight decay does not pass through the moments.
        lr: Initial learning rate.
        weight_decay: Weight decay of the optimiser.
        lr_decay: Factor for the learning rate after every epoch, such as 0.99. All epochs are
            trained then: neither a plateau nor early stopping counts. None waits for plateaus.
        seed: Of a new last layer or top, and of dropout.
        deterministic: Refuse operators that give different bits on each call. A few, such as
            adaptive pooling to more than one cell, have no other kind on an accelerator.
    """

    optimiser: Literal["adam", "adamw"] = "adam"
    lr: Rate = 1e-4
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    lr_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: NonNegativeInt = 0
    deterministic: bool = True


class FinetuneSettings(StageSettings):
    """How a whole network is trained to give the targets of its task.

    Attributes:
        regression_loss: `mae`, the mean absolute error, as in the paper, or `mse`, the mean squared
            error. Classification uses cross entropy.
    """

    regression_loss: RegressionLoss = "mae"


class TrainOptions(TypedDict, total=False):
    """The settings that `fit_branches` takes by keyword; TrainSettings has the defaults."""

    epochs: int
    batch_size: int
    lr: float | Sequence[float]
    lr_factor: float
    profile: Profile
    lr_patience: int
    lr_min_delta: float
    stop_patience: int
    keep: Keep
    adam_epsilon: float
    data_seed: int
    regression_loss: RegressionLoss
    precision: Precision
    cache_dtype: CacheDtype
    how: How
    disk_gb: float | None
    memory_gb: float | None
    augment: Augment | None


def read_settings(seeds: Iterable[int], options: TrainOptions) -> TrainSettings:
    """Check keyword arguments.

    Raises:
        PlanError: Lists every one that is wrong.
    """
    if not isinstance(seeds, Iterable):
        raise PlanError(f"seeds={seeds!r} is not a list of seeds. Write seeds=range({seeds!r}).")
    try:
        return TrainSettings.model_validate({"seeds": tuple(seeds), **options})
    except ValidationError as error:
        known = ", ".join(TrainSettings.model_fields)
        faults = listed("the training settings have", mistakes(error, TrainSettings))
        raise PlanError(f"{faults}\nValid settings: {known}.") from error
