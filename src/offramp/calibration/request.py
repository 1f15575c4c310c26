"""Request: the settings of `calibrate`; one Spec for Python, the command line and JSON."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Self, cast, get_args

import numpy as np
from pydantic import (
    BeforeValidator,
    InstanceOf,
    ValidationError,
    field_serializer,
    model_validator,
)

from offramp.errors import PlanError
from offramp.outputs import CostUnit
from offramp.policy.promise import Goal, Method, Within
from offramp.policy.scores import Score
from offramp.spec import Spec

GOALS: tuple[Goal, ...] = get_args(Goal)


def _number(value: Any) -> Any:
    """Convert a number of any library to a float; refuse anything else, including `True`."""
    if value is None:
        return None
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        raise ValueError("must be one limit; only max_drop takes several, for a menu.")  # noqa: TRY004
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError("must be a number.")  # noqa: TRY004 (pydantic reports no other)
    return float(value)


def _above_zero(value: Any) -> Any:
    number = _number(value)
    if number is not None and not 0 < number < float("inf"):
        raise ValueError("must be above 0, in the unit of the labels.")
    return number


def _share(value: Any) -> Any:
    number = _number(value)
    if number is not None and not 0 < number < 1:
        raise ValueError("must be a share above 0 and below 1; 0.01 is one point.")
    return number


def _shares(value: Any) -> Any:
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
        return _share(value)
    if not len(value):
        raise ValueError("must not be empty: give at least one limit.")
    return tuple(_share(each) for each in value)


def _confidence(value: Any) -> Any:
    number = _number(value)
    if number is None or not 0 < number < 1:
        raise ValueError("must be between 0 and 1, for example 0.95.")
    return number


def _count(value: Any) -> Any:
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or int(value) < 0:
        raise ValueError("must be a whole number, 0 or larger.")
    return int(value)


Number = Annotated[float | None, BeforeValidator(_number)]
AboveZero = Annotated[float | None, BeforeValidator(_above_zero)]
Share = Annotated[float | None, BeforeValidator(_share)]
Shares = Annotated[float | tuple[float, ...] | None, BeforeValidator(_shares)]


class Request(Spec):
    """What a policy has to promise or cost, and how to choose it. Exactly one goal must be set.

    Attributes:
        max_drop: Largest allowed drop in accuracy compared with the final exit; 0.01 is one point.
            A sequence of limits gives a menu, each limit certified on its own.
        max_rise: Largest allowed rise of the mean absolute error, in the unit of the labels.
        max_disagreement: Largest allowed share of answers that differ from the final exit's.
        budget: Mean cost in the unit of `cost`; comes without a promise.
        confidence: Probability, over the random draw of the samples, that the promise holds.
        score: Confidence score of an exit: a name from `SCORES`, or a Score; None for the usual
            one of the task, see `score_for`.
        cost: The cost to save.
        method: `ltt` tests each candidate against the limit; `ucb` computes an upper confidence
            bound of its risk instead.
        within: Keep the promise in every class, or every group, that occurs in the outputs.
        seed: Seed of the random draw of roles.
        temperature: Divide each early exit's logits by a temperature, fitted on separate rows.
        loss_bound: The rise in error of a single sample is clipped at this; required by `max_rise`.
    """

    max_drop: Shares = None
    max_rise: AboveZero = None
    max_disagreement: Share = None
    budget: Number = None
    confidence: Annotated[float, BeforeValidator(_confidence)] = 0.95
    score: str | InstanceOf[Score] | None = None
    cost: CostUnit = "flops"
    method: Method = "ltt"
    within: Within | None = None
    seed: Annotated[int, BeforeValidator(_count)] = 0
    temperature: bool = False
    loss_bound: Number = None

    @classmethod
    def of(cls, **settings: Any) -> Self:
        """Make a request from settings.

        Raises:
            PlanError: Settings are unknown, out of range or contradictory; all mistakes are listed.
        """
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise PlanError("\n".join(map(_fault, error.errors()))) from None

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = {name: getattr(self, name) for name in (*GOALS, "budget")}
        given = {name: value for name, value in given.items() if value is not None}
        if len(given) != 1:
            got = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "none"
            raise ValueError(
                f"calibrate needs exactly one of {', '.join((*GOALS, 'budget'))}; got {got}. For "
                "accuracy within one point, use max_drop=0.01."
            )
        if self.goal == "budget":
            self._check_only_budget()
        elif self.loss_bound is not None and self.limits[-1] >= self.loss_bound:
            raise ValueError(
                f"{self.goal}={self.limits[-1]:g} is not below loss_bound={self.loss_bound:g}. "
                "Losses are clipped at loss_bound, so their mean can never exceed it. Choose a "
                f"smaller {self.goal}."
            )
        return self

    @field_serializer("score")
    def _score_name(self, score: str | Score | None) -> str | None:
        return score.name if isinstance(score, Score) else score

    @property
    def goal(self) -> Goal | Literal["budget"]:
        """The one goal that is set."""
        names = (name for name in (*GOALS, "budget") if getattr(self, name) is not None)
        return cast(Goal, next(names))

    @property
    def limits(self) -> tuple[float, ...]:
        """The limit of the promise, or the limits of a menu in ascending order."""
        value = getattr(self, self.goal)
        return tuple(sorted(set(value))) if isinstance(value, tuple) else (value,)

    @property
    def is_menu(self) -> bool:
        """Whether a menu is requested."""
        return isinstance(self.max_drop, tuple)

    @property
    def level(self) -> float:
        """Probability of certifying a policy that breaks its promise."""
        return 1 - self.confidence

    def _check_only_budget(self) -> None:
        """Refuse settings that have no effect with a budget."""
        promises = ("confidence", "method", "within", "temperature", "loss_bound")
        fields = type(self).model_fields
        if idle := [name for name in promises if getattr(self, name) != fields[name].default]:
            raise ValueError(
                f"{', '.join(idle)} cannot be combined with a budget: it chooses thresholds on "
                "all rows and gives no promise. Leave them out. To use temperatures fitted on "
                "other rows, pass the result of fit_temperatures to "
                "offramp.calibration.budget.budgeted."
            )

    def __str__(self) -> str:
        each = f" in each {self.within}" if self.within else ""
        limits = " or ".join(f"{limit:g}" for limit in self.limits)
        return f"{self.goal}={limits}{each} with {100 * self.confidence:g} % confidence"


def _fault(error: Any) -> str:
    """Describe one mistake in a request."""
    text = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return text
    return f"{error['loc'][0]}={error['input']!r} {text.replace('Input should be', 'must be')}"
