"""The paper's 13 backbones (table 1) and 27 scenarios (tables 3 to 8), as one table of facts."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from offramp.branches import ConvBranch, SLViT

Kind = Literal["cnn", "slvit"]
KINDS: tuple[Kind, ...] = ("cnn", "slvit")
PRINTED: dict[str, Any] = json.loads(Path(__file__).with_name("tables.json").read_text())
"""Every number of tables 1 to 13, as printed."""


@dataclass(frozen=True)
class DataFacts:
    """A data set of the paper.

    Attributes:
        name: As plans call it.
        table: Key of its table of results.
        outputs: Classes, or 1 for a count.
        branch_batch: Batch size for branches (section 4.3).
    """

    name: str
    table: str
    outputs: int
    branch_batch: int


DATA = {
    each.name: each
    for each in (
        DataFacts("cifar10", "table4_cifar10", 10, 64),
        DataFacts("cifar100", "table5_cifar100", 100, 64),
        DataFacts("sc", "table6_speech_commands", 12, 64),
        DataFacts("gtzan", "table7_gtzan", 10, 32),
        DataFacts("disco", "table8_disco", 1, 4),
    )
}
IMAGE_BACKBONES = ("ResNet152", "DenseNet201", "InceptionV3")
AUDIO_VISUAL = "AudioCSRNet"


@dataclass(frozen=True)
class Scenario:
    """A data set, a backbone and a place in it.

    Attributes:
        data: Name of the data set.
        backbone: As the paper writes it.
        place: As the paper writes it: 1 or 2; V1, AV1 or AV2.
    """

    data: str
    backbone: str
    place: str

    def __str__(self) -> str:
        return f"{self.data} {self.backbone} {self.place}"

    @property
    def cut(self) -> str:
        """The name of the cut in offramp's backbone."""
        return self.place if self.backbone == AUDIO_VISUAL else f"paper:{self.place}"

    @property
    def outputs(self) -> int:
        """Of the backbone and its branches."""
        return DATA[self.data].outputs

    @property
    def printed(self) -> dict[str, Any]:
        """The row of the paper's table."""
        rows: list[dict[str, Any]] = PRINTED[DATA[self.data].table]
        [row] = [
            each
            for each in rows
            if (each["backbone"], each["branch"]) == (self.backbone, self.place)
        ]
        return row

    def branch(self, kind: Kind) -> SLViT | ConvBranch:
        """The paper's branch here: section 3.1 for the CNN, table 3 for SL-ViT."""
        if kind == "cnn":
            return ConvBranch(padding=1, pool=4) if self.data == "disco" else ConvBranch()
        if self.backbone == AUDIO_VISUAL:
            return SLViT(patch=8)
        if self.backbone == "InceptionV3":
            wide = self.data == "cifar100"
            return SLViT(patch=5, dim=36, heads=8) if wide else SLViT(patch=5)
        many = (self.backbone, self.place) == ("ResNet152", "2") and self.data in ("sc", "gtzan")
        # Table 7 marks the one branch whose last residual connection is removed.
        return SLViT(heads=24 if many else 12, last_residual=not (many and self.data == "gtzan"))


def scenarios() -> Iterator[Scenario]:
    """All 27, in the order of tables 4 to 8."""
    for data in DATA:
        if data == "disco":
            yield from (Scenario(data, AUDIO_VISUAL, place) for place in ("V1", "AV1", "AV2"))
        else:
            yield from (Scenario(data, name, p) for name in IMAGE_BACKBONES for p in ("1", "2"))


@cache
def explained() -> dict[tuple[Scenario, Kind], str]:
    """Branches whose size is not the printed one, and why."""
    return {
        (Scenario("gtzan", "ResNet152", "2"), "slvit"): (
            "table 3 says 24 heads, table 7's 0.83 M needs 23 (834,538)"
        )
    }
