"""Kills extractions at seeded moments, starts them again, and prints how each one ended.

    python killed_extractions.py FOLDER NUM_MOMENTS

Every run is a process of its own that dies by SIGKILL: after a batch, when a shard has its bytes
but no line, when it has its line, or after a random time. One JSON line comes out per
run: which moment, whether it was killed, the first count of samples that its repetition reported
(None where nothing was left to do), and the digest of all files of the cache.
"""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import nn

from offramp.backbones.staged import cut
from offramp.features import FeatureCache
from offramp.features.draft import Draft, ShardRecord

FORK = multiprocessing.get_context("fork")
SEED = 0
SAMPLES = 2300


def extract(out: Path, event: Callable[[str, int], None]) -> None:
    """A cache of three shards."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), nn.ReLU(), nn.Conv2d(7, 5, 3))
    backbone = cut(net, ["0", "1"], torch.zeros(2, 3, 12, 8))
    images = torch.randn(SAMPLES, 3, 12, 8), torch.zeros(SAMPLES, dtype=torch.int64)
    cache = FeatureCache.of(
        backbone, images, out / "cache", threads=2, progress=lambda what, done, _: event(what, done)
    )
    digest = hashlib.sha256()
    for path in sorted(cache.folder.iterdir()):
        if path.name != "verified.json":
            digest.update(path.name.encode() + path.read_bytes())
    (out / "digest").write_text(digest.hexdigest())


def run(out: Path, event: Callable[[str, int], None]) -> None:
    """Extract in this process; `event` also hears of shards before and after they have a line."""
    append, record = Draft._append, ShardRecord.of

    def with_line(self: Draft, *arguments: Any) -> None:
        append(self, *arguments)
        event("line", self.done)

    def with_bytes(*arguments: Any) -> ShardRecord:
        event("bytes", 0)
        return record(*arguments)

    Draft._append = with_line  # type: ignore[method-assign, assignment]
    ShardRecord.of = with_bytes  # type: ignore[method-assign, assignment]
    extract(out, event)


def start(out: Path, event: Callable[[str, int], None]) -> BaseProcess:
    out.mkdir(exist_ok=True)
    process = FORK.Process(target=run, args=(out, event))
    process.start()
    return process


def die_at(kind: str, number: int) -> Callable[[str, int], None]:
    """Gives the callback that kills its own process at the n-th event of a kind."""
    left = [number]

    def event(what: str, done: int) -> None:
        left[0] -= what == kind
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return event


def noted(out: Path) -> tuple[list[str], list[int]]:
    """Run to the end; gives the kinds of its events, and the counts of samples done."""
    log = out / "log"
    log.unlink(missing_ok=True)

    def event(what: str, done: int) -> None:
        with log.open("a") as file:
            file.write(f"{what}|{done}\n")

    start(out, event).join()
    lines = [line.split("|") for line in log.read_text().splitlines()] if log.exists() else []
    return [what for what, _ in lines], [int(done) for what, done in lines if what == "taps"]


def killed(out: Path, kind: str, share: float, kinds: list[str], seconds: float) -> bool:
    """Run until `share` of a run's events of this kind, or of its seconds; say if it was killed."""
    if kind != "time":
        process = start(out, die_at(kind, 1 + int(share * kinds.count(kind))))
        process.join()
    else:
        process = start(out, lambda what, done: None)
        process.join(share * seconds)
        process.kill()
        process.join()
    return process.exitcode == -signal.SIGKILL


def main(folder: Path, num_moments: int) -> None:
    """Print one line for the run that nothing kills and one per killed and repeated run."""
    (folder / "whole").mkdir(parents=True)
    began = time.monotonic()
    kinds, _ = noted(folder / "whole")
    seconds = time.monotonic() - began
    print(json.dumps({"kind": "none", "digest": (folder / "whole" / "digest").read_text()}))  # noqa: T201
    draw = random.Random(SEED)  # noqa: S311 not for secrets
    names = ["taps", "bytes", "line", "time"]
    for number in range(num_moments):
        kind, share, out = names[number % 4], draw.random(), folder / str(number)
        was_killed = killed(out, kind, share, kinds, seconds)
        _, done = noted(out)
        result = {
            "kind": kind,
            "share": share,
            "killed": was_killed,
            "first": done[0] if done else None,
        }
        result["left"] = [path.name for path in out.rglob("*.tmp*")]
        print(json.dumps(result | {"digest": (out / "digest").read_text()}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
