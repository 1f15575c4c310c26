"""Time and memory of each stage of a backbone, one sample at a time, each in its own process.

    python benchmarks/stages.py [--smoke] [--rounds 5] [--threads N] [--json PATH]

The backbone is the paper's AudioCSRNet on a picture of 1024 x 576 pixels and a second of sound,
cut at the paper's places. Reported are the median seconds of a stage, its share of all stages, its
FLOPs (a multiply-add is 2), and by how much the process's memory grew above its size with network
and inputs in memory, as Linux counts it. What the stages before it freed is first given back to the
system, since a stage that used it again would seem to need none.
"""

import argparse
import ctypes
import gc
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from processes import in_new_process

from offramp.backbones.paper.audiocsrnet import AudioCSRNet
from offramp.backbones.staged import StagedBackbone, cut
from offramp.backbones.zoo import describe
from offramp.compute import torch_switches
from offramp.machine import environment
from offramp.table import Table, bytes_text

PICTURE = 576, 1024  # height and width
SMALL = 64, 96


@dataclass(frozen=True)
class StageCost:
    """What one stage took.

    Attributes:
        name: Of the cut at its end, or `final`.
        seconds: Of each timed pass, batch 1.
        flops: A multiply-add is 2.
        memory: Bytes that the process grew by above its size before the first pass.
    """

    name: str
    seconds: tuple[float, ...]
    flops: int
    memory: int


def staged(size: tuple[int, int]) -> StagedBackbone:
    """AudioCSRNet with random weights, cut at the paper's places."""
    torch.manual_seed(0)
    sample = torch.zeros(1, 3, *size), torch.zeros(1, 1, 96, 64)
    places = list(describe("paper:audiocsrnet").cuts.values())
    return cut(AudioCSRNet(*size).eval(), places, sample)


def measure(number: int, size: tuple[int, int], rounds: int, threads: int | None) -> StageCost:
    """One stage, after the stages before it have run once."""
    backbone = staged(size)
    live: tuple[torch.Tensor, ...] = torch.rand(1, 3, *size), torch.rand(1, 1, 96, 64)
    with torch_switches(threads=threads), torch.inference_mode():
        for stage in list(backbone.stages)[:number]:
            live, _ = stage(live)
        stage, before, taken = backbone.stages[number], start_of_peak(), []
        for _ in range(rounds + 1):  # the first one warms up
            start = time.perf_counter()
            stage(live)
            taken.append(time.perf_counter() - start)
    name = (*backbone.cuts, "final")[number]
    grown = kept("VmHWM") - before
    return StageCost(name, tuple(taken[1:]), backbone.stage_flops()[number], grown)


def start_of_peak() -> int:
    """Size of this process, from which its largest size is counted anew."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # glibc keeps freed memory, which counts as the size
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return kept("VmRSS")


def kept(name: str) -> int:
    """A size of this process in bytes, as Linux calls it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    [size] = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(size)


def table(costs: list[StageCost]) -> Table:
    """All stages, with their shares."""
    middle = [statistics.median(cost.seconds) for cost in costs]
    return Table.of(
        ("stage up to", [cost.name for cost in costs]),
        ("s", [f"{seconds:.2f}" for seconds in middle]),
        ("share %", [f"{100 * seconds / sum(middle):.1f}" for seconds in middle]),
        ("GFLOPs", [f"{cost.flops / 1e9:.1f}" for cost in costs]),
        ("share %", [f"{100 * c.flops / sum(x.flops for x in costs):.1f}" for c in costs]),
        ("memory", [bytes_text(cost.memory) for cost in costs]),
        left=1,
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small picture, one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    size, rounds = (SMALL, 1) if given.smoke else (PICTURE, given.rounds)
    number = len(describe("paper:audiocsrnet").cuts) + 1
    costs = [in_new_process(measure, place, size, rounds, given.threads) for place in range(number)]
    print(table(costs))
    if given.json is not None:
        facts = environment("cpu", given.threads or torch.get_num_threads())
        rows = [asdict(cost) for cost in costs]
        given.json.write_text(
            json.dumps({"size": size, "stages": rows, "environment": facts}, indent=1) + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
