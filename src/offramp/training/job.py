"""Job: what a call trains and on which data, checked, before anything is computed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from offramp.backbones.staged import StagedBackbone
from offramp.branches import BranchSpec
from offramp.data.augment import views_of
from offramp.data.samples import Samples
from offramp.doubts import doubts_of_labels, warn_of
from offramp.features import missing_bytes, sample_bytes
from offramp.multiexit.trial import Failed, Trial
from offramp.task import Task, num_answers
from offramp.training.checks import (
    Probes,
    Split,
    check_branches,
    check_device,
    check_inputs_present,
    check_split,
)
from offramp.training.mode import Needs
from offramp.training.objective import Objective
from offramp.training.settings import TrainSettings
from offramp.training.sweep import Sweep
from offramp.training.units import Recipe


@dataclass(frozen=True, eq=False)
class Job:
    """A call's trials and data, checked.

    Attributes:
        sweep: All trials, and which of them are known already.
        probes: Cost of each branch.
        recipe: How branches are built and trained.
    """

    backbone: StagedBackbone
    sweep: Sweep
    probes: Probes
    recipe: Recipe
    train: Split
    validation: Split

    @classmethod
    def of(
        cls,
        backbone: StagedBackbone,
        branches: Mapping[str, Sequence[BranchSpec]],
        train: Any,
        val: Any,
        *,
        settings: TrainSettings,
        task: Task,
        device: str,
        known: Iterable[Trial | Failed] = (),
    ) -> Self:
        """Check all arguments. Arguments and errors are those of `fit_branches`.

        Warns about training labels that look like a mistake.
        """
        objective = Objective(task, settings.regression_loss)
        place = check_device(device)
        probes = check_branches(backbone, branches, objective)
        sets = [
            check_split(data, what, backbone, objective)
            for what, data in (("training", train), ("validation", val))
        ]
        for split in sets:
            check_inputs_present(split, backbone, branches)
        outputs = num_answers(backbone.output_shape, task)
        recipe = Recipe(settings, task, outputs, str(place))
        if task == "classification":
            warn_of(doubts_of_labels(sets[0].targets.numpy(), outputs), stacklevel=4)
        sweep = Sweep.of(backbone.cuts, branches, settings, known)
        return cls(backbone, sweep, probes, recipe, *sets)

    @property
    def settings(self) -> TrainSettings:
        """How branches are trained."""
        return self.recipe.settings

    @property
    def device(self) -> torch.device:
        """Where taps are computed and branches trained."""
        return torch.device(self.recipe.device)

    @property
    def training_samples(self) -> Samples:
        """The samples that run through the backbone for training, or stored views of them."""
        augment, samples = self.settings.augment, self.train.samples
        return samples if augment is None else views_of(samples, augment)

    def needs(self, taps: Path, ahead: int) -> Needs:
        """Bytes that each mode would need.

        Existing caches are read only if the choice of the mode depends on them.

        Args:
            taps: Folder of caches; may be missing.
            ahead: Batches of taps that the fused mode may hold at once.
        """
        shapes = [shape for cut in self.sweep.cuts for shape in self.backbone.tap_shapes[cut]]
        num_params = sum(found.num_params for found in self.probes.values())
        samples = len(self.train.targets), len(self.validation.targets)
        stored = sample_bytes(self.backbone, self.sweep.cuts, self.settings.cache_dtype)
        needs = Needs.of(shapes, stored, num_params, samples, self.settings, ahead)
        if self.settings.how != "auto":
            return needs
        return replace(needs, there=needs.disk - self.missing_bytes(taps))

    def missing_bytes(self, taps: Path) -> int:
        """Bytes of the needed taps that a folder of caches does not hold yet."""
        return missing_bytes(
            self.backbone,
            self.training_samples,
            self.validation.samples,
            taps,
            cuts=self.sweep.needed,
            dtype=self.settings.cache_dtype,
            device=self.device,
        )
