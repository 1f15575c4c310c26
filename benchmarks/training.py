"""How fast do many branches train on one frozen backbone? Three ways, compared in one run.

    python benchmarks/training.py [--smoke] [--rounds 5] [--threads N] [--json PATH]

Twelve branches on the shipped backbone at 112 px: a CNN branch and an SL-ViT at blocks.1.1 (patch
4, dim 32, heads 12) and at blocks.4.1 (patch 1, dim 16, heads 4), three seeds each, batches of 64.

- naive: one branch at a time; each step runs the backbone up to that branch's tap. It has the same
  allocator, the same folded backbone, the same branches, and as many torch threads as the others
  have workers.
- fused: `fit_branches(how="fused")`, one pass of the backbone per batch for all branches.
- cached: `fit_branches(how="cached")`, taps read from disk; the time of their extraction is beside.

Reported are images per second through all twelve branches while they train (from the start of each
epoch to its last step, without validation), in new processes that take turns, and the median over
the rounds of each way / naive. Accuracy and first losses of 3 epochs on 2,000 images come from
the same calls; random streams are equal, so they should differ by rounding alone. Below a goal the
exit code is 1. What the time goes into, one core at a time, is listed at the end.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from processes import in_new_process
from torch import Tensor

from offramp.allocator import keep_freed_memory
from offramp.backbones.staged import StagedBackbone, cut
from offramp.backbones.zoo import build
from offramp.branches import BranchSpec, ConvBranch, SLViT
from offramp.compute import seeded, torch_switches
from offramp.data import FashionMNIST, Samples
from offramp.features import FeatureCache, start_executor
from offramp.features.source import TapSource
from offramp.machine import environment
from offramp.training import fit_branches
from offramp.training.learner import Learner, TrialName
from offramp.training.lockstep import JUDGE_BATCH_SIZE, epoch_order
from offramp.training.objective import Objective
from offramp.training.settings import TrainSettings
from offramp.training.supply import StoredSupply

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
WAYS = ("naive", "fused", "cached")
SHORT = {"naive": 640, "fused": 1920, "cached": 1920}  # images of the rounds after the first
FLOORS = {"fused": 4.0, "cached": 5.5}
GOALS = {"fused": 4.5, "cached": 6.5}
Clock = Callable[[], float]
Pictures = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """How much one process trains, and how."""

    way: str
    images: int
    epochs: int
    threads: int


@dataclass(frozen=True)
class Trained:
    """What came of one process.

    Attributes:
        seconds_per_image: Through all twelve branches, while they train.
        preparing: Seconds for extraction (cached) or statistics (fused).
        first_losses: Mean training loss of the first epoch, per branch.
        accuracies: On the validation images after the last epoch, per branch.
    """

    seconds_per_image: float
    preparing: float
    first_losses: list[float]
    accuracies: list[float]


def main() -> int:
    """Run all three ways in turns, print what came out, write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="few images, one round, no verdict")
    parser.add_argument("--rounds", type=int, default=5, help="new processes for each way")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    if args.rounds < 1 or args.threads < 1:
        parser.error("--rounds and --threads must be at least 1")

    whole = (256, 2) if args.smoke else (2000, 3)
    full = {way: in_new_process(train, Task(way, *whole, args.threads)) for way in WAYS}
    rounds = [
        {way: in_new_process(train, Task(way, SHORT[way], 1, args.threads)) for way in turn}
        for turn in turns(0 if args.smoke else args.rounds - 1)
    ]
    parts = in_new_process(one_core_parts, args.threads)
    result = judged([full, *rounds], parts)
    print(told(result, full, whole, args.threads))
    if args.json is not None:
        record = {
            "machine": environment("cpu", threads=torch.get_num_threads()),
            "smoke": args.smoke,
            "threads": args.threads,
            **result,
            "three epochs": {way: asdict(trained) for way, trained in full.items()},
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if args.smoke or result["goals reached"] else 1


def turns(count: int) -> list[Sequence[str]]:
    """The order of the ways in each further round; which one is first goes round."""
    return [WAYS[index % 3 :] + WAYS[: index % 3] for index in range(1, count + 1)]


def train(task: Task, clock: Clock = time.perf_counter) -> Trained:
    """Train the twelve branches in one way."""
    keep_freed_memory()
    with torch_switches(threads=task.threads), tempfile.TemporaryDirectory() as folder:
        backbone, pictures, validation = material(task.images)
        if task.way == "naive":
            return one_by_one(backbone, pictures, validation, task, Path(folder), clock)
        return all_at_once(backbone, pictures, validation, task, Path(folder), clock)


def material(images: int) -> tuple[StagedBackbone, Pictures, Pictures]:
    """The shipped backbone, cut, with pictures to train on and 1,000 others to judge with."""
    splits = FashionMNIST(image_size=112).load()
    backbone = cut(build("offramp:demo"), list(BRANCHES), torch.zeros(1, 3, 112, 112))
    pictures = _in_memory(splits.train, images)
    return backbone, pictures, _in_memory(splits.validation, min(images, 1000))


def _in_memory(samples: Samples, count: int) -> Pictures:
    some = samples.sample(count, seed=0)
    batch = some.read(range(len(some)))
    return batch.inputs[0], batch.targets


def all_at_once(
    backbone: StagedBackbone,
    pictures: Pictures,
    validation: Pictures,
    task: Task,
    folder: Path,
    clock: Clock,
) -> Trained:
    """`fit_branches`, timed by what it reports."""
    events: list[tuple[str, int, float]] = []
    model = fit_branches(
        backbone,
        BRANCHES,
        pictures,
        validation,
        seeds=SEEDS,
        out=folder,
        threads=task.threads,
        tensorboard=False,
        progress=lambda what, done, _: events.append((what, done, clock())),
        how=task.way,  # type: ignore[arg-type]
        epochs=task.epochs,
        batch_size=BATCH,
        lr=LR,
    )
    prepared = [at for what, _, at in events if "epoch" not in what]
    return Trained(
        sum(
            seconds_per_image(events, cuts)
            for cuts in {w.split(":")[0] for w, *_ in epochs(events)}
        ),
        prepared[-1] - prepared[0],
        [trial.history[0].train_loss for trial in model.trials],
        [trial.history[-1].validation_score for trial in model.trials],
    )


def epochs(events: Sequence[tuple[str, int, float]]) -> list[tuple[str, int, float]]:
    """Events of training steps."""
    return [event for event in events if ": epoch" in event[0]]


def seconds_per_image(events: Sequence[tuple[str, int, float]], cuts: str) -> float:
    """Seconds per image from the start of an epoch to its last step, at some cuts."""
    seconds, images = 0.0, 0
    for epoch in sorted({what for what, *_ in epochs(events) if what.startswith(cuts + ":")}):
        inside = [(done, at) for what, done, at in events if what == epoch]
        seconds += inside[-1][1] - inside[0][1]
        images += inside[-1][0] - inside[0][0]
    return seconds / images


def one_by_one(
    backbone: StagedBackbone,
    pictures: Pictures,
    validation: Pictures,
    task: Task,
    folder: Path,
    clock: Clock,
) -> Trained:
    """One branch after the other, each with the backbone to itself, torch's threads within."""
    cache = FeatureCache.of(backbone, pictures, folder, threads=task.threads)
    seconds, losses, accuracies = 0.0, [], []
    with start_executor(task.threads, CPU) as workers:
        torch.set_num_threads(task.threads)  # for this way alone; the switches are put back
        for cut_name, specs in BRANCHES.items():
            source = TapSource.of(backbone, (cut_name,), CPU, workers)
            for learner in (make(backbone, cut_name, s, k, cache) for s in specs for k in SEEDS):
                seconds += alone(learner, source, pictures, validation, task.epochs, clock)
                losses.append(learner.history[0].train_loss)
                accuracies.append(learner.history[-1].validation_score)
    return Trained(seconds, 0.0, losses, accuracies)


def make(
    backbone: StagedBackbone, cut_name: str, spec: BranchSpec, seed: int, cache: FeatureCache
) -> Learner:
    """A learner as `fit_branches` makes it."""
    name = TrialName(cut_name, spec, seed)
    with seeded(*name.stream, "init"):
        branch = spec.build(backbone.features(cut_name), backbone.num_outputs)
    mean, std = cache.statistics(cut_name)[0]
    branch.get_submodule("standardise").set_statistics(mean, std)  # type: ignore[operator]
    settings = TrainSettings(seeds=(seed,), batch_size=BATCH, lr=LR)
    return Learner(name, branch, settings, Objective("classification", "mae"))


def alone(
    learner: Learner,
    source: TapSource,
    pictures: Pictures,
    validation: Pictures,
    num_epochs: int,
    clock: Clock,
) -> float:
    """Train one branch; seconds per image of its epochs, without judging."""
    images, labels = pictures
    seconds = 0.0
    steps = -(-len(labels) // BATCH)
    for epoch in range(1, num_epochs + 1):
        started = clock()
        learner.begin_epoch()
        order = torch.from_numpy(epoch_order(len(labels), 0, epoch))
        for step, rows in enumerate(torch.split(order, BATCH)):
            learner.learn(taps(source, images[rows]), labels[rows], (epoch - 1) * steps + step)
        seconds += clock() - started
        for inputs, targets in zip(
            *(torch.split(values, JUDGE_BATCH_SIZE) for values in validation), strict=True
        ):
            learner.judge(taps(source, inputs), targets)
        learner.end_epoch()
    return seconds / (num_epochs * len(labels))


def taps(source: TapSource, images: Tensor) -> tuple[Tensor, ...]:
    """Taps at the source's only cut, fit to train on."""
    [found] = source.taps((images,)).values()
    return tuple(tap.clone() for tap in found)  # out of inference mode


def one_core_parts(threads: int, clock: Clock = time.perf_counter) -> dict[str, float]:
    """Milliseconds of each part of a step of 64 images on one core, alone."""
    del threads
    keep_freed_memory()
    backbone, pictures, _ = material(4 * BATCH)
    found: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        start_executor(1, CPU) as workers,
    ):
        cache = FeatureCache.of(backbone, pictures, folder, threads=1)
        source = TapSource.of(backbone, tuple(BRANCHES), CPU, workers)
        pieces = torch.split(pictures[0][:BATCH], source.batch_size)
        found["backbone to blocks.4.1"] = timed(
            lambda _: [source.taps((p,)) for p in pieces], clock
        )
        rows, targets = np.arange(BATCH), pictures[1][:BATCH]
        for cut_name, specs in BRANCHES.items():
            stored = cache.batch(cut_name, rows)
            read = partial(StoredSupply(cache, (cut_name,), pictures[1], CPU).read, rows)
            found[f"taps of {cut_name} read"] = timed(read, clock)
            for spec in specs:
                learner = make(backbone, cut_name, spec, 0, cache)
                step = partial(learner.learn, stored, targets)
                found[f"step of {spec.label()} at {cut_name}"] = timed(step, clock)
        square = torch.randn(2048, 2048)
        product_ms = timed(lambda _: square @ square, clock)
        found["product of 2048 x 2048 matrices, GFLOP/s"] = 2 * 2.048**3 / (product_ms / 1000)
    return found


def timed(call: Callable[[int], object], clock: Clock, repeats: int = 15) -> float:
    """Median milliseconds of a call."""
    seconds = []
    for number in range(repeats):
        started = clock()
        call(number)
        seconds.append(clock() - started)
    return 1000 * float(np.median(seconds[3:]))


def judged(rounds: Sequence[dict[str, Trained]], parts: dict[str, float]) -> dict[str, Any]:
    """Rates, ratios and whether they reach floor and goal."""
    rates = {way: [1 / each[way].seconds_per_image for each in rounds] for way in WAYS}
    ratios = {
        way: [a / b for a, b in zip(rates[way], rates["naive"], strict=True)] for way in GOALS
    }
    medians = {way: float(np.median(ratios[way])) for way in GOALS}
    return {
        "images per second": rates,
        "times naive": ratios,
        "median": medians,
        "floors reached": all(medians[way] >= FLOORS[way] for way in GOALS),
        "goals reached": all(medians[way] >= GOALS[way] for way in GOALS),
        "one core, ms per batch": parts,
    }


def told(
    result: dict[str, Any], full: dict[str, Trained], whole: tuple[int, int], threads: int
) -> str:
    """Lines for the terminal."""
    count, rounds = len(full["fused"].accuracies), len(result["times naive"]["fused"])
    lines = [f"images per second through {count} branches, median of {rounds} rounds"]
    for way in WAYS:
        rates = result["images per second"][way]
        line = f"  {way:7s} {np.median(rates):7.1f} ({min(rates):.1f} to {max(rates):.1f})"
        if way in GOALS:
            ratios = result["times naive"][way]
            line += (
                f"   {np.median(ratios):.2f} times naive ({min(ratios):.2f} to {max(ratios):.2f});"
                f" floor {FLOORS[way]}, goal {GOALS[way]}"
            )
        lines.append(line)
    lines.append(
        f"before training, {whole[0]} images: extraction {full['cached'].preparing:.1f} s, "
        f"statistics of the fused way {full['fused'].preparing:.1f} s"
    )
    lines.append(f"{whole[1]} epochs on {whole[0]} images, equal random streams")
    naive = full["naive"]
    for way in WAYS:
        trained = full[way]
        gap = max(
            abs(a - b) / b for a, b in zip(trained.first_losses, naive.first_losses, strict=True)
        )
        lines.append(
            f"  {way:7s} accuracy {100 * np.mean(trained.accuracies):.2f} %, first epoch's losses "
            f"within {gap:.1e} of naive"
        )
    return "\n".join([*lines, *profile(result["one core, ms per batch"], result, threads)])


def profile(parts: dict[str, float], result: dict[str, Any], threads: int) -> list[str]:
    """Where the time of the cached way goes, and so what keeps it below its goals."""
    lines = ["one core, alone, a batch of 64 (ms)"]
    lines += [f"  {name:45s} {value:8.2f}" for name, value in parts.items()]
    steps = {name: len(SEEDS) * ms for name, ms in parts.items() if name.startswith("step")}
    cached = sum(steps.values()) + sum(ms for name, ms in parts.items() if name.startswith("taps"))
    shares = ", ".join(f"{name[8:]} {100 * ms / cached:.0f} %" for name, ms in steps.items())
    bound = threads * BATCH / (cached / 1000)
    rate = float(np.median(result["images per second"]["cached"]))
    lines.append(f"of the cached way's work: {shares}; reading is the rest")
    lines.append(
        f"{threads} cores that never wait would make {bound:.0f} images/s of it; measured "
        f"{rate:.0f}, {100 * rate / bound:.0f} %"
    )
    return lines


if __name__ == "__main__":
    sys.exit(main())
