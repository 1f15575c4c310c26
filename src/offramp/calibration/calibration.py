"""Calibration: how a policy came to be, what carries its promise, and what it saves."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from offramp.outputs import Unit
from offramp.policy.decision import Thresholds
from offramp.policy.policy import ExitPolicy
from offramp.table import text_table

_SHOWN = 12


@dataclass(frozen=True)
class Candidate:
    """One policy on the path that was tested.

    Attributes:
        thresholds: One per early exit, None where disabled.
        saved: Share of the backbone's cost saved on all given samples.
        guessed: Mean loss on the samples that the order was learned on.
        estimate: Mean loss on those that tested it; of the worst class or group, where each counts.
        tested: Its p-value (`ltt`) or upper bound (`ucb`); None where testing had stopped before.
    """

    thresholds: Thresholds
    saved: float
    guessed: float
    estimate: float
    tested: float | None


@dataclass(frozen=True, eq=False)
class Calibration:
    """A certified policy with its evidence; it prints as a table.

    Attributes:
        num_samples: By role: `stopping`, `temperature`, `order` and `test`, which alone carries
            the promise.
        path: All candidates, in the order learned before any was tested.
        num_certified: The first so many of them are.
        chosen: Place of the policy among them: the one that saves most.
        saved: Share of the backbone's cost it saves on all given samples.
    """

    policy: ExitPolicy
    num_samples: Mapping[str, int]
    path: tuple[Candidate, ...]
    num_certified: int
    chosen: int
    saved: float
    cost: Unit

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "policy": self.policy.as_json(),
            "num_samples": dict(self.num_samples),
            "path": [asdict(candidate) for candidate in self.path],
            "num_certified": self.num_certified,
            "chosen": self.chosen,
            "saved": self.saved,
            "cost": self.cost,
        }

    def __str__(self) -> str:
        promise = self.policy.promise
        head = [*self.policy.names[:-1], f"saved % of {self.cost}", "loss, order", "loss, test"]
        head += ["bound" if promise is not None and promise.method == "ucb" else "p-value", ""]
        rows = [self._row(place) for place in self._shown()]
        used = ", ".join(f"{num} {role}" for role, num in self.num_samples.items() if num)
        return (
            f"{text_table(head, rows, left=0)}\n"
            f"{self.num_certified} of {len(self.path)} candidates certified, {len(rows)} shown; "
            f"samples: {used}; the promise is carried by the {self.num_samples['test']} that "
            f"tested.\n{self._legend()}\n{self.policy}"
        )

    def _legend(self) -> str:
        promise = self.policy.promise
        if promise is None:
            return ""
        worst = f", of the worst {promise.within} on the test samples" if promise.within else ""
        rule = (
            f"bound <= {promise.limit:g}"
            if promise.method == "ucb"
            else f"p-value <= {1 - promise.confidence:.4g}"
        )
        return (
            f"Losses are means per sample{worst}. Certified is what has {rule}, up to the first "
            "that has not."
        )

    def _row(self, place: int) -> list[str]:
        candidate = self.path[place]
        mark = "" if place < self.num_certified else "not certified"
        return [
            *("never" if each is None else f"{each:.4f}" for each in candidate.thresholds),
            f"{100 * candidate.saved:.1f}",
            f"{candidate.guessed:.4f}",
            f"{candidate.estimate:.4f}",
            "" if candidate.tested is None else f"{candidate.tested:.4g}",
            "chosen" if place == self.chosen else mark,
        ]

    def _shown(self) -> list[int]:
        """Places of the rows shown: the chosen, the first not certified, and some on the way."""
        last = min(self.num_certified, len(self.path) - 1)
        step = max(1, last // _SHOWN)
        return sorted({*range(0, last + 1, step), self.chosen, last})
