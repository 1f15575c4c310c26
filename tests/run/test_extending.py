"""A bigger plan extends a finished run; all else is refused."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from offramp.data import Splits, as_samples
from offramp.errors import BundleError, OfframpWarning, PlanError
from offramp.run.plan import Plan
from offramp.run.results import RunResult
from offramp.run.steps import evaluate, train
from offramp.run.stored import load_result
from offramp.storage.folder import changing
from offramp.storage.manifest import RUN

pytestmark = pytest.mark.slow  # whole runs, which take some seconds each

Go = Callable[..., RunResult]

NETWORK = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 7, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 3),
    )
"""
SMALL: dict[str, Any] = {
    "backbone": {"name": "python"},
    "data": {"kind": "fashion_mnist"},
    "branches": {"1": [{"kind": "conv", "filters": 2, "hidden": 5}]},
    "train": {"lr": 1e-3, "seeds": [1], "epochs": 2, "batch_size": 16},
    "evaluate": {"timing_repeats": 0, "bootstrap_draws": 20},
}
BIGGER: dict[str, Any] = {
    **SMALL,
    "branches": {
        "1": [{"kind": "conv", "filters": 3, "hidden": 5}, *SMALL["branches"]["1"]],
        "3": [{"kind": "conv", "filters": 2, "hidden": 5, "standardise": True}],
    },
    "train": {**SMALL["train"], "lr": [3e-3, 1e-3], "seeds": [0, 1]},
}


def plan(**changes: Any) -> Plan:
    return Plan.model_validate({**SMALL, **changes})


@pytest.fixture(scope="module")
def splits() -> Splits:
    rng = np.random.default_rng(1)
    parts = {}
    for name, count in (("train", 40), ("validation", 21), ("calibration", 22), ("test", 23)):
        pictures = rng.normal(size=(count, 2, 8, 6)).astype(np.float32)
        parts[name] = as_samples((pictures, rng.integers(0, 3, count)))
    return Splits.of(parts, target_names=("ant", "bee", "cow"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("code") / "network.py"
    file.write_text(NETWORK)
    return f"{file}:network"


@pytest.fixture(scope="module")
def go(network: str, splits: Splits) -> Go:
    def call(plan: Plan, folder: Path, **options: Any) -> RunResult:
        return train(plan, folder, **{"splits": splits, "backbone_file": network, **options})

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, go: Go) -> Path:
    """A finished run of the small plan, to be copied and not to be changed."""
    return go(plan(), tmp_path_factory.mktemp("runs") / "small").folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def weights(result: RunResult) -> dict[str, Tensor]:
    """By cut, label, seed and name."""
    return {
        f"{trial.cut} {trial.label} {trial.seed} {name}": value
        for trial in result.model.trials
        for name, value in trial.branch.state_dict().items()
    }


def contents(folder: Path) -> dict[str, bytes]:
    """All of a run folder but its work folder."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "work" not in path.parts]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.name[0] != "."}


def seeds(*wanted: int) -> Plan:
    return plan(train={**SMALL["train"], "seeds": wanted})


@pytest.mark.slow
def test_an_extended_run_is_a_fresh_run_of_the_bigger_plan_bit_for_bit(
    go: Go, finished: Path, folder: Path, network: str, tmp_path: Path
) -> None:
    bigger = Plan.model_validate(BIGGER)
    extended, fresh = go(bigger, folder), go(bigger, tmp_path / "fresh")
    assert len(fresh.model.trials) == 3 * 2 * 2
    assert list(weights(extended)) == list(weights(fresh))
    torch.testing.assert_close(weights(extended), weights(fresh), rtol=0, atol=0)
    old, new = load_result(finished, network), weights(extended)
    for name, value in weights(old).items():
        assert torch.equal(new[name.replace("mlp5", "mlp5-lr0.001")], value)
    ours, theirs = contents(folder), contents(tmp_path / "fresh")
    assert ours.keys() == theirs.keys()
    same = [name for name in theirs if name.startswith(("model", "plan", "outputs"))]
    assert len(same) == 7
    assert all(ours[name] == theirs[name] for name in same)


def test_only_new_branches_are_trained_on_the_existing_taps(go: Go, folder: Path) -> None:
    told: list[str] = []
    result = go(seeds(1, 2), folder, progress=lambda what, *_: told.append(what))
    assert result.work_done == "1 branch trained, 1 kept from the earlier run"
    trained = {what for what in told if what.startswith("training 1 branch")}
    assert trained
    assert all("seed 2" in what for what in trained)
    assert not [what for what in told if what.startswith(("taps of", "scales of"))]


def test_without_the_work_folder_taps_are_computed_again_and_old_branches_stay(
    go: Go, folder: Path, network: str
) -> None:
    before = weights(load_result(folder, network))
    shutil.rmtree(folder / "work")
    told: list[str] = []
    result = go(seeds(1, 2), folder, progress=lambda what, *_: told.append(what))
    assert [what for what in told if what.startswith("taps of training")]
    assert not [what for what in told if "seed 1" in what]
    assert {name: weights(result)[name] for name in before}.keys() == before.keys()
    assert all(torch.equal(weights(result)[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"train": {**SMALL["train"], "seeds": [0, 2]}}, "train.seeds"),
        ({"train": {**SMALL["train"], "lr": [1e-2, 1e-4]}}, "train.lr"),
        ({"train": {**SMALL["train"], "seeds": [1, 2], "epochs": 3}}, "train.epochs"),
        ({"branches": {"1": [{"kind": "conv", "filters": 3}]}}, "branches.1"),
        ({"branches": {"3": SMALL["branches"]["1"]}}, "branches.1"),
        ({"evaluate": {"timing_repeats": 1, "bootstrap_draws": 20}}, "evaluate.timing_repeats"),
    ],
)
def test_a_plan_that_lacks_or_changes_something_is_refused_with_the_key(
    go: Go, finished: Path, changes: dict[str, Any], keys: str
) -> None:
    before = contents(finished)
    with pytest.raises(PlanError, match=f"the two plans differ in {re.escape(keys)}\\."):
        go(plan(**changes), finished)
    assert contents(finished) == before


def test_the_plan_that_a_run_extends_is_refused_with_the_plan_of_the_run(
    go: Go, folder: Path
) -> None:
    go(seeds(1, 2), folder)
    with pytest.raises(
        PlanError, match=r"has since been extended beyond this plan, in .*train\.seeds.*plan\.yaml"
    ) as caught:
        go(seeds(1), folder)
    assert "delete" not in str(caught.value)


@pytest.mark.slow
def test_a_stopped_extension_leaves_the_old_run_and_the_same_call_resumes(
    go: Go, folder: Path, network: str, tmp_path: Path
) -> None:
    def stop(what: str, *_: int) -> None:
        if "epoch 2/2" in what or what.startswith("test"):
            raise KeyboardInterrupt

    before = contents(folder)
    with pytest.raises(KeyboardInterrupt):
        go(seeds(1, 2, 3), folder, progress=stop)
    assert contents(folder) == before
    assert load_result(folder, network).plan == plan()
    resumed, fresh = go(seeds(1, 2, 3), folder), go(seeds(1, 2, 3), tmp_path / "fresh")
    torch.testing.assert_close(weights(resumed), weights(fresh), rtol=0, atol=0)
    assert load_result(folder, network).plan == seeds(1, 2, 3)
    assert not (folder / "work" / "extension.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [["policy.json", "policy-without-0.json"], ["policy-without-0.json"]]
)
def test_a_policy_stays_only_while_the_exits_are_those_it_was_calibrated_for(
    go: Go, folder: Path, network: str, splits: Splits, names: list[str]
) -> None:
    with changing(folder, RUN) as staged:
        for name in names:
            (staged / name).write_text("{}")
    evaluate(folder, splits=splits, backbone_file=network)
    assert all((folder / name).exists() for name in names)
    with pytest.warns(OfframpWarning, match="was calibrated for exits that the run no longer has"):
        go(plan(branches=BIGGER["branches"]), folder)
    assert not any((folder / name).exists() for name in names)


def test_a_finished_run_says_that_nothing_was_trained(go: Go, finished: Path) -> None:
    assert go(plan(), finished).work_done.startswith("nothing was trained")


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_by_a_bigger_plan(go: Go, tmp_path: Path) -> None:
    def stop(what: str, *_: int) -> None:
        if "epoch 2/2" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(plan(), tmp_path / "run", progress=stop)
    result = go(seeds(1, 2), tmp_path / "run")
    assert [trial.seed for trial in result.model.trials] == [1, 2]
    with pytest.raises(PlanError, match=r"train\.seeds"):
        go(plan(), tmp_path / "run")


def test_a_backbone_that_has_changed_since_is_refused(go: Go, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(NETWORK.replace("manual_seed(0)", "manual_seed(1)"))
    with pytest.raises(BundleError, match="is not the one"):
        go(seeds(1, 2), folder, backbone_file=f"{other}:network")
