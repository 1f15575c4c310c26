"""Prints sizes, FLOPs and accelerations of all 27 scenarios beside the paper's, without any data.

    python experiments/accounting.py [--convention paper|2mac] [--json PATH]

Nothing is trained and no value is computed: networks and branches are built without values and
counted. Numbers are compared at the precision that the paper prints. It takes about a minute.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from scenarios import AUDIO_VISUAL, KINDS, Kind, Scenario, explained, scenarios

from offramp.backbones.paper.audiocsrnet import AudioCSRNet
from offramp.backbones.staged import StagedBackbone, cut
from offramp.backbones.top import dense_top
from offramp.backbones.zoo import build, describe
from offramp.compute import count_flops, count_params
from offramp.cost import Convention, own_path
from offramp.spec import dims
from offramp.table import Table

CLASSES = 10  # of the backbone that is cut; other tops are counted apart
PICTURE = 576, 1024  # height and width for AudioCSRNet


@dataclass(frozen=True)
class Account:
    """One kind of branch in one scenario.

    Attributes:
        params: Of the branch.
        whole: FLOPs of the backbone.
        total: FLOPs of the backbone up to the branch, and of the branch.
    """

    scenario: Scenario
    kind: Kind
    params: int
    whole: int
    total: int

    @property
    def printed(self) -> dict[str, Any]:
        """The paper's numbers of this branch."""
        row: dict[str, Any] = self.scenario.printed[self.kind]
        return row

    @property
    def acceleration(self) -> float:
        """As the paper computes it, from figures that are rounded already."""
        return round(self.whole / 1e9, 2) / round(self.total / 1e9, 2)

    @property
    def size_agrees(self) -> bool:
        """Whether the branch has the printed number of parameters, in millions."""
        return f"{self.params / 1e6:.2f}" == f"{self.printed['params_m']:.2f}"

    @property
    def total_agrees(self) -> bool:
        """Whether the total is the printed one, in billions."""
        return f"{self.total / 1e9:.2f}" == f"{self.printed['flops_b']:.2f}"

    @property
    def acceleration_agrees(self) -> bool | None:
        """Whether the acceleration is the printed one; None where none is printed."""
        if self.kind != "slvit":
            return None
        return f"{self.acceleration:.2f}" == f"{self.scenario.printed['acceleration_slvit']:.2f}"


def accounts(convention: Convention) -> list[Account]:
    """All 54, in the order of the tables."""
    return [account(each, kind, convention) for each in scenarios() for kind in KINDS]


def account(scenario: Scenario, kind: Kind, convention: Convention = "paper") -> Account:
    """Count one branch and its path."""
    cuts, stages = stage_flops(scenario.backbone, scenario.outputs, convention)
    taps = tap_shapes(scenario)
    branch = scenario.branch(kind).build(taps, scenario.outputs)
    inputs = tuple(torch.zeros(1, *dims(shape), device="meta") for shape in taps)
    branches = [0] * len(stages)
    place = cuts.index(scenario.cut)
    branches[place] = count_flops(branch, inputs, convention)
    total = int(own_path(stages, branches)[place])
    return Account(scenario, kind, count_params(branch), sum(stages), total)


def tap_shapes(scenario: Scenario) -> tuple[Any, ...]:
    """Shapes of a scenario's taps at the paper's size of input."""
    return staged(scenario.backbone).tap_shapes[scenario.cut]


@cache
def stage_flops(
    name: str, outputs: int, convention: Convention
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the cuts, and FLOPs of each stage of a backbone with so many outputs."""
    backbone = staged(name)
    stages = ten_classes(name, convention)
    if name == AUDIO_VISUAL:
        return backbone.cuts, stages
    features = torch.zeros(1, 1920 if name == "DenseNet201" else 2048)
    ten, wanted = (
        count_flops(dense_top(features.shape[1], k), (features,), convention)
        for k in (CLASSES, outputs)
    )
    return backbone.cuts, (*stages[:-1], stages[-1] - ten + wanted)


@cache
def ten_classes(name: str, convention: Convention) -> tuple[int, ...]:
    """FLOPs of each stage, with ten classes where there are classes."""
    return staged(name).stage_flops(convention)


@cache
def staged(name: str) -> StagedBackbone:
    """The paper's backbone, cut at its places."""
    row = describe(f"paper:{name.lower()}")
    cuts = list(row.cuts.values())
    if name == AUDIO_VISUAL:
        sample = torch.zeros(1, 3, *PICTURE), torch.zeros(1, 1, 96, 64)
        return cut(AudioCSRNet(*PICTURE).eval(), cuts, sample)
    backbone = build(row.name, num_outputs=CLASSES)
    return cut(backbone, cuts, torch.zeros(1, 3, 224, 224))


def table(found: Sequence[Account]) -> Table:
    """Ours beside the paper's."""
    head = [
        *("scenario", "branch", "M params", "paper", "params"),
        *("total B", "paper", "acceleration", "paper", ""),
    ]
    return Table(head, [_row(each) for each in found], left=2)


def _row(one: Account) -> list[str]:
    misses = [
        name
        for name, agrees in (
            ("size", one.size_agrees),
            ("total", one.total_agrees),
            ("acceleration", one.acceleration_agrees),
        )
        if agrees is False
    ]
    ours = f"{one.acceleration:.2f}" if one.kind == "slvit" else ""
    theirs = f"{one.scenario.printed['acceleration_slvit']:.2f}" if one.kind == "slvit" else ""
    return [
        str(one.scenario),
        one.kind,
        f"{one.params / 1e6:.2f}",
        f"{one.printed['params_m']:.2f}",
        f"{one.params:,}",
        f"{one.total / 1e9:.2f}",
        f"{one.printed['flops_b']:.2f}",
        ours,
        theirs,
        f"differs: {', '.join(misses)}" if misses else "",
    ]


def summary(found: Sequence[Account]) -> str:
    """How many of the paper's numbers come out, and why a size that does not is another one."""
    fast = [each.acceleration_agrees for each in found if each.acceleration_agrees is not None]
    lines = [
        f"sizes          {sum(each.size_agrees for each in found)} of {len(found)}",
        f"total FLOPs    {sum(each.total_agrees for each in found)} of {len(found)}",
        f"accelerations  {sum(fast)} of {len(fast)}",
        *(
            f"{each.scenario}, {each.kind}: {explained()[each.scenario, each.kind]}"
            for each in found
            if not each.size_agrees and (each.scenario, each.kind) in explained()
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--convention", choices=["paper", "2mac"], default="paper")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    given = parser.parse_args()
    found = accounts(given.convention)
    print(table(found))
    if given.convention == "paper":
        print(summary(found))
    if given.json is not None:
        rows = [
            {
                "scenario": str(each.scenario),
                "branch": each.kind,
                "params": each.params,
                "total_flops": each.total,
                "backbone_flops": each.whole,
                "paper": each.printed,
            }
            for each in found
        ]
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
