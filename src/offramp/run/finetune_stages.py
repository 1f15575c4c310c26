"""Stages of a finetuning: what each of them trains, on which samples, and where its state is."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from offramp.compute import torch_switches
from offramp.data.augment import Augment
from offramp.progress import Progress
from offramp.run.data import data_keys
from offramp.run.finetune_plan import FinetunePlan
from offramp.run.finetune_start import Start
from offramp.task import Measure
from offramp.training.finetune import Loader, run_epochs
from offramp.training.finetuner import DensityGoal, Finetuner, Stage, parts_to_train
from offramp.training.forecast import Clock
from offramp.training.lockstep import Workers
from offramp.training.objective import Objective
from offramp.training.pace import Pace, pace_of
from offramp.training.settings import StageSettings
from offramp.training.state import digest_of, path_for


@dataclass(frozen=True, eq=False)
class TrainingStage:
    """A stage of a finetuning.

    Attributes:
        name: `density` or `train`.
        settings: How it is trained.
        finetuner: The network, with the weights that it has when the stage is made.
        train: Samples to train on.
        validation: Samples to choose the weights by.
        state: File of its training state, which may be missing.
    """

    name: Stage
    settings: StageSettings
    finetuner: Finetuner
    train: Loader
    validation: Loader
    state: Path

    def run(self, workers: Workers, measure: Measure, progress: Progress) -> None:
        """Train to the end, from the state if there is one; see `run_epochs`."""
        samples = (self.train, self.validation)
        with torch_switches(deterministic=self.settings.deterministic):
            run_epochs(
                self.finetuner, *samples, self.settings, self.state, workers, measure, progress
            )

    def pace(self, clock: Clock) -> Pace:
        """Seconds for a sample, from a few batches, which change the network."""
        samples = (self.train, self.validation)
        with torch_switches(deterministic=self.settings.deterministic):
            return pace_of(self.finetuner, *samples, self.settings, clock)


def stages_of(plan: FinetunePlan, start: Start, work: Path, device: str) -> Iterator[TrainingStage]:
    """The stages of a plan, each made when the one before it has been trained.

    Args:
        plan: The plan.
        start: Its network, which moves to the device, and its data.
        work: Folder of the training states, which may be missing.
        device: cpu, cuda or mps.

    Raises:
        PlanError: The network has no layers of the kind that the plan trains.
    """
    network, keys = start.network, data_keys(start.splits)
    initial = digest_of(network.state_dict())
    network.to(device)
    given: dict[Stage, StageSettings | None] = {"density": plan.density, "train": plan.train}
    for name, settings in given.items():
        if settings is None:
            continue
        maps = name == "density"
        goal = DensityGoal() if maps else Objective(plan.task, plan.train.regression_loss)
        parts = parts_to_train(network, plan.trains)
        content = [
            *(name, plan.without_paths("json"), initial, device),
            *(keys["train"], keys["validation"]),
        ]
        yield TrainingStage(
            name,
            settings,
            Finetuner(network, parts, settings, goal, name),
            loader(start, "train", device, maps=maps, augment=settings.augment),
            loader(start, "validation", device, maps=maps),
            path_for(work, content),
        )


def loader(
    start: Start, split: str, device: str, *, maps: bool = False, augment: Augment | None = None
) -> Loader:
    """Samples of a split with their labels, or with their maps."""
    targets = None if maps else start.targets[split]
    return Loader(start.splits.named()[split], targets, torch.device(device), augment)
