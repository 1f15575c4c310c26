"""Routing: samples pass the exits together, and each leaves at the first exit that fires."""

import time
from collections.abc import Callable
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from offramp.answering import Asked, Route, Walk
from offramp.backbones.stage import Partly
from offramp.branches.predictor import score_of
from offramp.compute.device import wait_for
from offramp.multiexit.absent import taps_without
from offramp.multiexit.answers import as_inputs, as_rows, columns, evaluating
from offramp.multiexit.model import MultiExit
from offramp.policy import ExitPolicy
from offramp.spec import FINAL
from offramp.task import surest


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
    trials = [model.chosen[name] for name in policy.names if name != FINAL]
    predicts = bool(trials) and all(trial.predicts_error for trial in trials)
    walk = Walk(policy, num, clock, wait_for(model.device))
    with torch.inference_mode(), evaluating([trial.branch for trial in trials]):
        live = as_inputs(model.backbone, inputs, model.device)
        exits = {name: number for number, name in enumerate(policy.names)}
        for name, stage in zip((*model.backbone.cuts, FINAL), model.backbone.stages, strict=True):
            live, taps = stage(live)
            if name == FINAL:
                staying = walk.past(exits.get(name), partial(_final, model, live, predicts))
            else:
                staying = walk.past(exits.get(name), partial(_asked, model, name, taps))
            if not staying.any():
                break
            if not staying.all():
                rows = torch.from_numpy(staying).to(model.device)
                live = tuple(None if each is None else each[rows] for each in live)
    return walk.routes


def _asked(model: MultiExit, name: str, taps: Partly) -> Asked:
    """What the branch at a cut answers."""
    answer, prediction = model.chosen[name].answer(taps_without(model.backbone, name, taps))
    own = None if prediction is None else as_rows(score_of(prediction, model.task)).astype(float)
    return as_rows(answer), own


def _final(model: MultiExit, live: Partly, predicts: bool) -> Asked:
    """What the network itself answers; where branches score their answers, it is the surest."""
    outputs = as_rows(columns(cast(Tensor, live[0]), model.task))
    return outputs, np.full(len(outputs), surest(model.task)) if predicts else None
