"""PolicyMenu: several certified policies kept together, one of them chosen at run time."""

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
    """Policies by what they promise, the strictest first.

    Each was certified on its own: each promise holds with its confidence, not all of them at once.

    Attributes:
        policies: Each with a promise of the same goal, their limits rising.
        declined: Requested limits that no policy was certified for.

    Raises:
        PlanError: A policy carries no promise, limits do not rise, or there is no policy.
        ShapeError: The policies are of different exits.
    """

    policies: tuple[ExitPolicy, ...]
    declined: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        promises = [policy.promise for policy in self.policies if policy.promise is not None]
        limits = [promise.limit for promise in promises]
        goals = {promise.goal for promise in promises}
        if len(promises) < max(1, len(self.policies)) or len(goals) > 1:
            raise PlanError(
                "a menu holds policies with promises of one goal. Calibrate with a tuple, such as "
                "max_drop=(0.005, 0.01, 0.02)."
            )
        if limits != sorted(set(limits)):
            raise PlanError(f"the limits of a menu rise; got {limits}. Sort the policies.")
        if len({policy.names for policy in self.policies}) > 1:
            raise ShapeError("the policies of a menu are for the same exits of the same model.")

    @classmethod
    def of(cls, policies: Sequence[ExitPolicy], requested: Sequence[float]) -> Self:
        """A menu of these policies; requested limits that none of them promises are declined."""
        kept = {policy.promise.limit for policy in policies if policy.promise is not None}
        return cls(tuple(policies), tuple(sorted(set(requested) - kept)))

    @property
    def limits(self) -> tuple[float, ...]:
        """What the policies promise, rising."""
        return tuple(policy.promise.limit for policy in self.policies if policy.promise)

    def at(self, limit: float) -> ExitPolicy:
        """The policy that promises at most `limit`, and saves most among these.

        Raises:
            PlanError: No policy promises as little as that.
        """
        fitting = [
            policy for policy, own in zip(self.policies, self.limits, strict=True) if own <= limit
        ]
        if not fitting:
            raise PlanError(
                f"no policy on this menu promises {limit:g}: it holds {list(self.limits)}"
                + (f", and {list(self.declined)} could not be certified" if self.declined else "")
                + ". Ask for one of these, or calibrate with more samples."
            )
        return fitting[-1]

    def on(self, source: Mapping[str, Any] | None) -> tuple[ExitPolicy, ...]:
        """The policies as they hold for outputs of this source: see `ExitPolicy.on`."""
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
        """Read what `as_json` gave.

        Raises:
            BundleError: It is something else.
        """
        check_schema(content, _SCHEMA)
        try:
            policies = tuple(ExitPolicy.from_json(each, scores) for each in content["policies"])
            return cls(policies, tuple(content["declined"]))
        except (KeyError, TypeError) as error:
            raise BundleError(
                f"this menu cannot be read by this version ({error}). Calibrate again."
            ) from error

    def save(self, path: Path | str) -> None:
        """Write one JSON file.

        Raises:
            BundleError: The file cannot be written.
        """
        write_json(path, self.as_json())

    @classmethod
    def load(cls, path: Path | str, scores: Sequence[Score] = ()) -> Self:
        """Read what `save` wrote; `scores` holds those that offramp does not bring.

        Raises:
            BundleError: No such file, or one that holds something else.
        """
        return cls.from_json(read_json(path, "a menu"), scores)

    def __str__(self) -> str:
        lines = [str(policy) for policy in self.policies]
        return "\n".join([*lines, *(f"not certified: {limit:g}" for limit in self.declined)])


def load_policies(
    source: Path | str | bytes, scores: Sequence[Score] = ()
) -> tuple[ExitPolicy, ...]:
    """The policy in a file, or all of a menu's; `scores` holds those that offramp does not bring.

    `source` is the file, or what it holds.

    Raises:
        BundleError: No such file, or one that holds neither.
    """
    content = read_json(source, "a policy")
    if isinstance(content, dict) and "policies" in content:
        return PolicyMenu.from_json(content, scores).policies
    return (ExitPolicy.from_json(content, scores),)
