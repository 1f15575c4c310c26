"""The plans of the paper's backbones and scenarios, and a quick trial of one of them."""

import subprocess
import sys
from pathlib import Path

import pytest
from plans import Places, Trained, backbone_plan, branch_plan, trained_backbones, write_all
from scenarios import KINDS, scenarios

from offramp.run.finetune_plan import FinetunePlan, load_finetune_plan
from offramp.run.plan import Plan, load_plan

ROOT = Path(__file__).parents[2]
PLACES = Places(Path("data"), Path("runs/paper/backbones"), Path("weights"))
EVERY = list(trained_backbones())


def test_there_are_thirteen_backbones_and_their_plans_hold_every_scenario() -> None:
    assert len(EVERY) == 13
    found = []
    for one in EVERY:
        plan = Plan.model_validate(branch_plan(one, PLACES))
        for scenario in one.scenarios:
            assert plan.branches[scenario.cut] == tuple(scenario.branch(kind) for kind in KINDS)
            found.append(scenario)
    assert sorted(map(str, found)) == sorted(map(str, scenarios()))
    assert len(found) == 27


@pytest.mark.parametrize("one", EVERY, ids=str)
def test_a_backbone_is_finetuned_and_its_branches_trained_by_the_papers_settings(
    one: Trained,
) -> None:
    first = FinetunePlan.model_validate(backbone_plan(one, PLACES))
    second = Plan.model_validate(branch_plan(one, PLACES))
    assert first.data == second.data
    assert second.backbone.weights == f"runs/paper/backbones/{one}"
    assert second.train.seeds == (0, 1, 2, 3, 4)
    assert (second.train.lr, second.train.lr_min_delta, second.train.adam_epsilon) == (
        1e-4,
        1e-4,
        1e-7,
    )
    assert second.train.batch_size == {"gtzan": 32, "disco": 4}.get(one.data, 64)
    wide = one.name == "InceptionV3" and one.data.startswith("cifar")
    assert first.train.batch_size == (4 if one.data == "disco" else 64 if wide else 32)
    norms = one.name in ("ResNet152", "DenseNet201") and one.data.startswith("cifar")
    assert first.trains == ("batch_norm" if norms else "all")
    stages = [each for each in (first.density, first.train) if each is not None]
    assert [each.adam_epsilon for each in stages] == [1e-7] * (2 if one.data == "disco" else 1)


def test_crowds_are_counted_in_two_stages_that_slow_down_every_epoch() -> None:
    plan = FinetunePlan.model_validate(backbone_plan(EVERY[-1], PLACES))
    assert plan.density is not None
    assert [each.lr for each in (plan.density, plan.train)] == [1e-5, 1e-6]
    assert [each.weight_decay for each in (plan.density, plan.train)] == [1e-4, 1e-5]
    assert [each.lr_decay for each in (plan.density, plan.train)] == [0.99, 0.99]


def test_written_plans_are_headed_by_their_commands_and_load(tmp_path: Path) -> None:
    paths = write_all(PLACES, tmp_path)
    assert len(paths) == 26
    for path in paths:
        verb = "finetune" if path.parent.name == "backbones" else "train"
        assert path.read_text().splitlines()[1].startswith(f"#   offramp {verb} {path} --out ")
        (load_finetune_plan if verb == "finetune" else load_plan)(path)


@pytest.mark.slow
def test_a_quick_trial_runs_on_stand_ins_and_shows_no_number_as_a_result(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")

    def said(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    experiments = ROOT / "experiments"
    name = "cifar100-inceptionv3"
    first = said(f"{experiments / 'run.py'}", "--smoke", "--out", "smoke", "--only", name)
    assert f"{name}: done" in first
    assert "no result" in first
    shown = said(f"{experiments / 'tables.py'}", "--out", "smoke")
    assert shown.count("stand-in") == 1 + 4 + 2
    assert shown.count("0.63M") == 8  # parameters are counted, not measured
    assert "Table 5" in shown
