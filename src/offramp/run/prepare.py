"""Prepare a plan: cut the backbone, load the data, and report all mistakes at once."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from offramp.backbones.finetuned import Finetuned, weights_digest
from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.backbones.zoo import build, describe
from offramp.compute import seeded
from offramp.data import DataSpec, PythonData, Samples, Splits
from offramp.data.chain import CHAINS
from offramp.errors import CutError, DataError, KindError, OfframpError, PlanError, ShapeError
from offramp.features.absent import lacking
from offramp.multiexit.trial import ModelInfo
from offramp.preprocess import SpectrogramPreprocess
from offramp.python_function import short_name
from offramp.run.data import RunData
from offramp.run.measure import answered
from offramp.run.plan import BackbonePlan, Plan
from offramp.run.rivals import check_rivals
from offramp.storage.atomic import sha256_of
from offramp.task import check_output_shape, num_answers, training_labels


@dataclass(frozen=True, eq=False)
class Prepared:
    """Backbone and data of a plan, checked before anything is trained.

    Attributes:
        backbone: The backbone, cut at the plan's places.
        splits: The data.
        info: Origin and meaning of the model to train.
    """

    backbone: StagedBackbone
    splits: Splits
    info: ModelInfo


T = TypeVar("T")


class Mistakes:
    """Collects the errors of steps that do not depend on each other."""

    def __init__(self) -> None:
        self.found: list[tuple[str, OfframpError]] = []

    def attempt(self, where: str, step: Callable[[], T]) -> T | None:
        """The result of a step, or None if it failed, which is kept."""
        try:
            return step()
        except OfframpError as error:
            self.found.append((where, error))
            return None

    def raise_if_any(self) -> None:
        """Raise a single error as it is, a branch's with its place, and several as one.

        Raises:
            OfframpError: A step failed.
        """
        if len(self.found) == 1:
            [(where, error)] = self.found
            if type(error) is ShapeError and where.startswith("branches."):
                raise ShapeError(f"{where}: {error}") from error  # it does not know its cut
            raise error
        if self.found:
            lines = [f"  {where}: {error}" for where, error in self.found]
            raise PlanError("\n".join([f"the plan has {len(lines)} mistakes:", *lines]))


def prepare_run(
    plan: Plan, backbone_file: str | None = None, data: RunData[Plan] | None = None
) -> Prepared:
    """Build, load and cut what a plan names.

    Args:
        plan: A plan that is valid by itself.
        backbone_file: `file.py:function` for a plan whose backbone is `python`.
        data: None loads what the plan names.

    Raises:
        OfframpError: A single mistake is raised as it is, several as one PlanError.
    """
    mistakes = Mistakes()
    module = mistakes.attempt("backbone", lambda: build_backbone(plan, backbone_file))
    source = data or RunData(plan)
    splits = mistakes.attempt("data", lambda: source.splits)
    backbone = None
    of_other_kind = any(isinstance(error, KindError) for _, error in mistakes.found)
    sample = None if of_other_kind else _sample(plan, splits)
    if module is not None and sample is not None:
        backbone = _cut_all(plan, module, sample, mistakes)
    if backbone is not None:
        _check_branches(plan, backbone, mistakes)
    if splits is not None and plan.train.augment is not None:
        mistakes.attempt("train.augment", partial(plan.train.augment.check_inputs, splits.inputs))
    if backbone is not None and splits is not None:
        _check_targets(plan, backbone, splits, mistakes)
        mistakes.attempt("data", partial(_check_apart, splits.calibration, splits.test))
        mistakes.attempt("data", partial(_check_complete, splits, backbone))
        sizes, images = plan.evaluate.rival_sizes, plan.evaluate.rival_images
        possible = partial(check_rivals, backbone.original, splits.train, sizes, images)
        mistakes.attempt("evaluate.rival_sizes", possible)
    mistakes.raise_if_any()
    if backbone is None or splits is None:
        raise PlanError("the plan gave neither a backbone nor an error; report this as a bug")
    info = ModelInfo(
        backbone_facts(plan.backbone, backbone_file), splits.inputs, splits.target_names
    )
    return Prepared(backbone, splits, info)


def _sample(plan: Plan, splits: Splits | None) -> tuple[torch.Tensor, ...] | None:
    """Sample inputs from the data, or from the plan if the data cannot be loaded.

    None if neither gives the shapes.
    """
    if splits is not None:
        return tuple(torch.zeros(1, *shape) for shape in splits.train.input_shapes)
    inputs = plan.data.inputs
    return tuple(torch.zeros(1, *each.shape) for each in inputs) if inputs else None


def _check_targets(
    plan: Plan, backbone: StagedBackbone, splits: Splits, mistakes: Mistakes
) -> None:
    """Check labels against task and outputs before anything is computed."""
    if plan.task != splits.task:
        error = PlanError(
            f"the plan's task is {plan.task}, but its data is for {splits.task}. Set `task: "
            f"{splits.task}`, or give other data."
        )
        mistakes.found.append(("task", error))
        return
    fits = partial(check_output_shape, backbone.output_shape, plan.task)
    mistakes.attempt("backbone", fits)
    labels = np.concatenate([samples.targets for samples in splits.named().values()])
    names, outputs = splits.target_names, num_answers(backbone.output_shape, plan.task)
    mistakes.attempt("data", partial(training_labels, labels, outputs, names, task=plan.task))


def _check_apart(calibration: Samples | None, test: Samples) -> None:
    """Refuse a test split that shares ids or all content with the calibration split."""
    if calibration is None:
        return
    fault = ""
    if calibration.ids is not None and test.ids is not None:
        shared = np.intersect1d(calibration.ids, test.ids)
        fault = f"share {len(shared)} ids, such as {shared[0]}" if len(shared) else ""
    elif np.array_equal(calibration.digests, test.digests):
        fault = "are the same"
    if fault:
        raise DataError(
            f"the calibration and the test samples {fault}, and what is calibrated on a sample "
            "cannot be tested on it. Put each sample into only one split; if samples have "
            "ids, give different samples different ids."
        )


def _check_complete(splits: Splits, backbone: StagedBackbone) -> None:
    """Refuse samples that the final exit, with which all others are compared, could not answer."""
    for name, samples in answered(splits).items():
        rows = lacking(samples.present, backbone.inputs.of_answer)
        if samples.present is None or rows is None:
            continue
        first = int(rows.argmax())
        absent = np.flatnonzero(~samples.present[first]).tolist()
        raise DataError(
            f"{int(rows.sum())} of {len(rows)} {name} samples, such as {samples.name_of(first)}, "
            f"lack {backbone.inputs.text(absent)}, but every exit, also the final one, has to "
            "answer the samples of this split. Leave these samples out of it, or put them into the "
            "training split; how exits answer without an input is measured by leaving it out of "
            "all test samples."
        )


def build_backbone(plan: Plan, backbone_file: str | None) -> nn.Module:
    """The plan's backbone, before it is cut."""
    wanted = plan.backbone
    return build(
        wanted.name,
        weights=wanted.weights,
        num_outputs=wanted.num_outputs,
        backbone_file=backbone_file,
        options=wanted.options,
        top=wanted.top,
    )


def backbone_facts(wanted: BackbonePlan, backbone_file: str | None) -> dict[str, Any]:
    """Origin of the backbone, as the manifest stores it: enough to build it without its weights."""
    facts: dict[str, Any] = {
        **wanted.model_dump(),
        "weights_sha256": weights_digest(wanted.weights),
    }
    if found := Finetuned.at(wanted.weights):
        top = None if found.top is None else found.top.model_dump()
        facts |= {"num_outputs": found.num_outputs, "options": {**found.options}, "top": top}
    if backbone_file is not None:
        facts["function"] = short_name(backbone_file)
        facts["file_sha256"] = sha256_of(Path(backbone_file.rpartition(":")[0]))
    return facts


def _places(plan: Plan) -> dict[str, str | Cut]:
    own = {name: Cut(name, given.after, given.taps) for name, given in plan.cuts.items()}
    named = {**describe(plan.backbone.name).cuts, **own}
    return {name: named.get(name, name) for name in plan.branches}


def _cut_all(
    plan: Plan, module: nn.Module, sample: tuple[torch.Tensor, ...], mistakes: Mistakes
) -> StagedBackbone | None:
    """Cut at every place. If that fails, report the wrong places and cut at the others."""
    places = _places(plan)
    unused = sorted(set(plan.cuts) - set(places))
    if unused:
        mistakes.found.append(("cuts", CutError(f"no branches are given for {unused}. Add some.")))
    divide = partial(cut, module, sample=sample, leaves=plan.leaves)
    try:
        return divide(list(places.values()))
    except OfframpError as error:
        if fault := _missing_inputs(plan, module, sample) or _wrong_channels(plan, module, sample):
            mistakes.found.append(("data", fault))
            return None
        alone = {
            name: mistakes.attempt(f"branches.{name}", partial(divide, [place]))
            for name, place in places.items()
        }
        good = [places[name] for name, backbone in alone.items() if backbone is not None]
        if len(good) == len(places):
            mistakes.found.append(("branches", error))
        return divide(good) if 0 < len(good) < len(places) else None


def _missing_inputs(
    plan: Plan, module: nn.Module, sample: tuple[torch.Tensor, ...]
) -> PlanError | None:
    """An error if the backbone needs more inputs than the data has, such as a sound."""
    arguments = inspect.signature(module.forward).parameters.values()
    names = [a.name for a in arguments if a.default is a.empty and a.kind is not a.VAR_POSITIONAL]
    if len(names) <= len(sample):
        return None
    shapes = ", ".join(str(tuple(each.shape[1:])) for each in sample)
    remedy = "give data that has every input"
    if getattr(plan.data, "sound", ...) is None:
        remedy = "set `data.sound` to a chain such as vggish, if each picture has a sound"
    return PlanError(
        f"the backbone reads {len(names)} inputs ({', '.join(names)}), and data of kind "
        f"{plan.data.kind!r} has {len(sample)}, of shape {shapes}. Choose a backbone for these, or "
        f"{remedy}."
    )


def _wrong_channels(
    plan: Plan, module: nn.Module, sample: tuple[torch.Tensor, ...]
) -> PlanError | None:
    """An error if the first convolution does not take the channels of a single input."""
    convolutions = (each for each in module.modules() if isinstance(each, nn.Conv2d))
    first = next(convolutions, None)
    if first is None or len(sample) != 1 or sample[0].shape[1] == first.in_channels:
        return None
    given, wanted = sample[0].shape[1], first.in_channels
    choose = f"hoose a backbone that reads {given}"
    remedy = _other_channels(plan.data, wanted)
    return PlanError(
        f"the data has inputs of {given} channel{'s' * (given != 1)}, and the backbone's first "
        f"convolution reads {wanted}. "
        + (
            f"{remedy}, or c{choose}."
            if remedy
            else f"C{choose}; data of kind {plan.data.kind!r} cannot be given {wanted}."
        )
    )


def _other_channels(data: DataSpec, wanted: int) -> str:
    """How to get this number of channels from data of this kind; empty if there is no way."""
    if isinstance(data, PythonData):
        return f"Prepare the data with {wanted} channel{'s' * (wanted != 1)}"
    if "channels" in type(data).model_fields and wanted in (1, 3):
        return f"Set `data.channels` to {wanted}, with as many numbers in `mean` and `std`"
    chain = getattr(data, "chain", None)
    if not isinstance(chain, SpectrogramPreprocess):
        return ""
    repeat, rest = divmod(wanted, len(chain.channels))
    name = next((name for name, each in CHAINS.items() if each == chain), None)
    own = f"Write out the chain that {name!r} names, with" if name else "Give `data.chain`"
    return f"{own} {wanted} channels" if rest else f"{own} `repeat: {repeat}`"


def _check_branches(plan: Plan, backbone: StagedBackbone, mistakes: Mistakes) -> None:
    for name in backbone.cuts:
        features = backbone.features(name)
        for spec in plan.branches[name]:
            with seeded("check"):
                outputs = num_answers(backbone.output_shape, plan.task)
                step = partial(spec.build, features, outputs)
                mistakes.attempt(f"branches.{name}.{spec.label()}", step)
