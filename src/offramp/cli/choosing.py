"""Choosing: the policy that a verb uses, picked from a run or a file, and always named."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from offramp.policy import ExitPolicy

PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="A policy or menu that `offramp calibrate` wrote.",
        show_default="policy.json of the run",
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Use the menu's policy that promises this drop or less."),
]
MaxDisagreement = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="The same for a promise about disagreement."),
]
MaxRise = Annotated[
    float | None,
    typer.Option(metavar="ERROR", help="The same for a promise about the mean absolute error."),
]


def picked(
    policies: "Sequence[ExitPolicy]",
    *,
    max_drop: float | None,
    max_disagreement: float | None,
    max_rise: float | None,
) -> "tuple[ExitPolicy, ...]":
    """The one policy that fits the limit given, or all of them if none is."""
    limits = {
        "max_drop": max_drop,
        "max_disagreement": max_disagreement,
        "max_rise": max_rise,
    }
    given = [(goal, limit) for goal, limit in limits.items() if limit is not None]
    if len(given) > 1:
        options = ", ".join(f"--{goal.replace('_', '-')}" for goal, _ in given)
        raise typer.BadParameter(f"give one limit to pick a policy by, not {options}")
    if not given:
        return tuple(policies)
    from offramp.policy import policy_at

    [(goal, limit)] = given
    return (policy_at(policies, limit, goal),)


@dataclass(frozen=True)
class Chosen:
    """The policies that a verb uses.

    Attributes:
        policies: One, all of a menu, or none.
        file: Where they were read; None where there is no policy.
    """

    policies: "tuple[ExitPolicy, ...]"
    file: Path | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "file": None if self.file is None else str(self.file),
            "policies": [policy.as_json() for policy in self.policies],
        }

    def __str__(self) -> str:
        if self.file is None:
            return "no policy: the full network answers"
        if len(self.policies) == 1:
            return f"policy of {self.file}: {self.policies[0]}"
        return "\n".join([f"policies of {self.file}:", *(f"  {each}" for each in self.policies)])
