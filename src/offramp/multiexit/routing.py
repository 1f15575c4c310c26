"""Routing: samples pass the exits together, and each leaves at the first exit that fires."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.backbones.stage import Partly
from offramp.branches.predictor import score_of, surest
from offramp.compute.device import wait_for
from offramp.multiexit.absent import taps_without
from offramp.multiexit.answers import as_inputs, as_rows, columns, evaluating
from offramp.multiexit.model import MultiExit
from offramp.policy import ExitPolicy, find_score, leaving
from offramp.policy.scores import Floats, Seen, scaled
from offramp.spec import FINAL

Ints = NDArray[np.int64]


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


def full_network(model: MultiExit) -> ExitPolicy:
    """The policy under which every sample is answered by the last exit, and no branch runs."""
    score = find_score("max_softmax" if model.task == "classification" else "agreement")
    return ExitPolicy(score=score, thresholds=(None,) * len(model.chosen), names=model.names)


def rows_are_apart(model: MultiExit) -> bool:
    """Whether each sample is one row of every tensor at a cut, so that samples can be separated.

    That is not so if windows are folded into the batch axis, for example. Runs three samples.
    """
    one, two = _crossing(model, 1), _crossing(model, 2)
    return all(
        single[:1] == (1,) and double == (2, *single[1:])
        for single, double in zip(one, two, strict=True)
    )


def _crossing(model: MultiExit, num: int) -> list[tuple[int, ...]]:
    """Shapes of all tensors at the cuts, for this many samples of zeros."""
    backbone = model.backbone
    inputs = zip(backbone.input_shapes, backbone.input_dtypes, strict=True)
    live = tuple(torch.zeros(num, *s, dtype=dtype, device=model.device) for s, dtype in inputs)
    shapes: list[tuple[int, ...]] = []
    with torch.inference_mode():
        for stage in list(backbone.stages)[:-1]:
            live, _ = stage(live)
            shapes += [tuple(tensor.shape) for tensor in live]
    return shapes


def route(
    model: MultiExit,
    inputs: Partly,
    policy: ExitPolicy,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Route]:
    """Answer samples (B, ...) by a policy for exits of `model`; returns one entry for each.

    None in place of an input means that all samples lack it; the policy then names only exits that
    answer without it. A stage runs only on samples that have not left, and not at all once all have
    left. A branch runs only if the policy needs its answer.

    Raises:
        ShapeError: The inputs are of other shapes than the model's.
        DataError: A score is NaN.
    """
    num = next(len(each) for each in inputs if each is not None)
    walk = _Walk(model, policy, num, clock)
    with torch.inference_mode(), evaluating(walk.branches):
        live = as_inputs(model.backbone, inputs, model.device)
        exits = {name: number for number, name in enumerate(policy.names)}
        for name, stage in zip((*model.backbone.cuts, FINAL), model.backbone.stages, strict=True):
            live, taps = stage(live)
            exit = exits.get(name)
            staying = walk.past(exit, taps if name != FINAL else live)
            if not staying.any():
                break
            if not staying.all():
                rows = torch.from_numpy(staying).to(model.device)
                live = tuple(None if each is None else each[rows] for each in live)
    return walk.routes


class _Walk:
    """State of samples that pass the exits; `_rows` are those that have not left."""

    def __init__(
        self, model: MultiExit, policy: ExitPolicy, num: int, clock: Callable[[], float]
    ) -> None:
        self._model, self._policy, self._clock = model, policy, clock
        self._runs = policy.runs
        self._trials = [model.chosen[name] for name in policy.names if name != FINAL]
        self._wait = wait_for(model.device)
        self._found: list[Route | None] = [None] * num
        self._rows: Ints = np.arange(num)
        self._seen: list[Floats] = []  # what the exits that ran have answered for these rows
        self._spent: list[float] = []
        self._before = clock()

    @property
    def branches(self) -> list[nn.Module]:
        """The branches of the policy's exits."""
        return [trial.branch for trial in self._trials]

    @property
    def routes(self) -> list[Route]:
        """Routes of the samples, in order, after all have left."""
        return [found for found in self._found if found is not None]

    def past(self, exit: int | None, taps: Partly) -> NDArray[np.bool_]:
        """Let samples leave at the exit after a stage, if it has one; return which stay."""
        runs = exit is not None and self._runs[exit]
        if exit is None or not runs:
            self._stop_clock()
            return np.ones(len(self._rows), bool)
        outputs, scores = self._ask(exit, taps)
        self._stop_clock()
        left = leaving(scores[None], self._policy.thresholds[exit : exit + 1]) == 0
        for place in np.flatnonzero(left):
            row, score = int(self._rows[place]), float(scores[place])
            self._found[row] = Route(exit, outputs[place], score, tuple(self._spent))
        self._rows = self._rows[~left]
        self._seen = [answers[~left] for answers in self._seen]
        staying: NDArray[np.bool_] = ~left
        return staying

    def _ask(self, exit: int, taps: Partly) -> tuple[NDArray[np.float32], Floats]:
        """Answers (B, K) of an exit, and its scores (B,)."""
        task, policy = self._model.task, self._policy
        name, last = policy.names[exit], exit == len(policy.thresholds)
        own: Floats | None
        if name == FINAL:
            outputs = as_rows(columns(cast(Tensor, taps[0]), task))
            predicted = bool(self._trials) and all(t.predicts_error for t in self._trials)
            own = np.full(len(outputs), surest(task)) if predicted else None
        else:
            read = taps_without(self._model.backbone, name, taps)
            answer, prediction = self._trials[exit].answer(read)
            outputs = as_rows(answer)
            own = None if prediction is None else as_rows(score_of(prediction, task)).astype(float)
        self._seen.append(scaled(outputs, None if last else policy.temperatures, exit))
        return outputs, policy.score.at_exit(name, Seen(self._seen, own))

    def _stop_clock(self) -> None:
        """Record the time of a stage for each of its samples."""
        self._wait()
        now = self._clock()
        self._spent.append(1000 * (now - self._before) / len(self._rows))
        self._before = now
