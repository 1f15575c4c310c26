"""Facts of a model for the half of the package that works without torch."""

from collections.abc import Iterator
from itertools import combinations

import torch

from offramp.answering import ExitFacts, InputFacts, ModelFacts, StageCosts
from offramp.answering.inputs import NONE, Numbers
from offramp.multiexit.absent import needed_inputs
from offramp.multiexit.costs import branch_flops
from offramp.multiexit.model import MultiExit
from offramp.spec import FINAL


def facts_of(model: MultiExit) -> ModelFacts:
    """What the model reads, where it answers, and what that costs."""
    backbone, known = model.backbone, model.info.inputs
    given = zip(backbone.inputs.names, backbone.input_shapes, backbone.input_dtypes, strict=True)
    return ModelFacts(
        task=model.task,
        inputs=tuple(
            InputFacts(
                name=name,
                shape=tuple(shape),
                dtype=_name(dtype),
                preprocess=known[place] if known else None,
            )
            for place, (name, shape, dtype) in enumerate(given)
        ),
        cuts=backbone.cuts,
        exits=(*_early(model), ExitFacts(name=FINAL, needs=_sorted(backbone.inputs.of_answer))),
        costs=tuple(
            StageCosts(without=_sorted(absent), flops=backbone.stage_flops(absent=absent))
            for absent in _answered(model)
        ),
        num_outputs=model.num_outputs,
        class_names=model.info.class_names,
    )


def _early(model: MultiExit) -> Iterator[ExitFacts]:
    several = len({trial.seed for trial in model.trials}) > 1
    for cut, trial in model.chosen.items():
        yield ExitFacts(
            name=cut,
            branch=f"{trial.label}{f' (seed {trial.seed})' if several else ''}",
            needs=_sorted(needed_inputs(model.backbone.inputs, cut, trial.spec)),
            flops=branch_flops(model.backbone, trial),
            predicts_error=trial.predicts_error,
        )


def _answered(model: MultiExit) -> Iterator[Numbers]:
    """No input, and then the sets of inputs that some exits can do without."""
    every = range(len(model.backbone.inputs.names))
    yield NONE
    for size in every[1:]:
        for absent in combinations(every, size):
            if model.exits_without(absent):
                yield frozenset(absent)


def _sorted(numbers: Numbers) -> tuple[int, ...]:
    return tuple(sorted(numbers))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).partition(".")[2]
