"""What a run of the paper's scenarios measured, beside the paper's numbers."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plans import Trained
from scenarios import DATA, KINDS, PRINTED, Kind, Scenario

from offramp.doubts import STAND_IN_DOUBT
from offramp.run.finetune_plan import load_finetune_plan
from offramp.run.plan import load_plan
from offramp.training.settings import Keep

KIND_OF_BRANCH: dict[Kind, str] = {"cnn": "conv", "slvit": "slvit"}
"""Kinds of branch as offramp calls them."""


@dataclass(frozen=True)
class Measured:
    """One kind of branch in one scenario, as a run measured it.

    Attributes:
        mean: Accuracy in percent or error in people, on average over the repeats.
        std: Its standard deviation over the repeats; None for a single one.
        repeats: Number of repeats.
    """

    mean: float
    std: float | None
    repeats: int


@dataclass(frozen=True)
class Results:
    """The results of one backbone.

    Attributes:
        trained: Which.
        stand_in: Whether they were measured on stand-in files, so that they are none.
        final: The backbone's own accuracy in percent, or error in people.
        branches: By place and kind.
        differences: By place, SL-ViT minus CNN with a 95 % interval: difference, low and high.
        keep: Whose epoch's weights were kept, of the backbone and of its branches.
    """

    trained: Trained
    stand_in: bool
    final: float
    branches: Mapping[tuple[str, Kind], Measured]
    differences: Mapping[str, tuple[float, float, float]]
    keep: tuple[Keep, Keep]

    def as_json(self) -> dict[str, Any]:
        """Plain values, the paper's numbers among them."""
        rows = [
            {
                "scenario": str(scenario),
                "branch": kind,
                **vars(self.branches[scenario.place, kind]),
                "paper": scenario.printed[kind],
            }
            for scenario in self.trained.scenarios
            for kind in KINDS
            if (scenario.place, kind) in self.branches
        ]
        return {
            "backbone": str(self.trained),
            **({"split_by": self.trained.split_by} if self.trained.data == "gtzan" else {}),
            "keep": dict(zip(("backbone", "branches"), self.keep, strict=True)),
            "stand_in": self.stand_in,
            "final": self.final,
            "paper_final": printed_final(self.trained.data, self.trained.name),
            "rows": rows,
            "differences": {place: list(each) for place, each in self.differences.items()},
        }


def read_results(trained: Trained, run: Path) -> Results:
    """The results of a finished run, `branches/NAME` beside `backbones/NAME`."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    comparison, scale = metrics["comparison"], 1 if trained.data == "disco" else 100
    kinds = {name: kind for kind, name in KIND_OF_BRANCH.items()}
    places = {scenario.cut: scenario.place for scenario in trained.scenarios}
    branches = {
        (places[row["cut"]], kinds[row["kind"]]): Measured(
            scale * row["value"],
            None if row["std"] is None else scale * row["std"],
            len(row["seeds"]),
        )
        for row in comparison["rows"]
        if row["seeds"]
    }
    differences = {
        places[row["cut"]]: (scale * row["difference"], *(scale * end for end in row["interval"]))
        for row in comparison["differences"]
        if None not in row["interval"]  # of a single test sample
    }
    return Results(
        trained,
        STAND_IN_DOUBT in metrics["warnings"],
        scale * comparison["final"]["value"],
        branches,
        differences,
        (
            load_finetune_plan(run.parents[1] / "backbones" / run.name / "plan.yaml").train.keep,
            load_plan(run / "plan.yaml").train.keep,
        ),
    )


def printed_final(data: str, backbone: str) -> float:
    """The paper's accuracy in percent, or error in people, of a backbone (table 1)."""
    name = "disco_mae" if data == "disco" else f"{data}_acc"
    [row] = [row for row in PRINTED["table1_backbones"] if row["backbone"] == backbone]
    found: float = row[name]
    return found


def printed_mean(scenario: Scenario, kind: Kind) -> tuple[float, float]:
    """The paper's mean and standard deviation of a branch."""
    row = scenario.printed[kind]
    name = "mae" if scenario.data == "disco" else "acc"
    return row[f"{name}_mean"], row[f"{name}_std"]


def data_of_table(number: int) -> str:
    """The data set of one of the tables 4 to 8."""
    [name] = [each.name for each in DATA.values() if each.table.startswith(f"table{number}_")]
    return name


def every_result(folder: Path, wanted: Iterator[Trained]) -> Iterator[Results]:
    """The results of the backbones that have a finished run below a folder."""
    for trained in wanted:
        run = folder / "branches" / str(trained)
        if (run / "metrics.json").exists():
            yield read_results(trained, run)
