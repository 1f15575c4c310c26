"""How fast do many branches train on one frozen backbone? Four modes, compared in one run.

    python benchmarks/training.py [--smoke] [--rounds 5] [--threads N] [--json PATH]

Twelve branches on the shipped backbone at 112 px: a CNN branch and an SL-ViT at blocks.1.1 (patch
4, dim 32, heads 12) and at blocks.4.1 (patch 1, dim 16, heads 4), three seeds each, batches of 64.

- naive: one branch at a time; each step runs the backbone up to that branch's tap. It has the same
  allocator, the same folded backbone, the same branches, and as many torch threads as the others
  have workers.
- split: naive in its best form, that many processes side by side with one torch thread each.
- fused: `fit_branches(how="fused")`, one pass of the backbone per batch for all branches.
- cached: `fit_branches(how="cached")`, taps read from disk; the time of their extraction is beside.

Reported are images per second through all twelve branches, validation on an eighth as many images
included, in new processes that take turns, and the median over the rounds of each mode / naive. A
round in which naive is slower than 0.7 of its best was not quiet: torch's threads wait for a core
that something else uses. It is listed and not counted. Accuracy and first losses of 3 epochs on
2,000 images come from calls of their own; random streams are equal, so they should differ by
rounding alone. Below a goal the exit code is 1. What the time goes into, one core at a time, is
listed at the end.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from processes import in_new_process, side_by_side
from training_modes import BATCH, BRANCHES, CPU, SEEDS, Clock, Trained, Work, make, material, train

from offramp.allocator import keep_freed_memory
from offramp.features import FeatureCache, start_executor
from offramp.features.source import TapSource
from offramp.machine import environment
from offramp.training.learner import TrialName
from offramp.training.supply import StoredSupply

MODES = ("naive", "split", "fused", "cached")
SHORT = {"naive": 640, "split": 640, "fused": 1920, "cached": 1920}  # images of a round
QUIET = 0.7
"""Share of its best rate that naive must reach in a round for it to count."""
FLOORS = {"fused": 4.0, "cached": 5.5}
GOALS = {"fused": 4.5, "cached": 6.5}


def main() -> int:
    """Run all modes in turns, print what came out, write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="few images, one round, no verdict")
    parser.add_argument("--rounds", type=int, default=5, help="new processes for each mode")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    if args.rounds < 1 or args.threads < 1:
        parser.error("--rounds and --threads must be at least 1")

    whole = (256, 64, 2) if args.smoke else (2000, 1000, 3)
    full = {mode: trained(Work(mode, *whole, args.threads)) for mode in MODES}
    rounds = [full] if args.smoke else []
    for first in range(0 if args.smoke else args.rounds):  # which mode is first goes round
        turn = MODES[first % 4 :] + MODES[: first % 4]
        work = [Work(mode, SHORT[mode], SHORT[mode] // 8, 1, args.threads) for mode in turn]
        rounds.append({each.mode: trained(each) for each in work})
    result = judged(rounds, in_new_process(one_core_parts))
    print(described(result, full, whole, args.threads))
    if args.json is not None:
        record = {
            "machine": environment("cpu", threads=torch.get_num_threads()),
            "smoke": args.smoke,
            "threads": args.threads,
            **result,
            "three epochs": {mode: asdict(each) for mode, each in full.items()},
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if args.smoke or result["goals reached"] else 1


def trained(work: Work) -> Trained:
    """Train the twelve branches in a new process, for split in one for each thread."""
    if work.mode != "split":
        return in_new_process(train, work)
    alone = replace(work, mode="naive", threads=1)
    shares = [(first, work.threads) for first in range(work.threads)]
    parts = side_by_side(train, [replace(alone, share=share) for share in shares])
    return Trained(
        max(part.seconds_per_image for part in parts),
        0.0,
        dealt_back([part.first_losses for part in parts]),
        dealt_back([part.accuracies for part in parts]),
    )


def dealt_back(parts: Sequence[Sequence[float]]) -> list[float]:
    """What was dealt out in turns, in its order again."""
    return [parts[n % len(parts)][n // len(parts)] for n in range(sum(map(len, parts)))]


def one_core_parts(clock: Clock = time.perf_counter) -> dict[str, float]:
    """Milliseconds of each part of a step of 64 images on one core, alone."""
    keep_freed_memory()
    backbone, pictures, _ = material(4 * BATCH, BATCH)
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
                learner = make(backbone, TrialName(cut_name, spec, 0), cache)
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
    """Rates, ratios in quiet rounds, and whether they reach floor and goal."""
    rates = {mode: [1 / each[mode].seconds_per_image for each in rounds] for mode in MODES}
    naive = rates["naive"]
    quiet = [index for index, rate in enumerate(naive) if rate >= QUIET * max(naive)]
    ratios = {
        mode: [rates[mode][index] / naive[index] for index in quiet] for mode in ("split", *GOALS)
    }
    medians = {mode: float(np.median(each)) for mode, each in ratios.items()}
    return {
        "images per second": rates,
        "quiet rounds": quiet,
        "times naive": ratios,
        "median": medians,
        "floors reached": all(medians[mode] >= FLOORS[mode] for mode in GOALS),
        "goals reached": all(medians[mode] >= GOALS[mode] for mode in GOALS),
        "one core, ms per batch": parts,
    }


def described(
    result: dict[str, Any], full: dict[str, Trained], whole: tuple[int, int, int], threads: int
) -> str:
    """Lines for the terminal."""
    count, quiet = len(full["fused"].accuracies), result["quiet rounds"]
    rounds = len(result["images per second"]["naive"])
    lines = [
        f"images per second through {count} branches, median of {len(quiet)} quiet rounds of "
        f"{rounds}"
    ]
    for mode in MODES:
        rates = [result["images per second"][mode][index] for index in quiet]
        line = f"  {mode:7s} {np.median(rates):7.1f} ({min(rates):.1f} to {max(rates):.1f})"
        if ratios := result["times naive"].get(mode):
            line += f"   {np.median(ratios):.2f} times naive ({min(ratios):.2f} to "
            line += f"{max(ratios):.2f})"
        if mode in GOALS:
            line += f"; floor {FLOORS[mode]}, goal {GOALS[mode]}"
        lines.append(line)
    lines.append(
        f"before training, {whole[0]} images: extraction {full['cached'].preparing:.1f} s, "
        f"statistics of the fused mode {full['fused'].preparing:.1f} s"
    )
    lines.append(f"{whole[2]} epochs on {whole[0]} images, equal random streams")
    for mode in MODES:
        pairs = zip(full[mode].first_losses, full["naive"].first_losses, strict=True)
        gap = max(abs(a - b) / b for a, b in pairs)
        lines.append(
            f"  {mode:7s} accuracy {100 * np.mean(full[mode].accuracies):.2f} %, first epoch's "
            f"losses within {gap:.1e} of naive"
        )
    return "\n".join([*lines, *profile(result["one core, ms per batch"], result, threads)])


def profile(parts: dict[str, float], result: dict[str, Any], threads: int) -> list[str]:
    """Where the time of the cached mode goes."""
    lines = ["one core, alone, a batch of 64 (ms)"]
    lines += [f"  {name:45s} {value:8.2f}" for name, value in parts.items()]
    steps = {name: len(SEEDS) * ms for name, ms in parts.items() if name.startswith("step")}
    cached = sum(steps.values()) + sum(ms for name, ms in parts.items() if name.startswith("taps"))
    shares = ", ".join(f"{name[8:]} {100 * ms / cached:.0f} %" for name, ms in steps.items())
    bound = threads * BATCH / (cached / 1000)
    rate = float(np.median(result["images per second"]["cached"]))
    lines.append(f"of the cached mode's work: {shares}; reading is the rest")
    lines.append(
        f"{threads} cores that never wait would make {bound:.0f} images/s of it; measured "
        f"{rate:.0f}, {100 * rate / bound:.0f} %"
    )
    return lines


if __name__ == "__main__":
    sys.exit(main())
