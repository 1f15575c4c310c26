"""Scores: the confidence of an exit, computed in float64 from the answers so far.

Larger scores mean more confidence. A score is a small function of the answers of all exits so far;
`Score("name", function)` makes a custom one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from offramp.arguments import check_kind
from offramp.errors import DataError, PlanError, ShapeError
from offramp.outputs import ExitOutputs
from offramp.task import Task

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What is known about N samples after an exit has answered.

    Attributes:
        outputs: Outputs of the exits up to this one, each (N, K) float64; the last are this exit's.
            Logits are already divided by the exit's temperature.
        given: (N,) scores of this exit from the engine, if it gives any.
    """

    outputs: Sequence[Floats]
    given: Floats | None


@dataclass(frozen=True)
class Score:
    """A confidence score.

    Attributes:
        name: Name in policies and files.
        at: Function that returns the scores (N,) of the exit that answered last.
        tasks: Tasks that it applies to.
        reads_earlier: Whether it needs the answers of earlier exits, so that their branches run
            even if those exits are disabled.
    """

    name: str
    at: Callable[[Seen], Floats]
    tasks: tuple[Task, ...] = ("classification",)
    reads_earlier: bool = False

    def __post_init__(self) -> None:
        if not callable(self.at):
            raise PlanError(
                f"the score {self.name!r} needs a function, got {self.at!r}. Give a function that "
                "takes a `Seen` and returns one number per sample."
            )

    def of(self, outputs: ExitOutputs, temperatures: Sequence[float] | None = None) -> Floats:
        """Scores (E - 1, N) of the early exits.

        Raises:
            PlanError: The score does not apply to the task, or needs scores that the outputs lack.
            DataError: A score is NaN.
            ShapeError: The function does not return one number per sample.
        """
        self.check_task(outputs.task)
        early = len(outputs.names) - 1
        answered = [scaled(outputs.outputs[exit], temperatures, exit) for exit in range(early)]
        given = outputs.scores
        scores = np.empty((early, outputs.outputs.shape[1]))
        for exit in range(early):
            own = None if given is None else given[exit]
            scores[exit] = self.at_exit(outputs.names[exit], Seen(answered[: exit + 1], own))
        return scores

    def check_task(self, task: Task) -> None:
        """Refuse a task that the score does not apply to.

        Raises:
            PlanError: It names the scores that do.
        """
        if task not in self.tasks:
            fitting = [score.name for score in SCORES.values() if task in score.tasks]
            raise PlanError(
                f"the score {self.name!r} is for {' and '.join(self.tasks)}, but these outputs are "
                f"of a {task}. Use one of {', '.join(fitting)}."
            )

    def at_exit(self, name: str, seen: Seen) -> Floats:
        """Scores (N,) of the exit of this name, which answered last.

        Raises:
            PlanError: It needs scores that the outputs lack.
            DataError: A score is NaN.
            ShapeError: The function does not return one number per sample.
        """
        found = np.asarray(self.at(seen), np.float64)
        expected = (len(seen.outputs[-1]),)
        if found.shape != expected:
            raise ShapeError(
                f"the score {self.name!r} returns shape {found.shape} at {name!r}, but it must "
                f"return one number per sample, shape {expected}. Correct its function."
            )
        if np.isnan(found).any():
            raise DataError(
                f"the score {self.name!r} is NaN for sample {int(np.isnan(found).argmax())} at "
                f"{name!r}, so it is undefined whether that exit fires. Correct its function."
            )
        return found


def scaled(outputs: NDArray[np.float32], temperatures: Sequence[float] | None, exit: int) -> Floats:
    """Outputs (..., K) of an early exit in float64, divided by its temperature if it has one."""
    return outputs.astype(np.float64) / (temperatures[exit] if temperatures else 1.0)


def softmax(logits: Floats) -> Floats:
    """Probabilities (N, K) from logits (N, K)."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def max_softmax(logits: NDArray[np.floating]) -> Floats:
    """The largest softmax probability, (..., N) in float64 from logits (..., N, K)."""
    wide = logits.astype(np.float64)
    top = wide.max(axis=-1, keepdims=True)
    largest: Floats = 1.0 / np.exp(wide - top).sum(axis=-1)
    return largest


def _max_softmax(seen: Seen) -> Floats:
    """The largest probability."""
    return max_softmax(seen.outputs[-1])


def _entropy(seen: Seen) -> Floats:
    """1 - H / log K: 0 for a uniform answer, 1 for a certain one."""
    shares = softmax(seen.outputs[-1])
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    rest: Floats = 1 + (shares * logs).sum(axis=-1) / np.log(max(shares.shape[-1], 2))
    return rest


def _margin(seen: Seen) -> Floats:
    """The largest probability minus the second largest."""
    shares = softmax(seen.outputs[-1])
    if shares.shape[-1] < 2:
        return np.ones(len(shares))
    second, first = np.partition(shares, -2, axis=-1)[:, -2:].T
    gap: Floats = first - second
    return gap


def _patience(seen: Seen) -> Floats:
    """Number of consecutive exits up to this one with the same class (Zhou et al. 2020)."""
    answers = [outputs.argmax(axis=-1) for outputs in seen.outputs]
    run = np.ones(len(answers[-1]))
    same = np.ones(len(run), bool)
    for earlier in reversed(answers[:-1]):
        same &= earlier == answers[-1]
        run += same
    return run


def _agreement(seen: Seen) -> Floats:
    """Minus the distance to the previous exit's value; minus infinity at the first exit."""
    if len(seen.outputs) == 1:
        return np.full(len(seen.outputs[0]), -np.inf)
    now, before = seen.outputs[-1][:, 0], seen.outputs[-2][:, 0]
    return -np.abs(now - before)


def _given(seen: Seen) -> Floats:
    """The score that comes with the outputs, such as that of a learned error predictor."""
    if seen.given is None:
        raise PlanError(
            "score='given' uses scores stored in the outputs, but these outputs have none. Train "
            "branches with error_predictor=True, or use another score, such as max_softmax."
        )
    return seen.given


_BOTH: tuple[Task, ...] = ("classification", "regression")
SCORES: Mapping[str, Score] = MappingProxyType(
    {
        score.name: score
        for score in (
            Score("max_softmax", _max_softmax),
            Score("entropy", _entropy),
            Score("margin", _margin),
            Score("patience", _patience, reads_earlier=True),
            Score("agreement", _agreement, ("regression",), reads_earlier=True),
            Score("given", _given, _BOTH),
        )
    }
)
"""All built-in scores by name."""


def score_for(outputs: ExitOutputs, score: str | Score | None) -> Score:
    """The score of that name, or the given Score itself; None takes the usual one.

    That is `max_softmax` for classes. Values do not say how sure they are, so a regression takes
    `given` if its outputs have scores of error predictors, and otherwise `agreement`.

    Raises:
        PlanError: As `find_score`.
    """
    if score is not None:
        return find_score(score)
    if outputs.task == "classification":
        return SCORES["max_softmax"]
    return SCORES["agreement" if outputs.scores is None else "given"]


def find_score(score: str | Score) -> Score:
    """Return the built-in score of that name, or the given Score itself.

    Raises:
        PlanError: The name is unknown, or a custom Score has the name of a built-in one, which a
            saved policy would load instead.
    """
    if isinstance(score, Score):
        if SCORES.get(score.name, score) != score:
            raise PlanError(
                f"the name {score.name!r} belongs to a built-in score, which a saved policy would "
                "load instead of yours. Rename your Score."
            )
        return score
    check_kind(score, str, "score", f"Give one of {', '.join(SCORES)}, or a Score.")
    if score not in SCORES:
        raise PlanError(
            f"there is no score {score!r}. Use one of {', '.join(SCORES)}, or pass a Score."
        )
    return SCORES[score]
