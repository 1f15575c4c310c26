"""Prints tables 1 and 4 to 8 of the paper with our numbers beside the paper's.

    python experiments/tables.py --out runs/paper [--table 4]

It reads the runs that `experiments/run.py` wrote. What was measured on stand-in files is no result,
and is shown as `stand-in`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from plans import trained_backbones
from results import Results, data_of_table, every_result, printed_final, printed_mean
from scenarios import KINDS, Kind, Scenario

from offramp.table import Table

TABLES = (1, 4, 5, 6, 7, 8)
STAND_IN = "stand-in"


def backbone_table(found: Sequence[Results]) -> Table:
    """Table 1: the backbones."""
    return Table.of(
        ("backbone", [str(each.trained) for each in found]),
        ("paper", [f"{printed_final(each.trained):.2f}" for each in found]),
        ("ours", [_number(each, each.final) for each in found]),
        ("difference", [_change(each, each.final, printed_final(each.trained)) for each in found]),
        title="Table 1: accuracy in percent, or mean absolute error in people",
        left=1,
    )


def branch_table(number: int, found: Sequence[Results]) -> Table:
    """One of the tables 4 to 8: the branches of a data set."""
    data = data_of_table(number)
    rows = [
        _row(each, scenario, kind)
        for each in found
        if each.trained.data == data
        for scenario in each.trained.scenarios
        for kind in KINDS
    ]
    head = ["backbone", "place", "branch", "paper", "ours", "difference", "repeats"]
    head += ["SL-ViT minus CNN: paper", "ours, 95 % interval"]
    unit = "mean absolute error in people" if data == "disco" else "accuracy in percent"
    return Table(head, rows, title=f"Table {number}: {unit}", left=3)


def _row(found: Results, scenario: Scenario, kind: Kind) -> list[str]:
    mean, std = printed_mean(scenario, kind)
    ours = found.branches.get((scenario.place, kind))
    cells = [scenario.backbone, scenario.place, kind, f"{mean:.2f} ± {std:.2f}"]
    if ours is None:
        return [*cells, "failed", "", "", "", ""]
    spread = "" if ours.std is None else f" ± {ours.std:.2f}"
    shown = STAND_IN if found.stand_in else f"{ours.mean:.2f}{spread}"
    cells += [shown, _change(found, ours.mean, mean), str(ours.repeats)]
    if kind == "cnn":
        return [*cells, "", ""]
    return [*cells, f"{mean - printed_mean(scenario, 'cnn')[0]:+.2f}", _pair(found, scenario.place)]


def _pair(found: Results, place: str) -> str:
    if found.stand_in or place not in found.differences:
        return STAND_IN if found.stand_in else ""
    difference, low, high = found.differences[place]
    return f"{difference:+.2f}, {low:+.2f} to {high:+.2f}"


def _number(found: Results, value: float) -> str:
    return STAND_IN if found.stand_in else f"{value:.2f}"


def _change(found: Results, ours: float, paper: float) -> str:
    return "" if found.stand_in else f"{ours - paper:+.2f}"


def main() -> None:
    """Print the tables that have results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/paper"), help="as for run.py")
    parser.add_argument("--table", type=int, choices=TABLES, help="only this one")
    given = parser.parse_args()
    found = list(every_result(given.out, trained_backbones()))
    if not found:
        parser.error(f"{given.out} holds no results. Write some with experiments/run.py first.")
    for number in TABLES if given.table is None else (given.table,):
        rows = [each for each in found if number == 1 or each.trained.data == data_of_table(number)]
        if rows:
            print(backbone_table(rows) if number == 1 else branch_table(number, rows), end="\n\n")


if __name__ == "__main__":
    main()
