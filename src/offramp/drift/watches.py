"""Watch: a sequential test for drift, fed with the exits that answered and some shadow answers."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp.drift.bets import TUNING, bets_on
from offramp.drift.dependence import LagTest
from offramp.drift.monitor import Crossing, Monitor
from offramp.drift.reference import DependenceWarning, Reference, Tally, reference_of
from offramp.errors import BundleError, PlanError, ShapeError
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy
from offramp.policy.files import check_schema
from offramp.record import Record

_SCHEMA = "offramp watch 2"
_LARGEST_LOG = 700.0  # e to this is still a number
Kind = Literal["exit mix", "disagreement"]


@dataclass(frozen=True)
class Alarm(Record):
    """The answers no longer look like those of the reference.

    Attributes:
        kind: What changed.
        name: The exit whose share moved most; `disagreement` for the other kind.
        reference_share: Its share in the reference, 0 to 1.
        share: Its share of the answers since the change.
        since: Answers before the change, as estimated.
        answers: Answers seen at the alarm; for disagreement, shadow answers.
        e_value: Evidence against the reference: without drift it ever gets this large with a
            probability of at most 1 / e_value, if the reference did not choose the policy.
        rate: Probability of any false alarm that was allowed, over both kinds.
    """

    kind: Kind
    name: str
    reference_share: float
    share: float
    since: int
    answers: int
    e_value: float
    rate: float

    def __str__(self) -> str:
        what = (
            f"answers that leave at {self.name!r}"
            if self.kind == "exit mix"
            else "shadow answers that disagree with the final exit"
        )
        counted = _counted(self.kind)
        return (
            f"drift in {self.kind}: {what} went from {100 * self.reference_share:.1f} % in the "
            f"reference to {100 * self.share:.1f} % since {counted[:-1]} {self.since} (found after "
            f"{self.answers} {counted}, e-value {self.e_value:.0f}, false alarms of any kind at "
            f"most {100 * self.rate:g} %). Take the policy's promise as void until it is "
            "calibrated again on recent samples."
        )


class _Stream:
    """One kind of answers: every k-th of them is bet on, as a monitor and a lag test see it.

    Attributes:
        tally: The reference samples per category.
        limit: The e-value at which an alarm is due.
        every: The k; 1 takes all.
        seen: How many answers there were, those left out included.
    """

    def __init__(
        self,
        tally: Tally,
        shifts: Mapping[float, float],
        directions: Sequence[int],
        rate: float,
        every: int,
        random: np.random.Generator,
    ) -> None:
        self.tally, self.limit, self.every, self.seen = tally, 1 / rate, every, 0
        bets = bets_on(tally.shares, shifts, directions)
        ranked = np.array(tally.ranked, np.int64)
        self.monitor = Monitor(bets, ranked, -math.log(rate), random)
        self.lags = LagTest()

    def update(self, categories: NDArray[np.int64]) -> tuple[Crossing | None, int | None]:
        """Look at more answers: where the limit is first reached, and a dependence if first seen.

        Both are counted in answers of the stream, those left out included.
        """
        kept = categories[-self.seen % self.every :: self.every]
        self.seen += len(categories)
        crossing, reach = self.monitor.update(kept), self.lags.update(kept)
        if crossing is not None:
            crossing = replace(crossing, answers=(crossing.answers - 1) * self.every + 1)
        return crossing, None if reach is None else reach * self.every

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON values."""
        return {"seen": self.seen, "monitor": self.monitor.state(), "lags": self.lags.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of another one."""
        self.seen = int(state["seen"])
        self.monitor.restore(state["monitor"])
        self.lags.restore(state["lags"])


class Watch:
    """A test for drift that is fed with answers and gives an alarm when evidence is beyond chance.

    Answers must be independent given their distribution: frames of one video, or one client's
    requests in a row, are not. The watch looks for that and warns once (`DependenceWarning`).

    Attributes:
        reference: What it compares with.
        rate: Probability of any false alarm, over both kinds.
        every: Only every k-th answer is looked at, so that those are far enough apart.
    """

    def __init__(
        self,
        reference: Reference,
        rate: float,
        every: int,
        of_mix: np.random.Generator,
        of_disagreement: np.random.Generator,
    ) -> None:
        _check_settings(rate, every)
        self.reference, self.rate, self.every = reference, rate, every
        self._streams: dict[Kind, _Stream] = {
            "exit mix": _Stream(
                reference.mix, TUNING.mix_shifts, (1, -1), TUNING.mix_part * rate, every, of_mix
            )
        }
        if (tally := reference.disagreement) is not None:
            shifts, part = TUNING.disagreement_shifts, TUNING.disagreement_part
            self._streams["disagreement"] = _Stream(
                tally, shifts, (-1,), part * rate, every, of_disagreement
            )

    @property
    def answers(self) -> int:
        """How many were seen."""
        return self._streams["exit mix"].seen

    @property
    def e_values(self) -> dict[Kind, float]:
        """Evidence of drift now; an alarm was given when it first reached its limit."""
        return {
            kind: math.exp(min(stream.monitor.log_e, _LARGEST_LOG))
            for kind, stream in self._streams.items()
        }

    def update(self, exits: ArrayLike, disagree: ArrayLike | None = None) -> list[Alarm]:
        """Look at more answers; how they are divided into calls does not matter.

        Args:
            exits: (N,) numbers of the exits that fired, in the order of the answers. Answers that
                a deadline cut short are left out, since they show load, not drift.
            disagree: (M,) whether each shadow answer differed: of answers picked at random, the
                whole network was run as well. Their number may be any.

        Returns:
            At most one alarm of each kind in the life of a watch, at the answer that it is due.

        Raises:
            ShapeError: An exit that cannot fire under the policy, or not a row of booleans.
            PlanError: Disagreement in a regression.
        """
        given: dict[Kind, NDArray[np.int64]] = {"exit mix": self._categories(exits)}
        if disagree is not None:
            given["disagreement"] = self._shadows(disagree)
        alarms = []
        for kind, categories in given.items():
            crossing, reach = self._streams[kind].update(categories)
            if crossing is not None:
                alarms.append(self._alarm(kind, crossing))
            if reach is not None:
                self._warn(kind, reach)
        return alarms

    def state(self) -> dict[str, Any]:
        """All that `from_state` needs to continue, as JSON values."""
        return {
            "schema": _SCHEMA,
            "rate": self.rate,
            "every": self.every,
            "reference": self.reference.model_dump(mode="json"),
            "streams": {kind: stream.state() for kind, stream in self._streams.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Continue where a watch was when it gave its `state`: same answers, same alarms.

        Raises:
            BundleError: It is something else.
        """
        check_schema(state, _SCHEMA, "start a new watch")
        try:
            reference = Reference.model_validate(state["reference"])
            unused = np.random.default_rng(), np.random.default_rng()  # restored below
            made = cls(reference, state["rate"], state["every"], *unused)
            for kind, stream in made._streams.items():
                stream.restore(state["streams"][kind])
        except (KeyError, TypeError, ValueError, PlanError) as error:
            raise BundleError(
                f"this state of a watch is damaged ({error!r}). Start a new watch."
            ) from error
        return made

    def __str__(self) -> str:
        parts = []
        for kind, value in self.e_values.items():
            stream = self._streams[kind]
            evidence = f", e-value now {value:.3g}, alarm at {stream.limit:.0f}"
            parts.append(
                f"{kind}: {stream.seen} {_counted(kind)}{evidence if stream.seen else ''}"
                f"{', which depend on each other' if stream.lags.reach else ''}"
            )
        thinned = f", one answer in {self.every}" if self.every > 1 else ""
        rate = f"false alarms at most {100 * self.rate:g} %"
        return f"Watch for drift, {rate}{thinned}. {'; '.join(parts)}."

    def _warn(self, kind: Kind, reach: int) -> None:
        warnings.warn(
            f"{_counted(kind)} up to {reach} apart are alike more often than chance makes them, so "
            "they depend on each other, and more alarms may be false than the stated rate. Start "
            f"a new watch with every={reach + 1} or more, which looks at answers that far apart.",
            DependenceWarning,
            stacklevel=3,
        )

    def _alarm(self, kind: Kind, found: Crossing) -> Alarm:
        whole = self._streams[kind].tally.whole
        names = self.reference.names if kind == "exit mix" else ("agreement", "disagreement")
        shares = (found.upto - found.since) / (found.upto - found.since).sum()
        spread = np.sqrt(whole * (1 - whole)) + 1 / found.upto.sum()
        # Of two shares that moved alike, as agreement and disagreement do, the last is named.
        moved = len(names) - 1 - int(np.abs((shares - whole) / spread)[::-1].argmax())
        return Alarm(
            kind=kind,
            name=names[moved],
            reference_share=float(whole[moved]),
            share=float(shares[moved]),
            since=int(found.since.sum()) * self.every,
            answers=found.answers,
            e_value=math.exp(found.log_e),
            rate=self.rate,
        )

    def _categories(self, exits: ArrayLike) -> NDArray[np.int64]:
        given = np.atleast_1d(np.asarray(exits))
        known = np.array(self.reference.exits)
        wrong = given if given.dtype.kind not in "iu" else given[~np.isin(given, known)]
        if given.ndim != 1 or wrong.size:
            raise ShapeError(
                f"exits must be a row of whole numbers out of {known.tolist()}, the exits that can "
                f"fire under this policy; got {given.dtype} {given.shape} with "
                f"{wrong.ravel()[:3].tolist()}. Start a new watch for another policy."
            )
        return np.searchsorted(known, given).astype(np.int64)

    def _shadows(self, disagree: ArrayLike) -> NDArray[np.int64]:
        if "disagreement" not in self._streams:
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
    reference: ExitOutputs,
    policy: ExitPolicy,
    *,
    rate: float = 0.01,
    every: int = 1,
    seed: int = 0,
) -> Watch:
    """Start to watch answers of a policy for drift away from the reference.

    Args:
        reference: The samples that the policy was calibrated on, or others like them. How many
            they are enters the test: they are a sample too. Of samples that share an id or a
            cluster it takes one.
        policy: Which the answers come from.
        rate: Probability of any false alarm at all, however long the stream; 0 to 1.
        every: Look at every k-th answer only, where answers closer together than k depend on
            each other, as frames of one video do.
        seed: Of the uniform numbers that break ties, and of the reference samples that place bets.

    Raises:
        ShapeError: The policy is for other exits.
        DataError: Under 100 independent reference samples, or no exit but the last can answer.
        PlanError: The rate is not a probability, or `every` is below 1.
    """
    _check_settings(rate, every)
    placing, of_mix, of_disagreement = np.random.default_rng(seed).spawn(3)
    found = reference_of(reference, policy, placing)
    return Watch(found, rate, int(every), of_mix, of_disagreement)


def _check_settings(rate: float, every: int) -> None:
    if not isinstance(rate, Real) or not 0 < rate < 1:
        raise PlanError(f"rate={rate!r} is the probability of a false alarm: between 0 and 1.")
    if not isinstance(every, Integral) or every < 1:
        raise PlanError(f"every={every!r} must be a whole number from 1; 1 looks at all answers.")


def _counted(kind: Kind) -> str:
    return "answers" if kind == "exit mix" else "shadow answers"
