"""Watch: a sequential test for drift in the exits that answer and in some shadow answers."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp.arguments import check_seed
from offramp.drift.bets import TUNING, bets_on
from offramp.drift.dependence import LagTest
from offramp.drift.monitor import Crossing, Monitor
from offramp.drift.reference import DependenceWarning, Reference, Tally, reference_of
from offramp.errors import BundleError, PlanError, ShapeError
from offramp.outputs import ExitOutputs, check_outputs
from offramp.policy import ExitPolicy
from offramp.policy.files import check_schema
from offramp.policy.policy import check_policy
from offramp.record import Record

_SCHEMA = "offramp watch 2"
_LARGEST_LOG = 700.0  # exp of this does not overflow
Kind = Literal["exit mix", "disagreement"]


@dataclass(frozen=True)
class Alarm(Record):
    """Drift was detected: the answers no longer look like those of the reference.

    Attributes:
        kind: What changed.
        name: The exit whose share changed most; `disagreement` for the other kind.
        reference_share: Its share in the reference, 0 to 1.
        share: Its share among the answers since the change.
        since: Estimated number of answers before the change.
        answers: Number of answers at the alarm; for disagreement, of shadow answers.
        e_value: Evidence for drift. Without drift, the probability of ever reaching this value is
            at most 1 / e_value, provided that the policy was not chosen on the reference.
        rate: Allowed probability of any false alarm, over both kinds.
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
            else "shadow answers that disagree with the answer given"
        )
        counted = _counted(self.kind)
        return (
            f"drift in {self.kind}: the share of {what} changed from "
            f"{100 * self.reference_share:.1f} % in the reference to {100 * self.share:.1f} % "
            f"since {counted[:-1]} {self.since} (detected after {self.answers} {counted}, e-value "
            f"{self.e_value:.0f}, false-alarm rate at most {100 * self.rate:g} %). The policy's "
            "promise may no longer hold. Calibrate again on recent samples."
        )


class _Stream:
    """One kind of answers, every k-th of which goes to a monitor and a lag test.

    Attributes:
        tally: Reference samples per category.
        limit: E-value that raises an alarm.
        every: Use every k-th answer; 1 uses all.
        seen: Number of answers so far, including unused ones.
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
        """Process answers; return the first crossing of the limit, and the lag of new dependence.

        Both are counted in answers of the stream, including unused ones.
        """
        kept = categories[-self.seen % self.every :: self.every]
        self.seen += len(categories)
        crossing, reach = self.monitor.update(kept), self.lags.update(kept)
        if crossing is not None:
            crossing = replace(crossing, answers=(crossing.answers - 1) * self.every + 1)
        return crossing, None if reach is None else reach * self.every

    def state(self) -> dict[str, Any]:
        """State for `restore`, as JSON values."""
        return {"seen": self.seen, "monitor": self.monitor.state(), "lags": self.lags.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.seen = int(state["seen"])
        self.monitor.restore(state["monitor"])
        self.lags.restore(state["lags"])


class Watch:
    """A sequential test for drift that processes answers and raises alarms.

    The test assumes independent answers. Frames of a video, or consecutive requests of one client,
    are not independent. The watch tests for this and warns once (`DependenceWarning`).

    Attributes:
        reference: The reference to compare answers with.
        rate: Probability of any false alarm, over both kinds.
        every: Use only every k-th answer, for answers that depend on their neighbours.
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
        """Number of answers so far."""
        return self._streams["exit mix"].seen

    @property
    def e_values(self) -> dict[Kind, float]:
        """Current evidence for drift; the alarm was raised when it first reached the limit."""
        return {
            kind: math.exp(min(stream.monitor.log_e, _LARGEST_LOG))
            for kind, stream in self._streams.items()
        }

    def update(self, exits: ArrayLike, disagree: ArrayLike | None = None) -> list[Alarm]:
        """Process answers; how they are divided into calls does not matter.

        Args:
            exits: (N,) numbers of the exits that answered, in order. Leave out answers that were
                cut short by a deadline, because they show load, not drift.
            disagree: (M,) whether each shadow answer differs. Shadow answers come from running the
                whole network as well, for any number of answers picked at random.

        Returns:
            New alarms. A watch raises at most one alarm of each kind.

        Raises:
            ShapeError: `exits` contains an exit that cannot fire under the policy, or `disagree` is
                not a 1-D array of booleans.
            PlanError: `disagree` is given for a regression.
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
        """Full state for `from_state`, as JSON values."""
        return {
            "schema": _SCHEMA,
            "rate": self.rate,
            "every": self.every,
            "reference": self.reference.model_dump(mode="json"),
            "streams": {kind: stream.state() for kind, stream in self._streams.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Restore a watch from its `state`; it continues exactly as the original would.

        Raises:
            BundleError: `state` is not the state of a watch.
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
        rate = f"false-alarm rate at most {100 * self.rate:g} %"
        return f"Watch for drift, {rate}{thinned}. {'; '.join(parts)}."

    def _warn(self, kind: Kind, reach: int) -> None:
        warnings.warn(
            f"{_counted(kind)} up to {reach} apart agree more often than by chance, so they "
            "depend on each other, and false alarms may exceed the stated rate. Start a new "
            f"watch with every={reach + 1} or more, which uses only answers that far apart.",
            DependenceWarning,
            stacklevel=3,
        )

    def _alarm(self, kind: Kind, found: Crossing) -> Alarm:
        whole = self._streams[kind].tally.whole
        names = self.reference.names if kind == "exit mix" else ("agreement", "disagreement")
        shares = (found.upto - found.since) / (found.upto - found.since).sum()
        spread = np.sqrt(whole * (1 - whole)) + 1 / found.upto.sum()
        # If two shares changed equally, like agreement and disagreement, the last one is named.
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
                f"exits must be a 1-D array of whole numbers in {known.tolist()}, the exits that "
                f"can fire under this policy; got {given.dtype} {given.shape} with "
                f"{wrong.ravel()[:3].tolist()}. For another policy, start a new watch."
            )
        return np.searchsorted(known, given).astype(np.int64)

    def _shadows(self, disagree: ArrayLike) -> NDArray[np.int64]:
        if "disagreement" not in self._streams:
            raise PlanError(
                "the answers of a regression hardly ever agree exactly, so disagreement is not "
                "watched. Leave disagree out."
            )
        given = np.atleast_1d(np.asarray(disagree))
        if given.ndim != 1 or not np.isin(given, (0, 1)).all():
            raise ShapeError(
                "disagree must be a 1-D array of booleans, one per shadow answer; got "
                f"{given.dtype} {given.shape}."
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
    """Start a watch for drift in the answers of a policy.

    Args:
        reference: Outputs on the samples that the policy was calibrated on, or similar ones. The
            test accounts for their number. Of samples that share an id or a cluster, at most one is
            used.
        policy: The policy that gives the answers.
        rate: Probability (0 to 1) of any false alarm, however long the stream.
        every: Use only every k-th answer, if answers closer than k depend on each other, like
            frames of a video.
        seed: Seed for breaking ties, and for choosing the reference samples that place bets.

    Raises:
        ShapeError: The policy is for other exits.
        DataError: There are fewer than 100 independent reference samples, or no early exit is
            enabled.
        PlanError: `rate` is not a probability, or `every` is below 1.
    """
    check_outputs(reference, "reference")
    check_policy(policy)
    _check_settings(rate, every)
    check_seed(seed)
    placing, of_mix, of_disagreement = np.random.default_rng(seed).spawn(3)
    found = reference_of(reference, policy, placing)
    return Watch(found, rate, int(every), of_mix, of_disagreement)


def _check_settings(rate: float, every: int) -> None:
    if not isinstance(rate, Real) or not 0 < rate < 1:
        raise PlanError(
            f"rate={rate!r} is wrong: it is the probability of a false alarm, so it must be "
            "between 0 and 1."
        )
    if not isinstance(every, Integral) or every < 1:
        raise PlanError(
            f"every={every!r} is wrong: it must be a whole number, at least 1 (which uses all "
            "answers)."
        )


def _counted(kind: Kind) -> str:
    return "answers" if kind == "exit mix" else "shadow answers"
