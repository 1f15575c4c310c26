"""Wrong things at every public entry point end in one clear error of offramp's, none raw.

`ENTRIES` lists what README and the guides call, each with arguments that work. In turn, every
argument is replaced by each of `WRONG`. The call may succeed (some wrong things are right there),
or raise an OfframpError; anything else would be a traceback from the inside of offramp.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import offramp as orp
from offramp.data import as_samples
from offramp.data.density import with_maps
from offramp.drift import watch
from offramp.errors import OfframpError
from offramp.policy import find_score, load_policies
from offramp.run import OpenRun, open_run
from offramp.run.finetune_plan import load_finetune_plan
from offramp.run.finetuning import finetune
from offramp.run.steps import evaluate, train
from offramp.simulation import FixedRate, simulate
from offramp.spec import FeatureShape

pytestmark = pytest.mark.filterwarnings("ignore")

INTERNAL = {"OfframpError"}
"""Public names that are not called with arguments."""


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(4 * 64, 3)),
    ).eval()


@dataclass(frozen=True, eq=False)
class Entry:
    """A callable and arguments by name that it takes."""

    call: Callable[..., Any]
    valid: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Things:
    """What entries are called with."""

    folder: Path
    images: torch.Tensor
    labels: torch.Tensor
    backbone: orp.StagedBackbone
    model: orp.MultiExit
    outputs: orp.ExitOutputs
    policy: orp.ExitPolicy


@cache
def things() -> Things:
    torch.manual_seed(0)
    folder = Path(mkdtemp())
    images, labels = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
    backbone = orp.cut(network(), ["1"], images[:2])
    branch = orp.ConvBranch(filters=2, hidden=4)
    data = images, labels
    model = orp.fit_branches(backbone, {"1": [branch]}, data, data, seeds=[0], epochs=1)
    many = torch.randn(200, 3, 8, 8), torch.arange(200) % 3
    outputs = model.collect(many, split="calibration")
    policy = orp.ExitPolicy(score=find_score("max_softmax"), names=model.names, thresholds=(0.5,))
    outputs.save(folder / "outputs.npz")
    policy.save(folder / "policy.json")
    model.save(folder / "model")
    orp.export(model, to=folder / "bundle", samples=data)
    return Things(folder, images, labels, backbone, model, outputs, policy)


WITHOUT_SUCCESS = (
    *("finetune", "train", "load_plan", "load_finetune_plan", "evaluate", "open_run"),
    "export",
)
"""Entries whose working arguments would need a trained run, or many seconds."""


def arrays(outputs: orp.ExitOutputs) -> dict[str, Any]:
    names = ("outputs", "labels", "stage_flops", "branch_flops", "names", "ids", "groups")
    return {name: getattr(outputs, name) for name in names}


def on(module: nn.Module) -> Callable[..., Any]:
    """A module as a function whose input has a name."""

    def answer(x: Any) -> Any:
        return module(x)

    return answer


def entries() -> dict[str, Entry]:
    t = things()
    data, out = (t.images, t.labels), t.folder
    branch = orp.ConvBranch(filters=2, hidden=4)
    times: Any = {"stage_ms": np.array([1.0, 2.0]), "branch_ms": np.array([0.1, 0.0])}
    timed = orp.ExitOutputs(**arrays(t.outputs), **times)
    runtime = orp.Runtime(out / "bundle", threads=1)
    opened, picture = OpenRun(t.model, [t.policy]), t.images[0].numpy()
    return {
        "ConvBranch": Entry(orp.ConvBranch, {"kernel": 3, "padding": 0, "pool": 2, "norm": False}),
        "SLViT": Entry(orp.SLViT, {"patch": 2, "dim": 4, "heads": 1, "dropout": 0.1}),
        "SLViT.build": Entry(
            orp.SLViT(patch=2, dim=4, heads=1).build,
            {"features": FeatureShape(4, 8, 8), "num_outputs": 3},
        ),
        "Cut": Entry(orp.Cut, {"name": "a", "after": ("1",), "taps": ("1",)}),
        "cut": Entry(orp.cut, {"model": network(), "after": ["1"], "sample": t.images[:2]}),
        "StagedBackbone": Entry(on(t.backbone), {"x": t.images[:2]}),
        "ExitOutputs": Entry(orp.ExitOutputs, arrays(t.outputs)),
        "ExitOutputs.save": Entry(t.outputs.save, {"path": out / "x.npz"}),
        "ExitOutputs.load": Entry(orp.ExitOutputs.load, {"source": out / "outputs.npz"}),
        "ExitPolicy": Entry(
            orp.ExitPolicy,
            {"score": t.policy.score, "names": t.policy.names, "thresholds": (0.5,)},
        ),
        "ExitPolicy.choose": Entry(t.policy.choose, {"outputs": t.outputs}),
        "ExitPolicy.answers": Entry(t.policy.answers, {"outputs": t.outputs}),
        "ExitPolicy.cost": Entry(t.policy.cost, {"outputs": t.outputs, "unit": "flops"}),
        "ExitPolicy.save": Entry(t.policy.save, {"path": out / "q.json"}),
        "load_policies": Entry(load_policies, {"source": out / "policy.json"}),
        "find_score": Entry(find_score, {"score": "max_softmax"}),
        "FeatureCache": Entry(
            orp.FeatureCache.of, {"backbone": t.backbone, "data": data, "root": out / "cache"}
        ),
        "MultiExit": Entry(orp.MultiExit, {"backbone": t.backbone, "chosen": t.model.chosen}),
        "MultiExit.forward": Entry(on(t.model), {"x": t.images[:2]}),
        "MultiExit.walk": Entry(lambda x: list(t.model.walk(x)), {"x": t.images[:2]}),
        "MultiExit.collect": Entry(t.model.collect, {"data": data, "split": "test"}),
        "MultiExit.save": Entry(t.model.save, {"folder": out / "again"}),
        "MultiExit.load": Entry(
            orp.MultiExit.load,
            {"run": out / "model", "backbone": t.backbone.original, "branches": ()},
        ),
        "calibrate": Entry(
            orp.calibrate,
            {"outputs": t.outputs, "max_drop": 0.9, "confidence": 0.9, "seed": 0, "split": None},
        ),
        "tradeoff": Entry(orp.tradeoff, {"outputs": t.outputs}),
        "fit_branches": Entry(
            orp.fit_branches,
            {
                "backbone": t.backbone,
                "branches": {"1": [branch]},
                "train": data,
                "val": data,
                "seeds": [0],
                "task": "classification",
                "out": out / "fit",
                "epochs": 1,
                "device": "cpu",
                "known": (),
            },
        ),
        "load_plan": Entry(orp.load_plan, {"path": out / "none.yaml", "overrides": ()}),
        "as_samples": Entry(as_samples, {"data": data}),
        "simulate": Entry(
            simulate,
            {
                "outputs": timed,
                "policies": {"a": t.policy},
                "arrivals": FixedRate(per_second=10),
                "deadline_ms": 50,
                "requests": 50,
                "seed": 0,
            },
        ),
        "watch": Entry(
            watch, {"reference": t.outputs, "policy": t.policy, "rate": 0.1, "every": 1, "seed": 0}
        ),
        "open_run": Entry(open_run, {"folder": out / "model", "device": "cpu"}),
        "OpenRun": Entry(OpenRun, {"model": t.model, "policies": [t.policy]}),
        "OpenRun.run": Entry(opened.run, {"sample": picture, "policy": t.policy}),
        "OpenRun.run_batch": Entry(opened.run_batch, {"samples": [picture], "policy": t.policy}),
        "export": Entry(
            partial(orp.export, to=out / "exported", precision="fp8"), {"model": t.model}
        ),
        "Runtime": Entry(orp.Runtime, {"bundle": out / "bundle", "threads": 1}),
        "Runtime.run": Entry(runtime.run, {"sample": picture, "deadline_ms": 5000.0}),
        "Runtime.anytime": Entry(lambda sample: list(runtime.anytime(sample)), {"sample": picture}),
        "Runtime.run_batch": Entry(runtime.run_batch, {"samples": [picture], "policy": t.policy}),
        "Runtime.collect": Entry(runtime.collect, {"data": data, "split": "test"}),
        "with_maps": Entry(with_maps, {"data": (t.images, t.labels), "maps": t.images[:, 0]}),
        "load_finetune_plan": Entry(
            load_finetune_plan, {"path": out / "none.yaml", "overrides": ()}
        ),
        "finetune": Entry(finetune, {"plan": None, "out": out / "backbone"}),
        "train": Entry(train, {"plan": None, "out": out / "run"}),
        "evaluate": Entry(evaluate, {"folder": out / "none"}),
    }


def wrong() -> Iterator[Any]:
    t = things()
    yield from (None, -3, 2.5, float("nan"), "nonsense", "", b"bytes", [], [None], {}, {"a": 1})
    yield from (object(), int, network, Path("/nowhere/x"), np.zeros((2, 3, 4)), np.array(["a"]))
    yield from (torch.zeros(2, 3), network(), network().state_dict(), nn.DataParallel(network()))
    yield from (DataLoader(TensorDataset(t.images, t.labels)), orp.SLViT(), t.policy, t.outputs)
    yield from (t.model, t.backbone)


@pytest.mark.parametrize("name", list(entries()))
def test_wrong_things_end_in_one_clear_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entries()[name]
    monkeypatch.chdir(tmp_path)  # some wrong things are names of files to write
    raw = []
    for argument in entry.valid:
        for thing in wrong():
            try:
                entry.call(**{**entry.valid, argument: thing})
            except OfframpError as error:
                if len(str(error).split()) < 5:
                    raw.append(f"{argument}={thing!r:.60}: too short: {error}")
            except Exception as error:
                raw.append(f"{argument}={thing!r:.60}: {type(error).__name__}: {error}")
    assert raw == []


def test_every_public_name_is_among_the_entries() -> None:
    assert set(orp.__all__) - INTERNAL - {*entries()} == set()


@pytest.mark.parametrize("name", [name for name in entries() if name not in WITHOUT_SUCCESS])
def test_the_arguments_of_an_entry_work(name: str) -> None:
    entry = entries()[name]
    entry.call(**entry.valid)
