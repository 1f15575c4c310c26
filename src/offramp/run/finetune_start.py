"""What a finetuning starts from: network and data of its plan, checked before any training."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from offramp.backbones.finetuned import Finetuned, weights_digest
from offramp.backbones.top import put_top
from offramp.backbones.zoo import build, settled_options
from offramp.compute import rehearse, seeded
from offramp.data import Splits
from offramp.data.density import map_shape
from offramp.doubts import doubts_of_labels, warn_of
from offramp.errors import OfframpError, PlanError, ShapeError
from offramp.python_function import executed_once
from offramp.run.data import RunData
from offramp.run.finetune_plan import FinetunePlan
from offramp.run.prepare import Mistakes, backbone_facts
from offramp.task import check_output_shape, num_answers, training_labels


@dataclass(frozen=True, eq=False)
class Start:
    """A network with its first weights, and data for it.

    Attributes:
        network: On the CPU.
        num_outputs: Of the network.
        facts: What builds the network again, as `Finetuned` reads it, and where it is from.
        targets: Labels of each split, by its name.
        warnings: What is kept with everything measured on the data.
    """

    network: nn.Module
    num_outputs: int
    splits: Splits
    facts: dict[str, Any]
    targets: dict[str, Tensor]
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls, plan: FinetunePlan, data: RunData[FinetunePlan], backbone_file: str | None
    ) -> "Start":
        """Build and load what a plan names.

        Raises:
            OfframpError: A single mistake is raised as it is, several as one PlanError.
        """
        mistakes = Mistakes()
        with executed_once():
            splits = mistakes.attempt("data", lambda: data.splits)
            if splits is None:  # without data the outputs of the network are not known
                mistakes.attempt("backbone", lambda: weights_digest(plan.backbone.weights))
                mistakes.raise_if_any()
                raise PlanError("the plan gave neither data nor an error; report this as a bug")
            outputs = mistakes.attempt("backbone", lambda: _num_outputs(plan, splits))
            mistakes.raise_if_any()
            return _started(plan, splits, outputs or 0, backbone_file)


def _started(plan: FinetunePlan, splits: Splits, outputs: int, backbone_file: str | None) -> Start:
    network = _network(plan, outputs, backbone_file)
    mistakes = Mistakes()
    mistakes.attempt("backbone", partial(_check_answer, plan, network, splits, outputs))
    targets = mistakes.attempt("data", lambda: _targets(plan, splits, outputs))
    if plan.density is not None:
        mistakes.attempt("density", partial(_check_density, network, splits))
    mistakes.raise_if_any()
    doubts: tuple[str, ...] = ()
    if plan.task == "classification" and targets is not None:
        doubts = doubts_of_labels(targets["train"].numpy(), outputs, splits.target_names)
        warn_of(doubts, stacklevel=4)
    facts = {**backbone_facts(plan.backbone, backbone_file), **_architecture(plan, outputs)}
    return Start(network, outputs, splits, facts, targets or {}, (*splits.warnings, *doubts))


def _num_outputs(plan: FinetunePlan, splits: Splits) -> int:
    """Outputs of the network, as the data says."""
    if plan.task != splits.task:
        raise PlanError(
            f"the plan's task is {plan.task}, but its data is for {splits.task}. Set `task: "
            f"{splits.task}`, or give other data."
        )
    wanted = 1
    if plan.task == "classification":
        largest = max(int(np.max(s.targets)) for s in splits.named().values())
        wanted = len(splits.target_names) or largest + 1
    asked = plan.backbone.num_outputs
    if asked is not None and asked != wanted:
        what = f"{wanted} classes" if plan.task == "classification" else "one value per sample"
        raise PlanError(
            f"backbone.num_outputs is {asked}, but the data has {what}. Leave num_outputs out."
        )
    return wanted


def _network(plan: FinetunePlan, outputs: int, backbone_file: str | None) -> nn.Module:
    """The network with its weights at the start, and with a new top if the plan has one."""
    start, top = plan.backbone, plan.top
    settings: dict[str, Any] = {
        "weights": start.weights,
        "options": start.options,
        "backbone_file": backbone_file,
        "seed": plan.train.seed,
    }
    if top is None:
        return build(start.name, num_outputs=start.num_outputs, **settings)
    if Finetuned.at(start.weights) is None:
        return build(start.name, num_outputs=outputs, top=top, **settings)
    network = build(start.name, **settings)
    with seeded("top", plan.train.seed):
        put_top(network, top, outputs)
    return network


def _architecture(plan: FinetunePlan, outputs: int) -> dict[str, Any]:
    """What builds the network again without its weights."""
    start = plan.backbone
    earlier = Finetuned.at(start.weights)
    options = settled_options(start.name, start.weights, start.options)
    facts: dict[str, Any] = {
        "weights": start.weights,
        "num_outputs": start.num_outputs,
        "options": options,
        "top": None,
    }
    if earlier is not None:
        top = earlier.top and earlier.top.model_dump()
        facts |= {
            "weights": earlier.weights,
            "options": {**earlier.options},
            "num_outputs": earlier.num_outputs,
            "top": top,
        }
    if plan.top is not None:
        facts |= {"num_outputs": outputs, "top": plan.top.model_dump()}
    return facts


def _check_answer(plan: FinetunePlan, network: nn.Module, splits: Splits, outputs: int) -> None:
    shape = _shape(network, splits)
    check_output_shape(shape, plan.task)
    found = num_answers(shape, plan.task)
    if found != outputs:
        raise PlanError(
            f"{plan.backbone.name} has {found} outputs, but the data has {outputs} classes. Leave "
            f"`top` out for a new top with {outputs} outputs, or set backbone.num_outputs to "
            f"{outputs}."
        )


def _shape(network: nn.Module, splits: Splits, method: str = "forward") -> tuple[int, ...]:
    """Shape of what a method of the network gives for one sample."""
    sample = tuple(torch.zeros(1, *shape) for shape in splits.train.input_shapes)

    def run(twin: nn.Module, inputs: tuple[Any, ...]) -> tuple[int, ...]:
        return tuple(getattr(twin, method)(*inputs).shape[1:])

    try:
        return rehearse(network, sample, run)
    except OfframpError:
        raise
    except Exception as error:
        shapes = [tuple(shape) for shape in splits.train.input_shapes]
        raise ShapeError(
            f"{type(network).__name__} cannot take samples of shape {shapes}: "
            f"{type(error).__name__}: {error}. Prepare the data for it, or choose another network."
        ) from error


def _check_density(network: nn.Module, splits: Splits) -> None:
    if not callable(getattr(network, "density", None)):
        raise PlanError(
            "density trains only networks with a method `density` that returns density maps, such "
            f"as paper:audiocsrnet, and {type(network).__name__} has no such method. Leave "
            "`density` out."
        )
    found = _shape(network, splits, "density")
    for name in ("train", "validation"):
        given = map_shape(splits.named()[name])
        if found != (1, *given):
            raise ShapeError(
                f"the density maps of the {name} data are {given} (height, width), but the network "
                f"gives {found} (channels, height, width). Resize the maps, keeping their sums."
            )


def _targets(plan: FinetunePlan, splits: Splits, outputs: int) -> dict[str, Tensor]:
    names: Sequence[str] = splits.target_names
    return {
        name: torch.from_numpy(training_labels(samples.targets, outputs, names, task=plan.task))
        for name, samples in splits.named().items()
    }
