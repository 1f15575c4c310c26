"""PolicyMenu: several certified policies, one of which is chosen at run time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from offramp.errors import BundleError, PlanError, ShapeError
from offramp.policy.files import check_schema, read_json, write_json
from offramp.policy.policy import ExitPolicy
from offramp.policy.scores import Score

_SCHEMA = "offramp policy menu 1"


@dataclass(frozen=True, eq=False)
class PolicyMenu:
    """Policies with promises, the strictest first.

    Each policy was certified on its own: each promise holds with its own confidence, but not
    necessarily all of them at once.

    Attributes:
        policies: Policies with promises of the same goal, in order of increasing limit.
        declined: Requested limits for which no policy was certified.

    Raises:
        PlanError: There is no policy, a policy has no promise, or limits do not increase.
        ShapeError: The policies are for different exits.
    """

    policies: tuple[ExitPolicy, ...]
    declined: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        promises = [policy.promise for policy in self.policies if policy.promise is not None]
        limits = [promise.limit for promise in promises]
        goals = {promise.goal for promise in promises}
        if len(promises) < max(1, len(self.policies)) or len(goals) > 1:
            raise PlanError(
                "a menu needs at least one policy, all with promises of the same goal. Calibrate "
                "with several limits, such as max_drop=(0.005, 0.01, 0.02)."
            )
        if limits != sorted(set(limits)):
            raise PlanError(f"the limits of a menu must increase; got {limits}. Sort the policies.")
        if len({policy.names for policy in self.policies}) > 1:
            raise ShapeError(
                "the policies of a menu must be for the same exits. Use policies of a single model."
            )

    @classmethod
    def of(cls, policies: Sequence[ExitPolicy], requested: Sequence[float]) -> Self:
        """Make a menu of these policies; requested limits without a policy count as declined."""
        kept = {policy.promise.limit for policy in policies if policy.promise is not None}
        return cls(tuple(policies), tuple(sorted(set(requested) - kept)))

    @property
    def limits(self) -> tuple[float, ...]:
        """The limits of the policies, increasing."""
        return tuple(policy.promise.limit for policy in self.policies if policy.promise)

    def at(self, limit: float) -> ExitPolicy:
        """The policy with the largest limit up to `limit`.

        Raises:
            PlanError: No policy has a limit that small.
        """
        fitting = [
            policy for policy, own in zip(self.policies, self.limits, strict=True) if own <= limit
        ]
        if not fitting and len(self.policies) == 1 and not self.declined:
            raise PlanError(
                f"the policy promises {self.limits[0]:g}, and {limit:g} was asked for, which is "
                f"stricter. Ask for {self.limits[0]:g} or more, or calibrate again."
            )
        if not fitting:
            raise PlanError(
                f"this menu has no policy for {limit:g}; it has {list(self.limits)}"
                + (f", and {list(self.declined)} could not be certified" if self.declined else "")
                + ". Use one of these, or calibrate with more samples."
            )
        return fitting[-1]

    def on(self, source: Mapping[str, Any] | None) -> tuple[ExitPolicy, ...]:
        """The policies for outputs from this source; see `ExitPolicy.on`."""
        return tuple(policy.on(source) for policy in self.policies)

    def __len__(self) -> int:
        return len(self.policies)

    def __iter__(self) -> Iterator[ExitPolicy]:
        return iter(self.policies)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "schema": _SCHEMA,
            "policies": [policy.as_json() for policy in self.policies],
            "declined": list(self.declined),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], scores: Sequence[Score] = ()) -> Self:
        """Read the result of `as_json`.

        Raises:
            BundleError: `content` is not a menu.
        """
        check_schema(content, _SCHEMA)
        try:
            policies = tuple(ExitPolicy.from_json(each, scores) for each in content["policies"])
            return cls(policies, tuple(content["declined"]))
        except (KeyError, TypeError) as error:
            raise BundleError(
                f"this version cannot read this menu ({error}). Calibrate again."
            ) from error

    def save(self, path: Path | str) -> None:
        """Write a JSON file.

        Raises:
            BundleError: The file cannot be written.
        """
        write_json(path, self.as_json())

    @classmethod
    def load(cls, path: Path | str, scores: Sequence[Score] = ()) -> Self:
        """Read a file written by `save`; `scores` are custom scores that the policies use.

        Raises:
            BundleError: The file does not exist, or is not a menu.
        """
        return cls.from_json(read_json(path, "a menu"), scores)

    def __str__(self) -> str:
        lines = [str(policy) for policy in self.policies]
        return "\n".join([*lines, *(f"not certified: {limit:g}" for limit in self.declined)])


def policy_at(policies: Sequence[ExitPolicy], limit: float, goal: str | None = None) -> ExitPolicy:
    """The one of these policies with the largest limit up to `limit`.

    Args:
        policies: One policy, or those of a menu.
        limit: What may be lost, such as 0.01.
        goal: What the limit is about, such as `max_drop`; None takes what the policies promise.

    Raises:
        PlanError: No policy promises this.
    """
    goals = {policy.promise.goal for policy in policies if policy.promise is not None}
    if not goals:
        raise PlanError(
            f"no policy here carries a promise, so none can be picked by the limit {limit:g}. "
            "Calibrate one, for example with max_drop=0.01, or leave the limit out."
        )
    if goal is not None and goal not in goals:
        raise PlanError(
            f"no policy here promises {goal}, only {' and '.join(sorted(goals))}. "
            "Pick by what is promised, or calibrate again."
        )
    return PolicyMenu(tuple(policies)).at(limit)


def load_policies(
    source: Path | str | bytes, scores: Sequence[Score] = ()
) -> tuple[ExitPolicy, ...]:
    """Read the policy in a file, or all of a menu; `scores` are custom scores that they use.

    `source` is the file, or its content as bytes.

    Raises:
        BundleError: The file does not exist, or is neither a policy nor a menu.
    """
    found = read_policy(source, scores)
    return found.policies if isinstance(found, PolicyMenu) else (found,)


def read_policy(
    source: Path | str | bytes, scores: Sequence[Score] = ()
) -> ExitPolicy | PolicyMenu:
    """Read the policy or the menu in a file; arguments and errors as for `load_policies`."""
    content = read_json(source, "a policy")
    if isinstance(content, dict) and "policies" in content:
        return PolicyMenu.from_json(content, scores)
    return ExitPolicy.from_json(content, scores)
