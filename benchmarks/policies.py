"""Are the promises of exit policies kept, and are policies issued where they can be?

    python benchmarks/policies.py [--smoke] [--run runs/demo] [--official DIR] [--draws 300]
                                  [--official-outputs NPZ] [--workers N] [--json PATH]

Calibration sets are drawn with replacement from pools on which every policy's drop in accuracy is
known: the run's outputs on the shipped calibration images and, where `--official` (or the
environment variable OFFRAMP_FASHION_MNIST) names a folder with the official Fashion-MNIST files,
on all official test images, none of which backbone or branches have seen; and simulated
populations. From each draw of `--draws`, `calibrate` is asked for a drop of at most 0.5 (on pools
of at least 5,000), 1 and 2 %, with 95 and 90 % confidence.

- Kept: the drop on the whole pool is over the limit in at most a share delta of the draws. The
  slack is the 99 % binomial quantile.
- Not merely timid: where 5,000 samples or more test thresholds and the family (thresholds on any
  of the exits) has a policy with drop + (z(1 - delta) + 1.5) sqrt(share of samples with non-zero
  loss / samples) within the limit, a policy is issued in at least 80 % of the draws, and those
  issued save on average at least 70 % of what the best such policy saves, found on the pool.

Both are counted for `ltt`, and on fewer draws for `ucb`, its inverse, which certifies alike and is
slow. Four populations have clusters of rows that depend on each other, in which whole clusters are
drawn: there only the promise is claimed.

- At least as good as plain fixed-sequence testing (`hb`, Hoeffding-Bentkus on one threshold common
  to all exits) where rows are few: on sets of 1,000 rows at 0.5 %, issued as often on each pool
  and saving as much, within the interval of the paired differences.

Beside them: a greedy search that lowers one exit's threshold after the other as long as the
drop on the rows it looks at stays within the limit, and, on few draws too, `earlyon` (the `bench`
extra). The exit code says whether the claims hold.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import torch
from promises.draws import Asked, Outcome, Tally, Task, outcomes, tallied
from promises.pool import Pool
from promises.populations import SIMULATED
from promises.real import on_official
from promises.rivals import earlyon_is_installed
from promises.verdict import Pair, as_text, paired, pairs_text, recorded

from offramp.machine import environment
from offramp.outputs import ExitOutputs

MAX_DROPS, DELTAS = (0.005, 0.01, 0.02), (0.05, 0.1)
STRICT_ROWS = 5000  # a pool has to have so many for the strictest drop
DRAWN_ROWS = (2000, 7400)  # of the second, at least 5,000 test thresholds
FEW_ROWS, FEW_DROP, FEW_DELTA = 1000, 0.005, 0.05  # compared draw by draw with a rival
DRAWS_PER_TASK = 10  # also the step of --slow-draws
OFFICIAL = "official test images"


def main() -> int:
    """Draw from every pool, print what came of it, write JSON where asked."""
    args = arguments()
    started = time.perf_counter()
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(args.workers, mp_context=spawn) as workers,
    ):
        files = stored(pools(args), Path(folder))
        found = all_outcomes(files, args, workers)
        tallies = tallied_by_pool(found)
        records = list(workers.map(recorded, files, files.values(), [tallies[n] for n in files]))
    seconds = time.perf_counter() - started
    print(as_text(records))
    pairs = list(compared(found))
    print(f"\n{pairs_text(pairs, f'{FEW_ROWS:,} rows, {100 * FEW_DROP:g} %')}")
    holds = all(each.holds for each in records) and all(pair.holds for pair in pairs)
    print(f"\n{seconds / 60:.1f} minutes; the claims {'hold' if holds else 'do not hold'}")
    if args.json is not None:
        content = {
            "machine": environment("cpu", threads=torch.get_num_threads()),
            "smoke": args.smoke,
            "seed": args.seed,
            "seconds": round(seconds, 1),
            "claims hold": holds,
            "pools": [record.as_json() for record in records],
            "few rows, against hb": [asdict(pair) for pair in pairs],
        }
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0 if args.smoke or holds else 1


def arguments() -> argparse.Namespace:
    """What the command line says; `--smoke` means few draws from small pools."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    official = os.environ.get("OFFRAMP_FASHION_MNIST")
    parser.add_argument("--smoke", action="store_true", help="few draws, no verdict")
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="offramp demo's folder")
    parser.add_argument("--official", type=Path, default=official and Path(official))
    parser.add_argument("--official-outputs", type=Path, help="kept here, and read if there")
    parser.add_argument("--draws", type=int, default=300, help="from each pool and size")
    parser.add_argument("--slow-draws", type=int, default=10, help="of ucb and earlyon, in tens")
    parser.add_argument("--population", type=int, default=50_000, help="rows, where simulated")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    if args.smoke:
        args.draws, args.slow_draws, args.population = 2, 1, 5000
    if not args.smoke and not (args.run / "outputs").is_dir():
        parser.error(f"{args.run} is not a run folder. Make one: offramp demo --out {args.run}")
    if min(args.draws, args.slow_draws, args.population, args.workers) < 1:
        parser.error("draws, rows and workers must be at least 1")
    return args


def pools(args: argparse.Namespace) -> Iterator[tuple[str, ExitOutputs]]:
    """Name and outputs of each pool; real ones first."""
    if (args.run / "outputs").is_dir():
        yield "calibration images", ExitOutputs.load(args.run / "outputs" / "calibration.npz")
        yield from official(args)
    else:
        print(f"{args.run} is not a run folder: simulated populations alone")
    for number, (name, population) in enumerate(SIMULATED.items()):
        yield name, population(args.population, np.random.default_rng([args.seed, number]))


def official(args: argparse.Namespace) -> Iterator[tuple[str, ExitOutputs]]:
    """Outputs on the official test images, where they are installed or were collected before."""
    kept = args.official_outputs
    if kept is not None and kept.is_file():
        yield OFFICIAL, ExitOutputs.load(kept)
    elif args.official is not None and not args.smoke:
        outputs = on_official(args.run, args.official)
        if kept is not None:
            outputs.save(kept)
        yield OFFICIAL, outputs
    else:
        print("without the official test images (--official); --smoke is never long enough")


def stored(pools: Iterator[tuple[str, ExitOutputs]], folder: Path) -> dict[str, Path]:
    """Where each pool's outputs lie, for the workers to read."""
    files = {}
    for number, (name, outputs) in enumerate(pools):
        files[name] = folder / f"{number}.npz"
        outputs.save(files[name])
    return files


Found = Mapping[tuple[str, int, Asked], list[Outcome]]


def all_outcomes(files: Mapping[str, Path], args: argparse.Namespace, workers: Executor) -> Found:
    """Outcomes by pool, rows and what was asked, in the order of the draws."""
    given = list(tasks(files, args))
    found: dict[tuple[str, int, Asked], list[Outcome]] = defaultdict(list)
    for done, (task, part) in enumerate(zip(given, workers.map(outcomes, given), strict=True), 1):
        for outcome in part:
            found[task.pool, task.rows, outcome.asked].append(outcome)
        if sys.stderr.isatty():
            print(f"\r{done} of {len(given)} parts drawn", end="", file=sys.stderr)
    return found


def tallied_by_pool(found: Found) -> dict[str, list[Tally]]:
    """Tallies of each pool, over all its draws."""
    tallies = defaultdict(list)
    for (pool, rows, asked), each in found.items():
        tallies[pool].append(tallied(rows, asked, each))
    return tallies


def compared(found: Found) -> Iterator[Pair]:
    """Ours and the rival on the same draws, for each pool that both were asked on."""
    ours, rival = (Asked(method, FEW_DROP, FEW_DELTA) for method in ("ltt", "hb"))
    for pool in dict.fromkeys(pool for pool, _, _ in found):
        both = found.get((pool, FEW_ROWS, ours)), found.get((pool, FEW_ROWS, rival))
        if both[0] and both[1]:
            yield paired(pool, both[0], both[1])


def tasks(files: Mapping[str, Path], args: argparse.Namespace) -> Iterator[Task]:
    """All draws from all pools, a few at a time; the slow methods on the first draws alone."""
    with_earlyon = earlyon_is_installed()
    if not with_earlyon:
        print("earlyon is not installed (pip install 'offramp[bench]'): its rows are left out")
    for name, path in files.items():
        pool = Pool(name, ExitOutputs.load(path))
        drops = MAX_DROPS if len(pool) >= STRICT_ROWS else MAX_DROPS[1:]
        independent = pool.clusters is None
        sizes = (FEW_ROWS, *(DRAWN_ROWS[:1] if args.smoke else DRAWN_ROWS))
        for rows, first in product(sizes, range(0, args.draws, DRAWS_PER_TASK)):
            draws = tuple(range(first, min(first + DRAWS_PER_TASK, args.draws)))
            few = rows == FEW_ROWS
            asked = tuple(methods(first < args.slow_draws, with_earlyon))
            if few:
                asked = (("ltt", FEW_DELTA),)
            if independent:
                asked = (*asked, ("hb", FEW_DELTA))
            limits = (FEW_DROP,) if few else drops
            yield Task(name, path, rows, draws, args.seed, limits, asked)


def methods(slow: bool, with_earlyon: bool) -> Iterator[tuple[str, float | None]]:
    """The quick methods or all, with every delta where they know any."""
    yield from (("ltt", delta) for delta in DELTAS)
    yield "greedy", None
    if slow:
        yield from (("ucb", delta) for delta in DELTAS)
    if slow and with_earlyon:
        yield "earlyon", None


if __name__ == "__main__":
    sys.exit(main())
