"""Draws: calibration sets from a pool, with replacement, and what each method makes of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from offramp.calibration import calibrate
from offramp.errors import NoPolicyError
from offramp.outputs import ExitOutputs
from offramp.policy.promise import Method
from promises.pool import Pool, Thresholds
from promises.rivals import Replay, hoeffding_bentkus, in_sample_greedy

Clock = Callable[[], float]


@dataclass(frozen=True)
class Asked:
    """What a method is asked for.

    Attributes:
        method: `ltt` and `ucb` are offramp's, `hb` is plain fixed-sequence testing; `greedy` and
            `earlyon` promise nothing.
        delta: How often the promise may be broken; None for methods without one.
    """

    method: str
    max_drop: float
    delta: float | None


@dataclass(frozen=True)
class Task:
    """A few draws from one pool, for one process.

    Attributes:
        outputs: File of the pool's outputs.
        rows: Of each calibration set.
        draws: Their numbers, which with `seed` say what is drawn.
        max_drops: Asked for on every draw, together.
        methods: Each with a delta, or None where it knows none.
    """

    pool: str
    outputs: Path
    rows: int
    draws: tuple[int, ...]
    seed: int
    max_drops: tuple[float, ...]
    methods: tuple[tuple[str, float | None], ...]


@dataclass(frozen=True)
class Outcome:
    """What one asked came to on one draw; drop and saving are on the whole pool.

    Attributes:
        issued: Whether there is a policy with an early exit.
        samples: That carried the promise, where there is one.
    """

    asked: Asked
    issued: bool
    drop: float
    saved: float
    samples: int
    seconds: float


def outcomes(task: Task, clock: Clock = time.perf_counter) -> list[Outcome]:
    """Every asked on every draw of a task."""
    torch.set_num_threads(1)
    pool = _pool(task.pool, task.outputs)
    return [found for draw in task.draws for found in _of_draw(task, pool, draw, clock)]


def _of_draw(task: Task, pool: Pool, draw: int, clock: Clock) -> Iterator[Outcome]:
    rng = np.random.default_rng([task.seed, task.rows, draw])
    drawn = pool.draw(task.rows, rng)
    _ = drawn.scores, drawn.losses  # not part of anybody's time
    for method, delta in task.methods:
        started = clock()
        found = answered(method, delta, drawn, task.max_drops, draw)
        seconds = (clock() - started) / len(task.max_drops)
        for max_drop, (thresholds, samples) in found.items():
            judged = pool.judge(thresholds)
            issued = any(threshold is not None for threshold in thresholds)
            asked = Asked(method, max_drop, delta)
            yield Outcome(asked, issued, judged.drop, judged.saved, samples, seconds)


Answers = dict[float, tuple[Thresholds, int]]


def answered(
    method: str, delta: float | None, drawn: Pool, max_drops: Sequence[float], seed: int
) -> Answers:
    """Thresholds that a method chooses for each drop, and on how many samples it tested them."""
    if method == "greedy":
        return {drop: (in_sample_greedy(drawn, drop), 0) for drop in max_drops}
    if method == "hb":
        level = delta or 0.0
        return {drop: (hoeffding_bentkus(drawn, drop, level, seed), 0) for drop in max_drops}
    if method == "earlyon":
        exits, _, classes = drawn.outputs.outputs.shape
        replay = _replay(exits, classes)
        return {drop: (replay.calibrate(drawn, drop), 0) for drop in max_drops}
    return calibrated("ucb" if method == "ucb" else "ltt", delta or 0.0, drawn, max_drops, seed)


def calibrated(
    method: Method, delta: float, drawn: Pool, max_drops: Sequence[float], seed: int
) -> Answers:
    """What `calibrate` issues as a menu; no exit is enabled where it declines."""
    answers: Answers = dict.fromkeys(max_drops, ((None,) * drawn.num_early, 0))
    try:
        menu = calibrate(
            drawn.outputs,
            max_drop=tuple(max_drops),
            confidence=1 - delta,
            method=method,
            seed=seed,
        )
    except NoPolicyError:
        return answers
    for limit, policy in zip(menu.limits, menu, strict=True):
        answers[limit] = policy.thresholds, policy.promise.num_samples if policy.promise else 0
    return answers


@cache
def _pool(name: str, path: Path) -> Pool:
    return Pool(name, ExitOutputs.load(path))


@cache
def _replay(exits: int, classes: int) -> Replay:
    return Replay(exits, classes)


@dataclass(frozen=True)
class Tally:
    """What one asked came to over all draws of one size from a pool.

    Attributes:
        issued: Draws with a policy.
        broken: Draws with a policy whose drop on the pool is over the limit.
        drop: Mean over the policies issued, on the pool.
        saved: Mean over the policies issued, on the pool.
        samples: Median number that carried a promise.
        seconds: Mean of one call.
    """

    rows: int
    asked: Asked
    draws: int
    issued: int
    broken: int
    drop: float
    saved: float
    samples: int
    seconds: float


def tallied(rows: int, asked: Asked, found: Sequence[Outcome]) -> Tally:
    """Counts and means of one asked's outcomes."""
    issued = [each for each in found if each.issued]
    return Tally(
        rows,
        asked,
        len(found),
        len(issued),
        sum(each.drop > asked.max_drop for each in issued),
        float(np.mean([each.drop for each in issued])) if issued else 0.0,
        float(np.mean([each.saved for each in issued])) if issued else 0.0,
        int(np.median([each.samples for each in issued])) if issued else 0,
        float(np.mean([each.seconds for each in found])),
    )
