"""Watch: a sequential test for drift, fed with the exits that answered and some shadow answers."""

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp.drift.alarm import Alarm, Kind
from offramp.drift.bets import bets_on
from offramp.drift.monitor import Crossing, Monitor
from offramp.drift.reference import Reference, reference_of
from offramp.errors import BundleError, PlanError, ShapeError
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy
from offramp.policy.files import check_schema

_SCHEMA = "offramp watch 1"
# Of the rate of false alarms; the other half is kept back, so that a count of false alarms over
# many streams, which varies, hardly ever exceeds the rate. It costs a tenth of the delay.
_PARTS: dict[Kind, float] = {"exit mix": 0.45, "disagreement": 0.05}
_MIX_SHIFTS = {0.02: 0.05, 0.045: 0.7, 0.12: 0.25}  # most stakes on 5 points, which dilute a bit
_LARGEST_LOG = 700.0  # e to this is still a number
_DISAGREEMENT_SHIFTS = {0.01: 0.4, 0.03: 0.4, 0.1: 0.2}


class Watch:
    """Money that bets on drift; an alarm is given when it has grown far beyond chance.

    Attributes:
        reference: What it compares with.
        rate: Probability of any false alarm, over both kinds.
    """

    def __init__(
        self,
        reference: Reference,
        rate: float,
        of_mix: np.random.Generator,
        of_disagreement: np.random.Generator,
    ) -> None:
        self.reference, self.rate = reference, rate
        self._mix = Monitor(
            bets_on(reference.mix.shares, _MIX_SHIFTS),
            np.array(reference.mix.ranked, np.int64),
            -math.log(self._rate("exit mix")),
            of_mix,
        )
        self._disagreement = None
        if reference.disagreement is not None:
            self._disagreement = Monitor(
                bets_on(reference.disagreement.shares, _DISAGREEMENT_SHIFTS, directions=(-1,)),
                np.array(reference.disagreement.ranked, np.int64),
                -math.log(self._rate("disagreement")),
                of_disagreement,
            )

    @property
    def answers(self) -> int:
        """How many were seen."""
        return self._mix.answers

    @property
    def e_values(self) -> dict[Kind, float]:
        """Evidence of drift now; an alarm was given when it first reached its limit."""
        return {kind: math.exp(min(m.log_e, _LARGEST_LOG)) for kind, m in self._monitors().items()}

    def update(self, exits: ArrayLike, disagree: ArrayLike | None = None) -> list[Alarm]:
        """Look at more answers; how they are divided into calls does not matter.

        Args:
            exits: (N,) numbers of the exits that fired, in the order of the answers. Answers that
                a deadline cut short are left out, for they tell of load.
            disagree: (M,) whether each shadow answer differed: of answers picked at random, the
                whole network was run as well. Their number may be any.

        Returns:
            At most one alarm of each kind in the life of a watch, at the answer that it is due.

        Raises:
            ShapeError: An exit that cannot fire under the policy, or not a row of booleans.
            PlanError: Disagreement in a regression.
        """
        categories = self._categories(exits)
        shadows = None if disagree is None else self._shadows(disagree)
        found: dict[Kind, Crossing | None] = {"exit mix": self._mix.update(categories)}
        if shadows is not None and self._disagreement is not None:
            found["disagreement"] = self._disagreement.update(shadows)
        return [self._alarm(kind, crossing) for kind, crossing in found.items() if crossing]

    def state(self) -> dict[str, Any]:
        """All that `from_state` needs to go on, as JSON values."""
        return {
            "schema": _SCHEMA,
            "rate": self.rate,
            "reference": self.reference.as_json(),
            "monitors": {kind: monitor.state() for kind, monitor in self._monitors().items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Go on where a watch stood when it gave its `state`: the same answers, the same alarms.

        Raises:
            BundleError: It is something else.
        """
        check_schema(state, _SCHEMA, "begin a new watch")
        try:
            reference = Reference.from_json(state["reference"])
            made = cls(reference, state["rate"], np.random.default_rng(), np.random.default_rng())
            for kind, monitor in made._monitors().items():
                monitor.restore(state["monitors"][kind])
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"this is no state that this version reads ({error!r}). Begin a new watch."
            ) from error
        return made

    def __str__(self) -> str:
        told = []
        for kind, value in self.e_values.items():
            answers = self._monitors()[kind].answers
            counted = "answers" if kind == "exit mix" else "shadow answers"
            evidence = f", e-value now {value:.3g}, alarm at {1 / self._rate(kind):.0f}"
            told.append(f"{kind}: {answers} {counted}{evidence if answers else ''}")
        return f"Watch for drift, false alarms at most {100 * self.rate:g} %. {'; '.join(told)}."

    def _monitors(self) -> dict[Kind, Monitor]:
        monitors: dict[Kind, Monitor] = {"exit mix": self._mix}
        if self._disagreement is not None:
            monitors["disagreement"] = self._disagreement
        return monitors

    def _rate(self, kind: Kind) -> float:
        return _PARTS[kind] * self.rate

    def _alarm(self, kind: Kind, found: Crossing) -> Alarm:
        mix, disagreement = self.reference.mix, self.reference.disagreement
        tally = mix if kind == "exit mix" or disagreement is None else disagreement
        names = self.reference.names if kind == "exit mix" else ("agreement", "disagreement")
        shares = (found.upto - found.since) / (found.upto - found.since).sum()
        spread = np.sqrt(tally.whole * (1 - tally.whole)) + 1 / found.answers
        # Of two shares that moved alike, as agreement and disagreement do, the last is named.
        moved = len(names) - 1 - int(np.abs((shares - tally.whole) / spread)[::-1].argmax())
        return Alarm(
            kind=kind,
            name=names[moved],
            reference_share=float(tally.whole[moved]),
            share=float(shares[moved]),
            since=int(found.since.sum()),
            answers=found.answers,
            e_value=math.exp(found.log_e),
            rate=self._rate(kind),
        )

    def _categories(self, exits: ArrayLike) -> NDArray[np.int64]:
        given = np.atleast_1d(np.asarray(exits))
        known = np.array(self.reference.exits)
        wrong = given if given.dtype.kind not in "iu" else given[~np.isin(given, known)]
        if given.ndim != 1 or wrong.size:
            raise ShapeError(
                f"exits must be a row of whole numbers out of {known.tolist()}, the exits that can "
                f"fire under this policy; got {given.dtype} {given.shape} with "
                f"{wrong.ravel()[:3].tolist()}. Begin a new watch for another policy."
            )
        return np.searchsorted(known, given).astype(np.int64)

    def _shadows(self, disagree: ArrayLike) -> NDArray[np.int64]:
        if self._disagreement is None:
            raise PlanError(
                "the answers of a regression hardly ever agree, so their disagreement is not "
                "watched. Leave disagree out."
            )
        given = np.atleast_1d(np.asarray(disagree))
        if given.ndim != 1 or not np.isin(given, (0, 1)).all():
            raise ShapeError(
                f"disagree must be a row of booleans, one per shadow answer; got {given.dtype} "
                f"{given.shape}."
            )
        return given.astype(np.int64)


def watch(
    reference: ExitOutputs, policy: ExitPolicy, *, rate: float = 0.01, seed: int = 0
) -> Watch:
    """Begin to watch answers of a policy for drift away from the reference.

    Args:
        reference: The samples that the policy was calibrated on, or others like them. How many
            they are enters the test: they are a sample too.
        policy: Which the answers come from.
        rate: Probability of any false alarm at all, however long the stream; 0 to 1.
        seed: Of the uniform numbers that break ties, and of the reference samples that place bets.

    Raises:
        ShapeError: The policy is for other exits.
        DataError: Under 100 reference samples, or no exit but the last can answer.
        PlanError: The rate is no probability.
    """
    if not 0 < rate < 1:
        raise PlanError(f"rate={rate} is the probability of a false alarm: between 0 and 1.")
    placing, of_mix, of_disagreement = np.random.default_rng(seed).spawn(3)
    return Watch(reference_of(reference, policy, placing), rate, of_mix, of_disagreement)
