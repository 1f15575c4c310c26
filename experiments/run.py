"""Trains the paper's backbones and branches, table by table; the same command resumes.

    python experiments/run.py --table 4 --data-root DIR --weights-root DIR [--out runs/paper]
    python experiments/run.py --table 7 --data-root DIR --weights-root DIR --gtzan-split track
    python experiments/run.py --smoke

Table 1 is all 13 backbones with their branches; tables 4 to 8 are those of one data set. `DIR` has
a folder for each data set: cifar10, cifar100, speech_commands, gtzan and disco. For each backbone
there are then `backbones/NAME`, `branches/NAME` and `results/NAME.json` in the output folder, and
`experiments/tables.py` prints them beside the paper's numbers. GTZAN split by track has folders of
its own, `NAME-by-track`, and `--keep last` those in `runs/paper-keep-last`.

`--smoke` runs every plan for an epoch on a few stand-in files, through the readers of the real data
sets, to see that all of it works. Nothing that it measures is a result, and everything says so.
"""

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plans import (
    Places,
    SplitBy,
    Trained,
    add_choices,
    backbone_plan,
    branch_plan,
    trained_backbones,
)
from results import data_of_table, read_results
from stand_ins import cifar, disco, gtzan, speech_commands

from offramp.allocator import keep_freed_memory
from offramp.doubts import DoubtWarning
from offramp.run.finetune_plan import FinetunePlan
from offramp.run.finetuning import finetune
from offramp.run.plan import Plan
from offramp.run.steps import train
from offramp.storage.atomic import write_bytes
from offramp.training.settings import Keep

TABLES = (1, 4, 5, 6, 7, 8)
SMOKE = {
    "train": {"epochs": 1, "seeds": [0]},
    "evaluate": {"timing_repeats": 1, "timing_warmup": 0, "bootstrap_draws": 20},
}
"""Changes of a plan of branches for a quick trial."""


def wanted(table: int, only: Sequence[str], gtzan_split: SplitBy = "segment") -> list[Trained]:
    """The backbones of a table, or those of them that are named."""
    every = [
        each
        for each in trained_backbones(gtzan_split)
        if table == 1 or each.data == data_of_table(table)
    ]
    return [each for each in every if not only or str(each) in only]


def write_stand_ins(folder: Path) -> None:
    """A few synthetic files in the layout of each data set.

    With `smoke_changes` there are 8 samples to train on, 4 to validate and 4 to test; of DISCO 2, 1
    and 1.
    """
    cifar.write(folder / "cifar10", 4, 0)
    cifar.write(folder / "cifar100", 20, 0, classes=100, num_tests=4)
    speech_commands.write(folder / "speech_commands", 1, 0, noise_seconds=1.4, held_out=3)
    gtzan.write(folder / "gtzan", 1, 0, samples=3 * gtzan.RATE, held_out=4)
    disco.write(folder / "disco", 2, 0, held_out=1)


def smoke_changes(one: Trained) -> tuple[dict[str, Any], dict[str, Any]]:
    """Changes of a backbone's two plans for a quick trial."""
    data: dict[str, Any] = {"limit": 8}
    if one.data in ("cifar10", "cifar100"):
        data |= {"validation": 4}
    if one.data == "gtzan":
        data |= {"segments": 1}
        if one.split_by == "segment":
            data |= {"validation": 4, "test": 4}
    first: dict[str, Any] = {"data": data, "train": {"epochs": 1}}
    if one.data == "disco":
        first["density"] = {"epochs": 1}
    return first, {**SMOKE, "data": data}


def run_one(
    one: Trained, places: Places, out: Path, device: str, keep: Keep, *, smoke: bool
) -> None:
    """Finetune a backbone, train its branches, and write what was measured."""
    first, second = smoke_changes(one) if smoke else ({}, {})
    finetune(
        FinetunePlan.model_validate(backbone_plan(one, places, keep, **first)),
        places.backbones / str(one),
        device=device,
    )
    run = out / "branches" / str(one)
    train(Plan.model_validate(branch_plan(one, places, keep, **second)), run, device=device)
    content = json.dumps(read_results(one, run).as_json(), indent=1) + "\n"
    write_bytes(out / "results" / f"{one}.json", content.encode())


def main() -> None:
    """Run the backbones that were asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=int, choices=TABLES, default=1)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="repeatable")
    parser.add_argument("--data-root", type=Path, help="folder of the data sets")
    parser.add_argument("--weights-root", type=Path, help="folder of the published weights")
    parser.add_argument(
        "--out", type=Path, help="default: runs/paper, runs/paper-keep-last or runs/smoke"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--smoke", action="store_true", help="every plan, on stand-in files")
    add_choices(parser)
    given = parser.parse_args()
    paper = "runs/paper" if given.keep == "best" else "runs/paper-keep-last"
    out: Path = given.out or Path("runs/smoke" if given.smoke else paper)
    chosen = wanted(given.table, given.only, given.gtzan_split)
    if not chosen:
        names = ", ".join(map(str, wanted(given.table, [], given.gtzan_split)))
        parser.error(f"no backbone of this table is called so; there are {names}")
    if given.smoke:
        write_stand_ins(out / "data")
    elif given.data_root is None:
        parser.error("--data-root is needed, or --smoke")
    if given.smoke:
        warnings.simplefilter("ignore", DoubtWarning)  # eight samples do not have every class
    keep_freed_memory()
    data = out / "data" if given.smoke else given.data_root
    places = Places(data, out / "backbones", given.weights_root)
    for one in chosen:
        start = time.monotonic()
        run_one(one, places, out, given.device, given.keep, smoke=given.smoke)
        note = " (stand-in files, no result)" if given.smoke else ""
        print(f"{one}: done in {time.monotonic() - start:.0f} s{note}", flush=True)


if __name__ == "__main__":
    main()
