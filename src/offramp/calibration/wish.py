"""Wish: what is asked of a policy, and how surely."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, cast, get_args

from offramp.errors import PlanError
from offramp.policy.promise import Goal, Method, Within

Limits = float | Sequence[float] | None


@dataclass(frozen=True)
class Wish:
    """What is asked of a policy.

    Attributes:
        limits: Rising; one, or those of a menu.
    """

    goal: Goal
    limits: tuple[float, ...]
    confidence: float
    method: Method
    within: Within | None

    @property
    def level(self) -> float:
        """Chance of certifying what breaks its promise."""
        return 1 - self.confidence


def the_goal(goals: Mapping[str, Any]) -> str:
    """The one goal that is given.

    Raises:
        PlanError: None is, or several are.
    """
    given = {name: value for name, value in goals.items() if value is not None}
    if len(given) != 1:
        got = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "none"
        raise PlanError(
            f"calibrate takes exactly one goal of {', '.join(goals)}; got {got}. "
            "For accuracy within one point: max_drop=0.01."
        )
    return next(iter(given))


def wish_of(
    goal: Goal, limits: Limits, confidence: float, method: Method, within: Within | None
) -> Wish:
    """The wish, checked.

    Raises:
        PlanError: A setting is none that there is; all faults are listed.
    """
    several = isinstance(limits, Sequence) and not isinstance(limits, str)
    values: tuple[Any, ...] = tuple(cast(Sequence[Any], limits)) if several else (limits,)
    faults = [*_limit_faults(goal, values), *_choice_faults(method, within)]
    if several and goal != "max_drop":
        faults.append(f"{goal} takes one limit; a menu is made of several max_drop.")
    if not _is_number(confidence) or not 0 < confidence < 1:
        faults.append(f"confidence={confidence!r} must be between 0 and 1, such as 0.95.")
    if faults:
        raise PlanError("\n".join(faults))
    rising = tuple(sorted({float(value) for value in values if value is not None}))
    return Wish(goal, rising, float(confidence), method, within)


def _limit_faults(goal: Goal, values: Sequence[Any]) -> list[str]:
    top = float("inf") if goal == "max_rise" else 1.0
    unit = "in the labels' unit" if goal == "max_rise" else "a share: 0.01 is one point"
    if not values:
        return [f"{goal} is empty. Give at least one limit."]
    return [
        f"{goal}={value!r} must be above 0 and below {top:g}, {unit}."
        for value in values
        if not _is_number(value) or not 0 < value < top
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _choice_faults(method: Any, within: Any) -> list[str]:
    return [
        f"{name}={value!r} must be one of {', '.join(map(repr, choices))}."
        for name, value, choices in (
            ("method", method, get_args(Method)),
            ("within", within, (None, *get_args(Within))),
        )
        if value not in choices
    ]
