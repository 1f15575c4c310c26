"""Alarm: what changed, since when, and how strong the evidence is."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["exit mix", "disagreement"]


@dataclass(frozen=True)
class Alarm:
    """The answers no longer look like those of the reference.

    Attributes:
        kind: What changed.
        name: The exit whose share moved most; `disagreement` for the other kind.
        reference_share: Its share in the reference, 0 to 1.
        share: Its share of the answers since the change began.
        since: Answers before the change, as estimated.
        answers: Answers seen at the alarm; for disagreement, shadow answers.
        e_value: Evidence against the reference: without drift it ever gets this large with a
            probability of at most 1 / e_value.
        rate: Probability of a false alarm of this kind that was allowed.
    """

    kind: Kind
    name: str
    reference_share: float
    share: float
    since: int
    answers: int
    e_value: float
    rate: float

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return asdict(self)

    def __str__(self) -> str:
        what = (
            f"answers that leave at {self.name!r}"
            if self.kind == "exit mix"
            else "shadow answers that disagree with the final exit"
        )
        counted = "answers" if self.kind == "exit mix" else "shadow answers"
        return (
            f"drift in {self.kind}: {what} went from {100 * self.reference_share:.1f} % in the "
            f"reference to {100 * self.share:.1f} % since {counted[:-1]} {self.since} (found after "
            f"{self.answers} {counted}, e-value {self.e_value:.0f}, false alarms at most "
            f"{100 * self.rate:g} %). Take the policy's promise as void until it is calibrated "
            "again on samples of today."
        )
