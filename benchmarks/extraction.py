"""How fast are taps of the whole network extracted? FeatureCache against eager torch.

    python benchmarks/extraction.py [--smoke] [--images 8000] [--rounds 5] [--threads N]
                                    [--json PATH]

The shipped backbone at 112 px is cut behind its last pooling, the place nearest its end: all but
the last layer runs. Images are shipped Fashion-MNIST training images.

- cache: `FeatureCache.of` into a new folder: preparing the images, the pass for the scales, the
  quicker copies of the stages, rounding, hashing and writing, and opening what was written. The
  allocator keeps freed memory, as under the `offramp` command.
- eager: the model as it is, called on the same images, prepared through `offramp.data`,
  in batches of 64 and of 32, with torch's own threads and glibc's own allocator settings; the
  faster of the two counts. It keeps nothing, and its first batches are not timed.

Each measurement is a process of its own; the sides take turns, and which is first goes round.
Reported is the ratio of the medians of images per second with a 95 % bootstrap interval over the
rounds. The aim is at least 2.0; the exit code says whether it holds.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from processes import in_new_process

from offramp.allocator import keep_freed_memory
from offramp.backbones.staged import StagedBackbone, cut
from offramp.backbones.zoo import build
from offramp.data import FashionMNIST, Samples
from offramp.features import FeatureCache
from offramp.machine import environment

AIM = 2.0
BACKBONE, PIXELS, PLACE = "offramp:demo", 112, "global_pool"
EAGER_BATCHES = (64, 32)
WARMUP = 5


def main() -> int:
    """Time every side in turns, print a line, write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="256 images, one round, no verdict")
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=5, help="new processes for each side")
    parser.add_argument("--threads", type=int, default=None, help="default: torch's own")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    images, rounds = (256, 1) if args.smoke else (args.images, args.rounds)
    if images < 1 or rounds < 1:
        parser.error("--images and --rounds must be at least 1")

    seconds = in_turns(images, rounds, args.threads)
    row = judged(images, seconds, args.seed)
    print(in_words(row), flush=True)
    if args.json is not None:
        facts = {
            "machine": environment("cpu", threads=torch.get_num_threads()),
            "smoke": args.smoke,
            "threads": args.threads,
        }
        args.json.write_text(json.dumps(facts | row, indent=1) + "\n", encoding="utf-8")
    return 0 if args.smoke or row["ratio"]["median"] >= AIM else 1


def in_turns(images: int, rounds: int, threads: int | None) -> dict[str, list[float]]:
    """Seconds of each side in each round, every one from a process of its own."""
    sides: dict[str, Callable[[], float]] = {"cache": partial(time_cache, images, threads)}
    for size in EAGER_BATCHES:
        sides[f"eager, batch {size}"] = partial(time_eager, images, threads, size)
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            seconds[name].append(in_new_process(sides[name]))
            rate = images / seconds[name][-1]
            print(f"round {turn + 1}, {name}: {rate:.0f} images/s", file=sys.stderr, flush=True)
    return seconds


def time_cache(images: int, threads: int | None) -> float:
    """Seconds to extract the taps into a new folder."""
    keep_freed_memory()
    data = shipped(images)
    backbone = cut(build(BACKBONE), [PLACE], torch.zeros(1, 3, PIXELS, PIXELS))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        cache = FeatureCache.of(backbone, data, folder, threads=threads)
        seconds = time.perf_counter() - start
        check(backbone, data, cache)
    return seconds


def time_eager(images: int, threads: int | None, size: int) -> float:
    """Seconds to run the whole model, as it is, over the images in batches of `size`."""
    if threads is not None:
        torch.set_num_threads(threads)
    data, model = shipped(images), build(BACKBONE)
    with torch.inference_mode():
        for batch in islice(data.batches(size), WARMUP):
            model(*batch.inputs)
        start = time.perf_counter()
        for batch in data.batches(size):
            model(*batch.inputs)
        return time.perf_counter() - start


def shipped(images: int) -> Samples:
    """Some training images, in memory as bytes."""
    return FashionMNIST(image_size=PIXELS).load().train.sample(images, seed=0)


def check(backbone: StagedBackbone, data: Samples, cache: FeatureCache) -> None:
    """Refuse a cache that holds something else than the stages give."""
    rows = np.arange(min(len(data), 32))
    with torch.inference_mode():
        _, (expected,) = backbone.stages[0]((data.read(rows).inputs[0],))
    (found,) = cache.batch(PLACE, rows)
    if (found - expected).abs().max() > 1e-3 * expected.abs().max():
        raise SystemExit("the cache does not hold the taps of the backbone")


def judged(images: int, seconds: dict[str, list[float]], seed: int) -> dict[str, Any]:
    """What the seconds of each side say."""
    rates = {name: images / np.array(values) for name, values in seconds.items()}
    eager = max((name for name in rates if name != "cache"), key=lambda n: np.median(rates[n]))
    return {
        "backbone": BACKBONE,
        "pixels": PIXELS,
        "place": PLACE,
        "images": images,
        "images_per_second": {name: [round(v, 1) for v in r] for name, r in rates.items()},
        "against": eager,
        "ratio": ratio(rates["cache"], rates[eager], seed),
    }


def ratio(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], seed: int, draws: int = 2000
) -> dict[str, float]:
    """Ratio of the medians over rounds, with a 95 % interval over rounds drawn again."""
    rng = np.random.default_rng(seed)
    rounds = rng.integers(len(ours), size=(2, draws, len(ours)))
    drawn = np.median(ours[rounds[0]], axis=1) / np.median(theirs[rounds[1]], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    median = float(np.median(ours) / np.median(theirs))
    return {"median": median, "low": float(low), "high": float(high)}


def in_words(row: dict[str, Any]) -> str:
    """One line for the terminal."""
    rates, found = row["images_per_second"], row["ratio"]
    return (
        f"{row['backbone']} {row['pixels']} px up to {row['place']}, {row['images']} images: "
        f"cache {np.median(rates['cache']):.0f} images/s, {row['against']} "
        f"{np.median(rates[row['against']]):.0f} images/s; ratio {found['median']:.2f} "
        f"[{found['low']:.2f}, {found['high']:.2f}] over {len(rates['cache'])} rounds"
    )


if __name__ == "__main__":
    sys.exit(main())
