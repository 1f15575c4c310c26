"""Do composed stages cost more than the whole model? Eager, interleaved, on this machine.

    python benchmarks/cut.py [--smoke] [--pairs 200] [--rounds 5] [--threads N]
                             [--default-allocator] [--json PATH]

Each triple times the whole model, the composed stages and, as a control, a copy of the whole
model, on the same images, one right after the other, in turning order. Reported is the median of
stages / whole with a 95 % bootstrap interval; the same for copy / whole says how much of a
difference is chance. The aim is a median of at most 1.03; the exit code says whether it holds.

Where tensors come to lie in memory moves a ratio by some percent for the whole life of a process,
so the pairs of a case are spread over `rounds` new processes, and the interval resamples
processes, then pairs. The allocator keeps freed memory, as under the `offramp` command: with
glibc's own settings page faults take half of the time at batch 32, and which side gets more of
them is chance (0.98 and 1.24 came out of two runs). `--default-allocator` leaves them be.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from processes import in_new_process
from torch import Tensor, nn

from offramp.allocator import keep_freed_memory
from offramp.backbones.staged import cut
from offramp.backbones.zoo import build
from offramp.compute import torch_switches
from offramp.machine import environment

AIM = 1.03
CASES = (
    ("offramp:demo", 112, ("blocks.1.1", "blocks.2.1", "blocks.4.1")),
    ("torchvision:resnet18", 96, ("layer1", "layer2", "layer3")),
)
BATCHES = (1, 32)


@dataclass(frozen=True)
class Case:
    """One backbone at one batch size, in one process."""

    backbone: str
    pixels: int
    cuts: tuple[str, ...]
    batch: int
    pairs: int
    threads: int | None
    keep_memory: bool


@dataclass(frozen=True)
class Ratio:
    """Median over pairs, with a 95 % interval."""

    median: float
    low: float
    high: float


def main() -> int:
    """Time every case, print a line for each, write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="5 pairs in one round, no verdict")
    parser.add_argument("--pairs", type=int, default=200, help="of each case, over all rounds")
    parser.add_argument("--rounds", type=int, default=5, help="new processes for each case")
    parser.add_argument("--threads", type=int, default=None, help="default: torch's own")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--default-allocator", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    rounds = 1 if args.smoke else args.rounds
    pairs = 5 if args.smoke else -(-args.pairs // max(rounds, 1))
    if pairs < 1 or rounds < 1:
        parser.error("--pairs and --rounds must be at least 1")

    rows = []
    for name, pixels, cuts in CASES:
        for batch in BATCHES:
            case = Case(name, pixels, cuts, batch, pairs, args.threads, not args.default_allocator)
            seconds = np.stack([in_new_process(measure, case) for _ in range(rounds)])
            rows.append(judged(case, seconds, args.seed))
            print(told(rows[-1]), flush=True)
    if args.json is not None:
        record = {
            "machine": environment("cpu", threads=torch.get_num_threads()),
            "smoke": args.smoke,
            "cases": rows,
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if args.smoke or all(row["stages"]["median"] <= AIM for row in rows) else 1


def measure(case: Case) -> NDArray[np.float64]:
    """Seconds of each call, (pairs, 3); a few first calls are not counted."""
    if case.keep_memory:
        keep_freed_memory()
    model = build(case.backbone)
    images = torch.randn(
        case.batch, 3, case.pixels, case.pixels, generator=torch.Generator().manual_seed(0)
    )
    with torch_switches(threads=case.threads), torch.inference_mode():
        stages = cut(model, case.cuts, images[:1])
        if not torch.equal(stages(images), model(images)):
            raise SystemExit(f"{case.backbone}: the stages do not give the model's answer")
        return time_in_turns([model, stages, copy.deepcopy(model)], images, case.pairs)


def time_in_turns(
    modules: Sequence[nn.Module],
    images: Tensor,
    pairs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> NDArray[np.float64]:
    """Seconds of each module's call, (pairs, modules); which one is first goes round."""
    warmup, count = min(10, pairs), len(modules)
    seconds = np.zeros((warmup + pairs, count))
    for index in range(warmup + pairs):
        for place in range(count):
            side = (index + place) % count if index % 2 else (index - place) % count
            start = clock()
            modules[side](images)
            seconds[index, side] = clock() - start
    return seconds[warmup:]


def judged(case: Case, seconds: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """What `seconds` (rounds, pairs, 3) say of one case."""
    whole_ms, stages_ms, _ = np.median(seconds, axis=(0, 1)) * 1000
    return {
        **asdict(case),
        "pairs": seconds.shape[0] * seconds.shape[1],
        "rounds": seconds.shape[0],
        "stages": asdict(ratio(seconds[..., 1] / seconds[..., 0], seed)),
        "control": asdict(ratio(seconds[..., 2] / seconds[..., 0], seed)),
        "whole_ms": round(float(whole_ms), 3),
        "stages_ms": round(float(stages_ms), 3),
    }


def ratio(ratios: NDArray[np.float64], seed: int, draws: int = 2000) -> Ratio:
    """Median of ratios (rounds, pairs) and its interval over rounds, then pairs."""
    rounds, pairs = ratios.shape
    rng = np.random.default_rng(seed)
    medians = [
        np.median(
            ratios[rng.integers(rounds, size=(rounds, 1)), rng.integers(pairs, size=(1, pairs))]
        )
        for _ in range(draws)
    ]
    low, high = np.quantile(medians, [0.025, 0.975])
    return Ratio(float(np.median(ratios)), float(low), float(high))


def told(row: dict[str, Any]) -> str:
    """One line for the terminal."""
    stages, control = row["stages"], row["control"]
    return (
        f"{row['backbone']} {row['pixels']} px, {len(row['cuts'])} cuts, batch {row['batch']}: "
        f"stages / whole {stages['median']:.4f} [{stages['low']:.4f}, {stages['high']:.4f}] over "
        f"{row['pairs']} pairs in {row['rounds']} processes; the same model twice "
        f"{control['median']:.4f} [{control['low']:.4f}, {control['high']:.4f}]; "
        f"{row['whole_ms']:.2f} ms whole"
    )


if __name__ == "__main__":
    sys.exit(main())
