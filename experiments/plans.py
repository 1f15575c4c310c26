"""The plans of the paper's 13 backbones and 27 scenarios, made from one table of facts.

    python experiments/plans.py --data-root DIR --out plans [--gtzan-split track] [--keep last]

Each backbone has a plan for `offramp finetune` and one for `offramp train`, which holds both kinds
of branch at all of its places. Each file begins with its command. `DIR` has one folder for each
data set: cifar10, cifar100, speech_commands, gtzan and disco.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from scenarios import AUDIO_VISUAL, DATA, IMAGE_BACKBONES, KINDS, Scenario, scenarios

from offramp.backbones.zoo import describe
from offramp.training.settings import Keep

SplitBy = Literal["segment", "track"]

SEEDS = (0, 1, 2, 3, 4)
"""The paper repeats every training of a branch five times."""
KINDS_OF_DATA = {
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "sc": "speech_commands",
    "gtzan": "gtzan",
    "disco": "disco",
}
"""Kind in a plan and name of the folder, by the short name of a data set."""
KERAS_WEIGHTS = {
    "ResNet152": "resnet152_weights_tf_dim_ordering_tf_kernels.h5",
    "DenseNet201": "densenet201_weights_tf_dim_ordering_tf_kernels.h5",
    "InceptionV3": "inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
}
"""Keras's published files, which the paper's networks start from."""


@dataclass(frozen=True)
class Trained:
    """One of the 13 trained backbones of table 1.

    Attributes:
        data: Short name of its data set.
        name: As the paper writes it.
        split_by: How GTZAN is split: by segment as in the paper, or by track as published.
    """

    data: str
    name: str
    split_by: SplitBy = "segment"

    def __str__(self) -> str:
        suffix = "-by-track" if self.split_by == "track" else ""
        return f"{self.data}-{self.name.lower()}{suffix}"

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """The scenarios on it."""
        return tuple(s for s in scenarios() if (s.data, s.backbone) == (self.data, self.name))

    @property
    def only_norms(self) -> bool:
        """Whether only batch-norm layers and the top are trained (section 4.2)."""
        return self.name in ("ResNet152", "DenseNet201") and self.data in ("cifar10", "cifar100")

    @property
    def batch_size(self) -> int:
        """Of its own training (section 4.2)."""
        if self.name == AUDIO_VISUAL:
            return 4
        return 64 if self.name == "InceptionV3" and self.data in ("cifar10", "cifar100") else 32


def trained_backbones(gtzan_split: SplitBy = "segment") -> Iterator[Trained]:
    """All 13, by data set."""
    for data in DATA:
        for name in (AUDIO_VISUAL,) if data == "disco" else IMAGE_BACKBONES:
            yield Trained(data, name, gtzan_split if data == "gtzan" else "segment")


@dataclass(frozen=True)
class Places:
    """Where data, published weights and trained backbones lie.

    Attributes:
        data: Folder with a folder for each data set.
        backbones: Folder with a folder for each trained backbone.
        weights: Folder with Keras's files and VGGish's; None starts from random weights.
    """

    data: Path
    backbones: Path
    weights: Path | None = None


def data_of(one: Trained, places: Places, **changes: Any) -> dict[str, Any]:
    """The data of a backbone's plans; pictures are scaled as its weights want.

    Spectrograms are not: all layers are trained on them, and batch norm, which follows the first
    convolution, takes away whatever their scale is.
    """
    kind = KINDS_OF_DATA[one.data]
    found: dict[str, Any] = {"kind": kind, "root": str(places.data / kind)}
    if kind in ("cifar10", "cifar100"):
        (wanted,) = describe(f"paper:{one.name.lower()}").inputs
        found |= {"mean": list(wanted.mean), "std": list(wanted.std)}
    if one.split_by == "track":
        found["split_by"] = "track"
    return {**found, **changes}


def backbone_plan(
    one: Trained, places: Places, keep: Keep = "best", **changes: Any
) -> dict[str, Any]:
    """The plan that finetunes a backbone (section 4.2).

    Args:
        one: The backbone.
        places: Where files lie.
        keep: The epoch whose weights are kept; the paper does not say.
        **changes: Sections to update.
    """
    plan: dict[str, Any] = {
        "task": "regression" if one.data == "disco" else "classification",
        "backbone": {"name": f"paper:{one.name.lower()}", "weights": published(one, places)},
        "data": data_of(one, places),
    }
    if one.name == AUDIO_VISUAL:
        stage = {
            "profile": "keras",
            "optimiser": "adamw",
            "keep": keep,
            "epochs": 100,
            "batch_size": 4,
            "lr_decay": 0.99,
        }
        plan |= {
            "top": None,
            "density": {**stage, "lr": 1e-5, "weight_decay": 1e-4},
            "train": {**stage, "lr": 1e-6, "weight_decay": 1e-5},
        }
    else:
        plan |= {
            "trains": "batch_norm" if one.only_norms else "all",
            "train": {
                "profile": "keras",
                "keep": keep,
                "epochs": 100,
                "batch_size": one.batch_size,
                "lr": 1e-4,
            },
        }
    return _updated(plan, changes)


def published(one: Trained, places: Places) -> str | None:
    """The weights that the paper starts from: Keras's file, or the folder of both front ends."""
    if places.weights is None:
        return None
    return str(places.weights / KERAS_WEIGHTS.get(one.name, "front_ends"))


def branch_plan(
    one: Trained, places: Places, keep: Keep = "best", **changes: Any
) -> dict[str, Any]:
    """The plan that trains all branches on a backbone, with the arguments of `backbone_plan`."""
    task = "regression" if one.data == "disco" else "classification"
    plan: dict[str, Any] = {
        "task": task,
        "backbone": {
            "name": f"paper:{one.name.lower()}",
            "weights": str(places.backbones / str(one)),
        },
        "data": data_of(one, places),
        "branches": {
            scenario.cut: [_changed(scenario.branch(kind)) for kind in KINDS]
            for scenario in one.scenarios
        },
        "train": {
            "profile": "keras",
            "keep": keep,
            "epochs": 100,
            "batch_size": DATA[one.data].branch_batch,
            "lr": 1e-4,
            "seeds": list(SEEDS),
        },
    }
    return _updated(plan, changes)


def _changed(branch: Any) -> dict[str, Any]:
    """A branch's kind and the settings that differ from their defaults."""
    return {"kind": branch.kind, **branch.model_dump(mode="json", exclude_defaults=True)}


def _updated(plan: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = {
        name: {**plan.get(name, {}), **part} if isinstance(part, dict) else part
        for name, part in changes.items()
    }
    return {**plan, **merged}


def write_plan(path: Path, command: str, about: str, plan: dict[str, Any]) -> None:
    """Write a plan headed by its command."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(plan, sort_keys=False)
    path.write_text(f"# {about}\n#   {command}\n{text}", encoding="utf-8")


def write_all(
    places: Places, out: Path, gtzan_split: SplitBy = "segment", keep: Keep = "best"
) -> list[Path]:
    """Write the two plans of every backbone; returns the files."""
    written = []
    for one in trained_backbones(gtzan_split):
        made = (("backbones", "finetune", backbone_plan), ("branches", "train", branch_plan))
        for folder, verb, plan in made:
            path = out / folder / f"{one}.yaml"
            to = places.backbones if verb == "finetune" else places.backbones.parent / "branches"
            command = f"offramp {verb} {path} --out {to / str(one)}"
            write_plan(path, command, f"{one.name} on {one.data}.", plan(one, places, keep))
            written.append(path)
    return written


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options for what the paper leaves open."""
    parser.add_argument(
        "--gtzan-split",
        choices=get_args(SplitBy),
        default="segment",
        help="segment, as in the paper, or track, the published split in which no track is shared",
    )
    parser.add_argument(
        "--keep",
        choices=get_args(Keep),
        default="best",
        help="weights of the best epoch in validation, or of the last, which is Keras's default",
    )


def main() -> None:
    """Write the plans."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--weights-root", type=Path, help="folder of Keras's weights files")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper"), help="where runs will be")
    parser.add_argument("--out", type=Path, default=Path("plans"), help="where plans are written")
    add_choices(parser)
    given = parser.parse_args()
    places = Places(given.data_root, given.runs / "backbones", given.weights_root)
    for path in write_all(places, given.out, given.gtzan_split, given.keep):
        print(path)


if __name__ == "__main__":
    main()
