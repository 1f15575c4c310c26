"""Prints tables 1 and 4 to 8 of the paper with our numbers beside the paper's.

    python experiments/tables.py --out runs/paper [--table 4]

It reads the runs that `experiments/run.py` wrote, and counts parameters and FLOPs as
`experiments/accounting.py` does, which takes about a minute. What was measured on stand-in files is
no result, and is shown as `stand-in`.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from accounting import Account, account
from plans import SplitBy, trained_backbones
from results import Results, data_of_table, every_result, printed_final, printed_mean
from scenarios import AUDIO_VISUAL, DATA, IMAGE_BACKBONES, KINDS, Kind, Scenario

from offramp.table import Table

TABLES = (1, 4, 5, 6, 7, 8)
STAND_IN = "stand-in"
HEADS = {
    "cifar10": "CIFAR-10 Acc.",
    "cifar100": "CIFAR-100 Acc.",
    "sc": "SC Acc.",
    "gtzan": "GTZAN Acc.",
    "disco": "DISCO MAE",
}
"""Heads of table 1, by the short name of a data set."""

SPLITS: dict[SplitBy, str] = {
    "segment": "split by segment, as in the paper",
    "track": "split by track, while the paper splits by segment",
}
"""How GTZAN is split, in the title of table 7."""

Count = Callable[[Scenario, Kind], Account]
"""Counts the parameters and FLOPs of a branch."""


def backbone_table(found: Sequence[Results]) -> Table:
    """Table 1: backbones by data sets, each with the paper's number, ours and the difference."""
    names = [*IMAGE_BACKBONES, AUDIO_VISUAL]
    head = ["backbone", "", *(HEADS[data] for data in DATA)]
    columns = [_backbone_cells(data, names, _split(found, "segment")) for data in DATA]
    if by_track := _split(found, "track"):
        head.append("GTZAN Acc. by track")
        columns.append(_without_paper(_backbone_cells("gtzan", names, by_track)))
    rows = [
        [names[place // 3], ("paper", "ours", "difference")[place % 3], *cells]
        for place, cells in enumerate(zip(*columns, strict=True))
    ]
    title = f"Table 1: accuracy in percent, or mean absolute error in people; {_kept(found, 0)}"
    return Table(head, rows, title=title, left=2)


def _backbone_cells(data: str, names: Sequence[str], found: Sequence[Results]) -> list[str]:
    """Three cells for each backbone, dashes where the paper does not use it for this data."""
    ours = {each.trained.name: each for each in found if each.trained.data == data}
    used = (AUDIO_VISUAL,) if data == "disco" else IMAGE_BACKBONES
    cells = []
    for name in names:
        if name not in used:
            cells += ["-"] * 3
            continue
        paper, one = printed_final(data, name), ours.get(name)
        cells += [f"{paper:.2f}"]
        cells += (
            ["", ""] if one is None else [_number(one, one.final), _change(one, one.final, paper)]
        )
    return cells


def _without_paper(cells: Sequence[str]) -> list[str]:
    """Cells of table 1 for a split that is not the paper's: ours alone."""
    return [cell if place % 3 == 1 else "-" for place, cell in enumerate(cells)]


def _split(found: Sequence[Results], split_by: SplitBy) -> list[Results]:
    return [each for each in found if each.trained.split_by == split_by]


def _kept(found: Sequence[Results], place: int) -> str:
    """Names the setting `keep` of backbones (0) or branches (1)."""
    return f"keep: {' and '.join(sorted({each.keep[place] for each in found}))}"


def branch_table(
    number: int,
    found: Sequence[Results],
    count: Count = account,
    split_by: SplitBy = "segment",
) -> Table:
    """One of the tables 4 to 8: the branches of a data set.

    Args:
        number: Of the table.
        found: Results; those of other data sets and splits are left out.
        count: What counts parameters and FLOPs.
        split_by: How GTZAN is split; the paper's numbers are always of its split by segment.
    """
    data = data_of_table(number)
    found = [each for each in _split(found, split_by) if each.trained.data == data]
    rows = [
        [
            *_accuracy(each, scenario, kind),
            *_cost(count(scenario, kind)),
            *_pair(each, scenario, kind),
        ]
        for each in found
        for scenario in each.trained.scenarios
        for kind in KINDS
    ]
    head = ["backbone", "place", "branch", "paper", "ours", "difference", "repeats"]
    head += ["Branch Params", "paper", "Total FLOPS", "paper", "Acceleration", "paper"]
    head += ["SL-ViT minus CNN: paper", "ours, 95 % interval"]
    unit = "mean absolute error in people" if data == "disco" else "accuracy in percent"
    split = f" ({SPLITS[split_by]})" if data == "gtzan" else ""
    return Table(head, rows, title=f"Table {number}{split}: {unit}; {_kept(found, 1)}", left=3)


def _accuracy(found: Results, scenario: Scenario, kind: Kind) -> list[str]:
    mean, std = printed_mean(scenario, kind)
    ours = found.branches.get((scenario.place, kind))
    cells = [scenario.backbone, scenario.place, kind, f"{mean:.2f} ± {std:.2f}"]
    if ours is None:
        return [*cells, "failed", "", ""]
    spread = "" if ours.std is None else f" ± {ours.std:.2f}"
    shown = STAND_IN if found.stand_in else f"{ours.mean:.2f}{spread}"
    return [*cells, shown, _change(found, ours.mean, mean), str(ours.repeats)]


def _cost(one: Account) -> list[str]:
    """Branch Params, Total FLOPS and Acceleration, each with the paper's."""
    fast = one.kind == "slvit"  # the paper gives no acceleration by CNN branches
    return [
        f"{one.params / 1e6:.2f}M",
        f"{one.printed['params_m']:.2f}M",
        f"{one.total / 1e9:.2f}B",
        f"{one.printed['flops_b']:.2f}B",
        f"{one.acceleration:.2f}" if fast else "",
        f"{one.scenario.printed['acceleration_slvit']:.2f}" if fast else "",
    ]


def _pair(found: Results, scenario: Scenario, kind: Kind) -> list[str]:
    """How much better SL-ViT is than the CNN: the paper's difference and ours."""
    if kind == "cnn":
        return ["", ""]
    paper = f"{printed_mean(scenario, 'slvit')[0] - printed_mean(scenario, 'cnn')[0]:+.2f}"
    if found.stand_in or scenario.place not in found.differences:
        return [paper, STAND_IN if found.stand_in else ""]
    difference, low, high = found.differences[scenario.place]
    return [paper, f"{difference:+.2f}, {low:+.2f} to {high:+.2f}"]


def _number(found: Results, value: float) -> str:
    return STAND_IN if found.stand_in else f"{value:.2f}"


def _change(found: Results, ours: float, paper: float) -> str:
    return "" if found.stand_in else f"{ours - paper:+.2f}"


def made_tables(number: int, found: Sequence[Results], count: Count = account) -> list[Table]:
    """What there is of one of the tables; GTZAN's is made once for each way to split it."""
    if number == 1:
        return [backbone_table(found)] if found else []
    of_data = [each for each in found if each.trained.data == data_of_table(number)]
    return [
        branch_table(number, of_data, count, split_by)
        for split_by in SPLITS
        if _split(of_data, split_by)
    ]


def main() -> None:
    """Print the tables that have results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/paper"), help="as for run.py")
    parser.add_argument("--table", type=int, choices=TABLES, help="only this one")
    given = parser.parse_args()
    every = dict.fromkeys(one for split_by in SPLITS for one in trained_backbones(split_by))
    found = list(every_result(given.out, iter(every)))
    if not found:
        parser.error(f"{given.out} holds no results. Write some with experiments/run.py first.")
    for number in TABLES if given.table is None else (given.table,):
        for table in made_tables(number, found):
            print(table, end="\n\n")


if __name__ == "__main__":
    main()
