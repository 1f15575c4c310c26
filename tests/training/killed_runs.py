"""Kills training runs at seeded moments, starts them again, and prints how each one ended.

    python killed_runs.py FOLDER NUM_MOMENTS [JSON of settings for fit_branches]
    python killed_runs.py FOLDER NUM_MOMENTS finetune
    python killed_runs.py FOLDER NUM_MOMENTS density

Every run is a process of its own that dies by SIGKILL: while taps are computed, just before a
rename (the temporary file is there, the final one not), within an epoch, just after a rename, or
after a random time. The second form finetunes a network instead of training branches,
the third a network that counts, in two stages.
One JSON line comes out per run: which moment, whether it was killed, digest of the final weights.
"""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter as SummaryWriter  # once here, not in each fork

from offramp.backbones.staged import cut
from offramp.branches import ConvBranch, SLViT
from offramp.data import Splits, as_samples
from offramp.data.density import with_maps
from offramp.run.finetune_plan import FinetunePlan
from offramp.run.finetuning import finetune
from offramp.training import fit_branches

FORK = multiprocessing.get_context("fork")
SEED = 0
EVENTS = ("caching", "before rename", "training", "after rename", "time")
FORM = sys.argv[3] if sys.argv[3:] in (["finetune"], ["density"]) else ""
SETTINGS = {} if FORM or len(sys.argv) < 4 else json.loads(sys.argv[3])
NETWORK = """
from torch import nn

class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.maps, self.count = nn.Conv2d(3, 1, 3, padding=1), nn.Linear(96, 1)

    def density(self, images):
        return self.maps(images)

    def forward(self, images):
        return self.count(self.density(images).flatten(1))

def network():
    return nn.Sequential(
        nn.Conv2d(3, 7, 3, padding=1), nn.BatchNorm2d(7), nn.ReLU(), nn.Flatten(), nn.Linear(672, 9)
    )
"""


def train(out: Path, event: Callable[[str], None]) -> str:
    """A small training run; gives the digest of all trained weights and histories."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), nn.ReLU(), nn.Conv2d(7, 5, 3), nn.Flatten())
    net.append(nn.Linear(300, 4))
    backbone = cut(net, ["1", "2"], torch.zeros(2, 3, 12, 8))
    images, labels = torch.randn(120, 3, 12, 8), torch.arange(120) % 4
    conv = ConvBranch(filters=3, hidden=9, dropout=0.3, standardise=True)
    model = fit_branches(
        backbone,
        {"1": [SLViT(patch=4, dim=6, heads=2, hidden=9, dropout=0.3), conv], "2": [conv]},
        (images[:80], labels[:80]),
        (images[80:], labels[80:]),
        seeds=[0, 1],
        out=out,
        epochs=3,
        batch_size=16,
        lr=3e-3,
        threads=2,
        progress=lambda what, *_: event("caching" if "taps of" in what else "training"),
        **SETTINGS,
    )
    digest = hashlib.sha256()
    for trial in model.trials:
        digest.update(repr(trial.history).encode())
        for name, value in trial.branch.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def finetune_network(out: Path, event: Callable[[str], None]) -> str:
    """A small finetuning; gives the digest of the folder's weights and history."""
    torch.manual_seed(1)
    images, labels = torch.randn(120, 3, 12, 8), torch.arange(120) % 4
    maps, counts = images.mean(1).numpy(), images.mean(1).sum((1, 2)).numpy()
    parts = {
        name: with_maps((images[rows], counts[rows]), maps[rows])
        if FORM == "density"
        else as_samples((images[rows], labels[rows]))
        for name, rows in (("train", range(80)), ("validation", range(80, 100)))
    }
    parts["test"] = parts["validation"]
    (out / "mine.py").write_text(NETWORK)
    stage = {"epochs": 4, "batch_size": 16, "lr": 3e-3}
    kind = {"backbone": {"name": "python"}, "data": {"kind": "python"}, "train": stage}
    if FORM == "density":
        splits = Splits.of(parts, target_names=("people",), task="regression")
        kind |= {"task": "regression", "top": None, "density": stage}
    else:
        splits = Splits.of(parts, target_names=tuple("abcd"))
        kind |= {"top": {"hidden": 9}}
    plan = FinetunePlan.model_validate(kind)
    finetune(
        plan,
        out / "backbone",
        splits=splits,
        backbone_file=f"{out / 'mine.py'}:{'Counts' if FORM == 'density' else 'network'}",
        progress=lambda *_: event("training"),
    )
    files = [out / "backbone" / name for name in ("model.safetensors", "history.json")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def run(out: Path, event: Callable[[str], None]) -> None:
    """Train in this process, telling `event` about renames too, and leave the digest in a file."""
    rename = Path.replace

    def watched(self: Path, target: Path) -> Path:
        event("before rename")
        final = rename(self, target)
        event("after rename")
        return final

    Path.replace = watched  # type: ignore[assignment, method-assign]
    (out / "digest").write_text((finetune_network if FORM else train)(out, event))


def start(out: Path, event: Callable[[str], None]) -> BaseProcess:
    out.mkdir(exist_ok=True)
    process = FORK.Process(target=run, args=(out, event))
    process.start()
    return process


def die_at(kind: str, number: int) -> Callable[[str], None]:
    """Gives the callback that kills its own process at the n-th event of a kind."""
    left, lock = [number], threading.Lock()

    def event(what: str) -> None:
        with lock:  # renames come from all workers
            left[0] -= what == kind
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return event


def uninterrupted(out: Path) -> tuple[str, dict[str, int], float]:
    """Digest, number of events of each kind, and seconds of a run that nothing kills."""
    log = out.with_suffix(".log")

    def event(what: str) -> None:
        with log.open("a") as file:
            file.write(what + "\n")

    began = time.monotonic()
    start(out, event).join()
    kinds = log.read_text().splitlines()
    seconds = time.monotonic() - began
    return (out / "digest").read_text(), {kind: kinds.count(kind) for kind in set(kinds)}, seconds


def killed(out: Path, kind: str, share: float, counts: dict[str, int], seconds: float) -> bool:
    """Run until `share` of a run's events of this kind, or of its seconds; say if it was killed."""
    if kind != "time":
        process = start(out, die_at(kind, 1 + int(share * counts[kind])))
        process.join()
    else:
        process = start(out, lambda what: None)
        process.join(share * seconds)
        process.kill()
        process.join()
    return process.exitcode == -signal.SIGKILL


def main(folder: Path, num_moments: int) -> None:
    """Print one line for the run that nothing kills and one per killed and repeated run."""
    whole, counts, seconds = uninterrupted(folder / "whole")
    print(json.dumps({"kind": "none", "digest": whole, "counts": counts}))  # noqa: T201
    draw = random.Random(SEED)  # noqa: S311 not for secrets
    kinds = [kind for kind in EVENTS if kind in counts or kind == "time"]
    for number in range(num_moments):
        kind, share, out = kinds[number % len(kinds)], draw.random(), folder / str(number)
        was_killed = killed(out, kind, share, counts, seconds)
        start(out, lambda what: None).join()
        left = [str(path.relative_to(out)) for path in out.rglob("*.tmp*")]
        result = {"kind": kind, "share": share, "killed": was_killed, "left": left}
        print(json.dumps(result | {"digest": (out / "digest").read_text()}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
