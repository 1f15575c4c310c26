"""Do composed stages cost more than the whole model? Eager, interleaved pairs, on this machine.

    python benchmarks/cut.py [--smoke] [--pairs 200] [--threads N] [--json PATH]

Each pair times the whole model and the composed stages on the same images, one right after the
other, the first of the two by turns. Reported is the median over pairs of stages / whole with a
95 % bootstrap interval. The aim is a median of at most 1.03; the exit code says whether it holds.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.backbones.staged import cut
from offramp.backbones.zoo import build
from offramp.compute import torch_switches
from offramp.environment import environment

AIM = 1.03
CASES = (
    ("offramp:demo", 112, ("blocks.1.1", "blocks.2.1", "blocks.4.1")),
    ("torchvision:resnet18", 96, ("layer1", "layer2", "layer3")),
)
BATCHES = (1, 32)


@dataclass(frozen=True)
class Ratio:
    """Time of composed stages over time of the whole model."""

    backbone: str
    pixels: int
    cuts: tuple[str, ...]
    batch: int
    pairs: int
    median_ratio: float
    low: float
    high: float
    whole_ms: float
    stages_ms: float


def main() -> int:
    """Time every case, print a line for each, write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="5 pairs, no verdict")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--threads", type=int, default=None, help="default: torch's own")
    parser.add_argument("--seed", type=int, default=0, help="of images and bootstrap")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    pairs = 5 if args.smoke else args.pairs
    if pairs < 1:
        parser.error("--pairs must be at least 1")

    rows = []
    with torch_switches(threads=args.threads), torch.inference_mode():
        machine = environment("cpu")
        for name, pixels, cuts in CASES:
            for batch in BATCHES:
                rows.append(measure(name, pixels, cuts, batch, pairs, args.seed))
                print(told(rows[-1]), flush=True)
    if args.json is not None:
        record = {"machine": machine, "smoke": args.smoke, "ratios": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if args.smoke or all(row.median_ratio <= AIM for row in rows) else 1


def measure(
    name: str, pixels: int, cuts: tuple[str, ...], batch: int, pairs: int, seed: int
) -> Ratio:
    """Time one backbone at one batch size."""
    model = build(name)
    images = torch.randn(batch, 3, pixels, pixels, generator=torch.Generator().manual_seed(seed))
    stages = cut(model, cuts, images[:1])
    if not torch.equal(stages(images), model(images)):
        raise SystemExit(f"{name}: the stages do not give the model's answer; nothing to time")
    whole_s, stages_s = time_pairs(model, stages, images, pairs)
    ratios = stages_s / whole_s
    low, high = interval(ratios, seed)
    return Ratio(
        name, pixels, cuts, batch, pairs, float(np.median(ratios)), low, high,
        float(np.median(whole_s)) * 1000, float(np.median(stages_s)) * 1000,
    )  # fmt: skip


def time_pairs(
    whole: nn.Module,
    stages: nn.Module,
    images: Tensor,
    pairs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds of each call, whole and composed, in pairs; the first few are not counted."""
    warmup = min(10, pairs)
    seconds = np.zeros((warmup + pairs, 2))
    for index in range(warmup + pairs):
        order: Sequence[int] = (0, 1) if index % 2 else (1, 0)
        for side in order:
            start = clock()
            (whole, stages)[side](images)
            seconds[index, side] = clock() - start
    return seconds[warmup:, 0], seconds[warmup:, 1]


def interval(ratios: NDArray[np.float64], seed: int, draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    chosen = np.random.default_rng(seed).integers(len(ratios), size=(draws, len(ratios)))
    low, high = np.quantile(np.median(ratios[chosen], axis=1), [0.025, 0.975])
    return float(low), float(high)


def told(row: Ratio) -> str:
    """One line for the terminal."""
    return (
        f"{row.backbone} {row.pixels} px, {len(row.cuts)} cuts, batch {row.batch}: stages / whole "
        f"{row.median_ratio:.4f} [{row.low:.4f}, {row.high:.4f}] over {row.pairs} pairs "
        f"(median {row.whole_ms:.2f} ms whole, {row.stages_ms:.2f} ms stages)"
    )


if __name__ == "__main__":
    sys.exit(main())
