"""Probe: build a branch once and check it before anything is trained."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from offramp.branches.dropout import own_dropout
from offramp.branches.kinds import BranchSpec, predicts_error
from offramp.branches.tap import Standardise, TapShapes, shapes_of
from offramp.compute import count_flops, count_params, seeded
from offramp.errors import OfframpError, PlanError, ShapeError
from offramp.spec import TapShape, dims


@dataclass(frozen=True)
class Probe:
    """Cost and needs of a branch.

    Attributes:
        num_params: Number of parameters.
        flops: FLOPs of one sample (2mac).
        standardised: Number of taps whose statistics it needs.
    """

    num_params: int
    flops: int
    standardised: int


def probe_branch(spec: BranchSpec, features: TapShapes, num_outputs: int) -> Probe:
    """Build the branch once, run it on two samples of zeros, and measure it.

    Raises:
        ShapeError: It does not fit the tap, or its answers are not (B, num_outputs).
        PlanError: It cannot be built or run, has nothing to train, or draws random numbers in a
            way that would make its weights depend on other branches.
    """
    shapes = shapes_of(features)
    try:
        with _numbers_of_torch_alone(spec), seeded("probe"), torch.no_grad():
            branch = spec.build(features, num_outputs)
            _check_module(spec, branch)
            answers = _answers(branch, shapes)
            found = Probe(
                count_params(branch), count_flops(branch, _zeros(shapes, 1)), _standardised(branch)
            )
            own_dropout(branch, torch.Generator())
            before = torch.get_rng_state()
            branch.train()(*_zeros(shapes, 2))
            drew = not torch.equal(before, torch.get_rng_state())
    except OfframpError:
        raise
    except Exception as error:
        raise PlanError(
            f"{spec.label()} cannot be built or run on taps of {_readable(shapes)}: "
            f"{type(error).__name__}: {str(error).rstrip('.')}. Change its settings or its class, "
            "or cut elsewhere."
        ) from error
    _check_answers(spec, answers, num_outputs + predicts_error(spec), shapes)
    if drew:
        raise PlanError(
            f"{spec.label()} draws from torch's global random generator in training, so its "
            "weights would depend on the branches beside it and a resumed run would differ. Use "
            "nn.Dropout, which gets a random stream of its own, and no other random layer."
        )
    if found.standardised not in (0, len(shapes)):
        raise PlanError(
            f"{spec.label()} has {found.standardised} Standardise modules for {len(shapes)} "
            "taps. Give it one for each tap, in the order of the taps, or none."
        )
    return found


@contextmanager
def _numbers_of_torch_alone(spec: BranchSpec) -> Iterator[None]:
    """Refuse draws from the global generators of Python and numpy, which nothing seeds."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    before = _global_states()
    try:
        yield
        drawn = [name for name, state in _global_states().items() if state != before[name]]
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
    if drawn:
        raise PlanError(
            f"{spec.label()} draws from {' and '.join(drawn)}'s global random generator, which "
            "nothing seeds, so a resumed run would differ. Use nn.Dropout in training, and torch "
            "for initial weights."
        )


def _global_states() -> dict[str, object]:
    """States of both generators in a form that can be compared."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {"Python": random.getstate(), "numpy": (name, np.asarray(keys).tobytes(), *rest)}


def _answers(branch: nn.Module, shapes: tuple[TapShape, ...]) -> Tensor:
    answers: Tensor = branch.eval()(*_zeros(shapes, 2))
    return answers


def _zeros(shapes: tuple[TapShape, ...], count: int) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(count, *dims(shape)) for shape in shapes)


def _standardised(branch: nn.Module) -> int:
    return sum(isinstance(part, Standardise) for part in branch.modules())


def _check_module(spec: BranchSpec, branch: object) -> None:
    if not isinstance(branch, nn.Module):
        raise PlanError(
            f"{spec.label()}: build() gives a {type(branch).__name__}. Return an nn.Module."
        )
    if not any(weight.requires_grad for weight in branch.parameters()):
        raise PlanError(f"{spec.label()} has no weight to train. Its module needs parameters.")


def _check_answers(
    spec: BranchSpec, answers: object, columns: int, shapes: tuple[TapShape, ...]
) -> None:
    found = tuple(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
    if found != (2, columns):
        raise ShapeError(
            f"{spec.label()} returns {found} for two samples of {_readable(shapes)}, but "
            f"must return (2, {columns}): one row per sample, one column per output"
            f"{', one more for its error predictor' if predicts_error(spec) else ''}. "
            "Change what build() returns."
        )


def _readable(shapes: tuple[TapShape, ...]) -> str:
    return ", ".join("x".join(map(str, dims(shape))) for shape in shapes)
