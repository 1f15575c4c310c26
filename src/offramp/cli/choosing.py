"""Choosing the policy that a verb uses, from a run or a file, and naming it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli.showing import POLICY, read_outputs
from offramp.errors import PlanError

if TYPE_CHECKING:
    from offramp.outputs import ExitOutputs
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
        policies: One policy, all of a menu, or none.
        file: The file they were read from; None if there is no policy.
    """

    policies: "tuple[ExitPolicy, ...]"
    file: Path | None

    def on(self, source: Mapping[str, Any] | None) -> "Chosen":
        """The same policies for outputs from this source; promises that do not hold are dropped."""
        return Chosen(tuple(policy.on(source) for policy in self.policies), self.file)

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


def with_policies(
    outputs: Path, split: str, file: Path | None, **limits: float | None
) -> "tuple[ExitOutputs, Chosen]":
    """Outputs, and the policies of a file that fit the limit, as `picked` says.

    Args:
        outputs: A run folder, or a file of outputs.
        split: Split of the run.
        file: A policy or a menu; None uses the run's own.
        limits: `max_drop`, `max_disagreement` and `max_rise`.

    Raises:
        PlanError: There is no run to take a policy from, or none that promises this limit.
        BundleError: A file of the run, or the policy, cannot be read.
    """
    from offramp.policy import load_policies

    if file is not None:
        rows, _ = read_outputs(outputs, split)
        return rows, Chosen(picked(load_policies(file), **limits), file)
    rows, run = read_outputs(outputs, split, POLICY)
    if run is None:
        raise PlanError("name the policy file that `offramp calibrate` wrote: --policy policy.json")
    own = load_policies(run.files[POLICY])
    return rows, Chosen(picked(own, **limits), run.folder / POLICY)


def named(policies: "Sequence[ExitPolicy]") -> "dict[str, ExitPolicy]":
    """Policies under short names: the limit of the promise, or the kind."""
    return {
        "budget" if each.promise is None else f"{each.promise.goal} {each.promise.limit}": each
        for each in policies
    }
