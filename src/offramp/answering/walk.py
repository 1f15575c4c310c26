"""Walk: samples pass the exits together, and each leaves at the first exit that fires."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.policy import ExitPolicy, find_score
from offramp.policy.decision import leaving
from offramp.policy.scores import Floats, Seen, scaled
from offramp.task import Task

Asked = tuple[NDArray[np.float32], Floats | None]
"""Answers (B, K) of an exit, and the scores (B,) that its branch gives, if it does."""


@dataclass(frozen=True, eq=False)
class Route:
    """How one sample was answered.

    Attributes:
        exit: Number of the exit that answered, among those of the policy.
        outputs: Answer of that exit, (K,).
        score: Confidence of the answer, by the policy's score.
        stage_ms: Milliseconds of each stage that ran, with its branch; samples that ran together
            share the time equally.
    """

    exit: int
    outputs: NDArray[np.float32]
    score: float
    stage_ms: tuple[float, ...]


def full_network(task: Task, names: tuple[str, ...]) -> ExitPolicy:
    """The policy under which every sample is answered by the last exit, and no branch runs."""
    score = find_score("max_softmax" if task == "classification" else "agreement")
    return ExitPolicy(score=score, thresholds=(None,) * (len(names) - 1), names=names)


class Walk:
    """State of samples that pass the exits of a policy; those that have left are removed.

    Args:
        policy: The policy.
        num: Number of samples.
        clock: In seconds.
        wait: Waits for work that is queued on a device, before the clock is read.
    """

    def __init__(
        self,
        policy: ExitPolicy,
        num: int,
        clock: Callable[[], float],
        wait: Callable[[], object] = lambda: None,
    ) -> None:
        self._policy, self._clock, self._wait = policy, clock, wait
        self._runs = policy.runs
        self._found: list[Route | None] = [None] * num
        self._rows: NDArray[np.int64] = np.arange(num)
        self._seen: list[Floats] = []  # what the exits that ran have answered for these rows
        self._spent: list[float] = []
        self._before = clock()

    @property
    def routes(self) -> list[Route]:
        """Routes of the samples, in order, after all have left."""
        return [found for found in self._found if found is not None]

    def past(self, exit: int | None, ask: Callable[[], Asked]) -> NDArray[np.bool_]:
        """Let samples leave at the exit after a stage; return which stay, (B,).

        Args:
            exit: Number of the exit; None if the stage ends without one.
            ask: Runs its branch on the samples that have not left; called only if the policy needs
                its answers.

        Raises:
            DataError: A score is NaN.
        """
        if exit is None or not self._runs[exit]:
            self._stop_clock()
            return np.ones(len(self._rows), bool)
        outputs, own = ask()
        scores = self.scores(exit, outputs, own)
        self._stop_clock()
        left = leaving(scores[None], self._policy.thresholds[exit : exit + 1]) == 0
        for place in np.flatnonzero(left):
            row, score = int(self._rows[place]), float(scores[place])
            self._found[row] = Route(exit, outputs[place], score, tuple(self._spent))
        staying: NDArray[np.bool_] = ~left
        self._rows = self._rows[staying]
        self._seen = [answers[staying] for answers in self._seen]
        return staying

    def scores(self, exit: int, outputs: NDArray[np.float32], own: Floats | None) -> Floats:
        """Scores (B,) of the answers (B, K) of an exit, which count as seen from now on."""
        policy = self._policy
        last = exit == len(policy.thresholds)
        self._seen.append(scaled(outputs, None if last else policy.temperatures, exit))
        return policy.score.at_exit(policy.names[exit], Seen(self._seen, own))

    def _stop_clock(self) -> None:
        """Record the time of a stage for each of its samples."""
        self._wait()
        now = self._clock()
        self._spent.append(1000 * (now - self._before) / len(self._rows))
        self._before = now
