"""Checks of what a user asks to train, before anything is computed."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offramp.arguments import check_kind
from offramp.backbones.axes import check_taps
from offramp.backbones.staged import StagedBackbone, check_staged
from offramp.branches import BranchSpec, branch_kinds, key
from offramp.branches.kinds import check_spec
from offramp.branches.probe import Probe, probe_branch
from offramp.data import Samples, as_samples
from offramp.errors import CutError, DataError, PlanError
from offramp.features.absent import lacking
from offramp.features.source import check_shapes
from offramp.multiexit.absent import needed_inputs
from offramp.task import check_output_shape, check_task, num_answers, training_labels
from offramp.training.objective import Objective

Probes = Mapping[tuple[str, str], Probe]
"""Cost of each branch, by cut and label."""


@dataclass(frozen=True, eq=False)
class Split:
    """A data set that was checked, with its labels as targets (N,)."""

    what: str
    samples: Samples
    targets: Tensor


def check_device(name: str) -> torch.device:
    """Return the device of that name.

    Raises:
        PlanError: Torch does not know the device, or this machine does not have it.
    """
    check_kind(name, str, "device", "Give a name: cpu, cuda or mps.")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise PlanError(
            f"device={name!r} is not a device of torch. Use cpu, cuda or mps."
        ) from error
    found = {
        "cpu": True,
        "cuda": (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not found.get(device.type, False):
        here = [kind for kind, present in found.items() if present and kind != device.type]
        raise PlanError(f"device={name!r} is not available here. Available: {', '.join(here)}.")
    return device


def check_branches(
    backbone: StagedBackbone, branches: Mapping[str, Sequence[BranchSpec]], objective: Objective
) -> Probes:
    """Refuse branches that cannot be trained at this backbone's cuts; return the probe of each.

    Raises:
        PlanError: There are none, one is not a branch's settings, or two share a label.
        CutError: A cut is unknown, its tap is not a batch of samples or maps, or the backbone is
            not float32 at its edges and taps.
        ShapeError: A branch does not fit its tap, or the backbone's answer does not fit the task.
    """
    check_staged(backbone)
    check_task(objective.task)
    _check_precision(backbone)
    check_output_shape(backbone.output_shape, objective.task)
    _check_lists(backbone, branches)
    for cut, specs in branches.items():
        _check_cut(cut, backbone.cuts)
        for spec in specs:
            check_spec(spec)
    branch_kinds(dict.fromkeys(type(spec) for specs in branches.values() for spec in specs))
    for cut, specs in branches.items():
        _check_distinct(cut, specs)
    check_taps(backbone, branches)
    outputs = num_answers(backbone.output_shape, objective.task)
    return {
        (cut, spec.label()): probe_branch(spec, backbone.features(cut), outputs)
        for cut, specs in branches.items()
        for spec in specs
    }


def check_split(data: Any, what: str, backbone: StagedBackbone, objective: Objective) -> Split:
    """Check the data and return it with its targets.

    Raises:
        DataError: It is empty, or a label does not fit the task or the backbone's outputs.
        ShapeError: Its inputs are not of the shape that the backbone was cut for.
    """
    try:
        dataset = as_samples(data)
        outputs = num_answers(backbone.output_shape, objective.task)
        labels = training_labels(dataset.targets, outputs, task=objective.task)
    except DataError as error:
        raise DataError(f"the {what} data cannot be used: {error}") from error
    check_shapes(dataset.input_shapes, backbone.input_shapes)
    return Split(what, dataset, torch.from_numpy(labels))


def check_inputs_present(
    split: Split, backbone: StagedBackbone, branches: Mapping[str, Sequence[BranchSpec]]
) -> None:
    """Refuse samples that lack an input without which a branch cannot answer.

    Raises:
        DataError: Names the first such branch, the input and a sample.
    """
    present, inputs = split.samples.present, backbone.inputs
    trials = [(cut, spec) for cut, specs in branches.items() for spec in specs]
    for cut, spec in trials:
        needed = needed_inputs(inputs, cut, spec)
        rows = lacking(present, needed)
        if present is None or rows is None:
            continue
        first = int(rows.argmax())
        absent = needed & set(np.flatnonzero(~present[first]).tolist())
        cure = "Give it absent='token', with which it learns to answer without the input, or leave"
        raise DataError(
            f"{int(rows.sum())} of {len(rows)} {split.what} samples, such as "
            f"{split.samples.name_of(first)}, lack {inputs.text(absent)}, and {spec.label()} at "
            f"{cut!r} refuses to answer without it. "
            f"{'Leave' if inputs.of_taps[cut][0] & absent else cure} these samples out."
        )


def _check_precision(backbone: StagedBackbone) -> None:
    other = sorted({str(d) for d in backbone.dtypes if d.is_floating_point and d != torch.float32})
    if other:
        raise CutError(
            f"the backbone reads or returns {', '.join(other)}, but branches train on float32. Cut "
            "model.float() with a float32 sample, or convert at the model's first and last layer."
        )


def _check_cut(cut: str, known: Sequence[str]) -> None:
    if cut in known:
        return
    near = difflib.get_close_matches(cut, known, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise CutError(
        f"branches are given for {cut!r}, where the backbone is not cut. {hint}"
        f"It is cut at {list(known)}."
    )


def _check_lists(backbone: StagedBackbone, branches: Mapping[str, Sequence[BranchSpec]]) -> None:
    if not isinstance(branches, Mapping):
        raise PlanError(
            f"branches are a {type(branches).__name__}, not a mapping from cuts to lists. Write "
            f"{{{backbone.cuts[0]!r}: [ConvBranch()]}}."
        )
    single = [cut for cut, specs in branches.items() if not isinstance(specs, list | tuple)]
    if single:
        raise PlanError(
            f"the branches at {single} are not a list. Write {{{single[0]!r}: [spec]}}."
        )
    empty = [cut for cut, specs in branches.items() if not specs]
    if empty or not branches:
        raise PlanError(
            f"no branches are given for {empty or 'any cut'}. Give at least one per cut, for "
            f"example {{{backbone.cuts[0]!r}: [ConvBranch()]}}."
        )


def _check_distinct(cut: str, specs: Sequence[BranchSpec]) -> None:
    """Refuse branches with equal labels, which name them in tables, or equal random streams."""
    keys = [key(spec) for spec in specs]
    labels = [spec.label() for spec in specs]
    twice = sorted({name for name, one in zip(labels, keys, strict=True) if keys.count(one) > 1})
    if twice:
        raise PlanError(
            f"the branches at {cut!r} name {', '.join(twice)} twice. To train one several times, "
            "give several seeds."
        )
    shared = sorted({name for name in labels if labels.count(name) > 1})
    if shared:
        raise PlanError(
            f"several branches at {cut!r} have the label {', '.join(shared)}, so tables could not "
            "tell them apart. They differ in a setting that has no effect there or that label() "
            "leaves out: give one of them, or extend label()."
        )
