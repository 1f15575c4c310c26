"""The work that `training.py` times: twelve branches in each mode, in this process."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from offramp.allocator import keep_freed_memory
from offramp.backbones.staged import StagedBackbone, cut
from offramp.backbones.zoo import build
from offramp.branches import BranchSpec, ConvBranch, SLViT
from offramp.compute import torch_switches
from offramp.data import FashionMNIST, Samples
from offramp.features import FeatureCache, start_executor
from offramp.features.source import TapSource
from offramp.training import fit_branches
from offramp.training.learner import Learner, TrialName
from offramp.training.lockstep import JUDGE_BATCH_SIZE, epoch_order
from offramp.training.settings import TrainSettings
from offramp.training.units import Recipe

BRANCHES: dict[str, list[BranchSpec]] = {
    "blocks.1.1": [
        SLViT(patch=4, dim=32, heads=12, standardise=True),
        ConvBranch(standardise=True),
    ],
    "blocks.4.1": [
        SLViT(patch=1, dim=16, heads=4, standardise=True),
        ConvBranch(standardise=True),
    ],
}
CPU = torch.device("cpu")
SEEDS = (0, 1, 2)
BATCH, LR = 64, 1e-3
Clock = Callable[[], float]
Pictures = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Work:
    """How much one process trains, and how.

    Attributes:
        share: Which of the branches naive trains: the first, and every how many from there.
    """

    mode: str
    images: int
    judged: int
    epochs: int
    threads: int
    share: tuple[int, int] = (0, 1)


@dataclass(frozen=True)
class Trained:
    """What came of one process.

    Attributes:
        seconds_per_image: Through all twelve branches, validation included.
        preparing: Seconds for extraction (cached) or statistics (fused).
        first_losses: Mean training loss of the first epoch, per branch.
        accuracies: On the validation images after the last epoch, per branch.
    """

    seconds_per_image: float
    preparing: float
    first_losses: list[float]
    accuracies: list[float]


def train(work: Work, clock: Clock = time.perf_counter) -> Trained:
    """Train branches in one mode, in this process."""
    keep_freed_memory()
    with torch_switches(threads=work.threads), tempfile.TemporaryDirectory() as folder:
        backbone, pictures, validation = material(work.images, work.judged)
        how = one_by_one if work.mode == "naive" else all_at_once
        return how(backbone, pictures, validation, work, Path(folder), clock)


def material(images: int, judged: int) -> tuple[StagedBackbone, Pictures, Pictures]:
    """The shipped backbone, cut, with pictures to train on and others to judge with."""
    splits = FashionMNIST(image_size=112).load()
    backbone = cut(build("offramp:demo"), list(BRANCHES), torch.zeros(1, 3, 112, 112))
    return backbone, _in_memory(splits.train, images), _in_memory(splits.validation, judged)


def _in_memory(samples: Samples, count: int) -> Pictures:
    some = samples.sample(count, seed=0)
    batch = some.read(range(len(some)))
    return batch.inputs[0], batch.targets


def all_at_once(
    backbone: StagedBackbone,
    pictures: Pictures,
    validation: Pictures,
    work: Work,
    folder: Path,
    clock: Clock,
) -> Trained:
    """`fit_branches`, timed by what it reports."""
    events: list[tuple[str, float]] = []
    model = fit_branches(
        backbone,
        BRANCHES,
        pictures,
        validation,
        seeds=SEEDS,
        out=folder,
        threads=work.threads,
        tensorboard=False,
        progress=lambda what, *_: events.append((what, clock())),
        how=work.mode,  # type: ignore[arg-type]
        epochs=work.epochs,
        batch_size=BATCH,
        lr=LR,
    )
    began = next(index for index, (what, _) in enumerate(events) if "epoch" in what)
    return Trained(
        (events[-1][1] - events[began][1]) / (work.epochs * work.images),
        events[began][1] - events[0][1],
        [trial.history[0].train_loss for trial in model.trials],
        [trial.history[-1].validation_score for trial in model.trials],
    )


def one_by_one(
    backbone: StagedBackbone,
    pictures: Pictures,
    validation: Pictures,
    work: Work,
    folder: Path,
    clock: Clock,
) -> Trained:
    """One branch after the other, each with the backbone to itself, torch's threads within."""
    cache = FeatureCache.of(backbone, pictures, folder, threads=work.threads)
    seconds, losses, accuracies = 0.0, [], []
    first, step = work.share
    names = [TrialName(c, s, k) for c, specs in BRANCHES.items() for s in specs for k in SEEDS]
    with start_executor(work.threads, CPU) as executor:
        torch.set_num_threads(work.threads)  # for this mode alone; the switches are put back
        for name in names[first::step]:
            source = TapSource.of(backbone, (name.cut,), CPU, executor)
            learner = make(backbone, name, cache)
            seconds += alone(learner, source, pictures, validation, work.epochs, clock)
            losses.append(learner.history[0].train_loss)
            accuracies.append(learner.history[-1].validation_score)
    return Trained(seconds, 0.0, losses, accuracies)


def make(backbone: StagedBackbone, name: TrialName, cache: FeatureCache) -> Learner:
    """A learner as `fit_branches` makes it."""
    settings = TrainSettings(batch_size=BATCH, lr=LR)
    recipe = Recipe(settings, "classification", backbone.num_outputs, "cpu")
    return recipe.learner(name, backbone.features(name.cut), cache.statistics(name.cut))


def alone(
    learner: Learner,
    source: TapSource,
    pictures: Pictures,
    validation: Pictures,
    num_epochs: int,
    clock: Clock,
) -> float:
    """Train one branch; seconds per image of its epochs."""
    images, labels = pictures
    steps = -(-len(labels) // BATCH)
    started = clock()
    for epoch in range(1, num_epochs + 1):
        learner.begin_epoch()
        order = torch.from_numpy(epoch_order(len(labels), 0, epoch))
        for step, rows in enumerate(torch.split(order, BATCH)):
            learner.learn(taps(source, images[rows]), labels[rows], (epoch - 1) * steps + step)
        for inputs, targets in zip(
            *(torch.split(values, JUDGE_BATCH_SIZE) for values in validation), strict=True
        ):
            learner.judge(taps(source, inputs), targets)
        learner.end_epoch()
    return (clock() - started) / (num_epochs * len(labels))


def taps(source: TapSource, images: Tensor) -> tuple[Tensor, ...]:
    """Taps at the source's only cut, fit to train on."""
    [found] = source.taps((images,)).values()
    return tuple(tap.clone() for tap in found)  # out of inference mode
