"""The plans of the paper's backbones and scenarios, and a quick trial of one of them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from plans import Places, Trained, backbone_plan, branch_plan, trained_backbones, write_all
from run import smoke_changes, write_stand_ins
from scenarios import IMAGE_BACKBONES, KINDS, scenarios
from torch import nn

from offramp.backbones.zoo import build
from offramp.data.sounds.gtzan import Gtzan
from offramp.data.sounds.speech_commands import SpeechCommands
from offramp.run.finetune_plan import FinetunePlan, load_finetune_plan
from offramp.run.plan import Plan, load_plan
from offramp.training.settings import Keep

ROOT = Path(__file__).parents[2]
PLACES = Places(Path("data"), Path("runs/paper/backbones"), Path("weights"))
EVERY = list(trained_backbones())


def plan_of(one: Trained) -> FinetunePlan:
    return FinetunePlan.model_validate(backbone_plan(one, PLACES))


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


def test_gtzan_by_track_has_plans_and_folders_of_its_own() -> None:
    every = list(trained_backbones("track"))
    mine = [each for each in every if each not in EVERY]
    assert list(map(str, mine)) == [
        *("gtzan-resnet152-by-track", "gtzan-densenet201-by-track", "gtzan-inceptionv3-by-track"),
    ]
    for one in mine:
        first = FinetunePlan.model_validate(backbone_plan(one, PLACES))
        second = Plan.model_validate(branch_plan(one, PLACES))
        assert isinstance(first.data, Gtzan)
        assert first.data == second.data
        assert first.data.split_by == "track"
        assert second.backbone.weights == f"runs/paper/backbones/{one}"
        assert len(second.branches) == 2
    assert {each.data.split_by for each in map(plan_of, EVERY) if isinstance(each.data, Gtzan)} == {
        "segment"
    }


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_plan_names_the_epoch_whose_weights_are_kept(keep: Keep) -> None:
    for one in EVERY:
        first, second = backbone_plan(one, PLACES, keep), branch_plan(one, PLACES, keep)
        stages = [
            first["train"],
            second["train"],
            *([first["density"]] if one.data == "disco" else []),
        ]
        assert [each["keep"] for each in stages] == [keep] * len(stages)


@pytest.mark.parametrize("name", IMAGE_BACKBONES)
def test_networks_trained_on_spectrograms_do_not_see_their_scale(name: str) -> None:
    """Why the plans leave spectrograms as they are: the first convolution's batch norm."""
    with torch.device("meta"):
        network = build(f"paper:{name.lower()}", num_outputs=10)
    leaves = [each for each in network.modules() if not list(each.children())]
    stem = nn.Sequential(*leaves[:2]).to_empty(device="cpu").train()
    assert isinstance(stem[0], nn.Conv2d)
    assert isinstance(stem[1], nn.BatchNorm2d)
    for layer in stem:
        layer.reset_parameters()  # type: ignore[operator]
    for data in ("sc", "gtzan"):
        plan = plan_of(Trained(data, name))
        assert plan.trains == "all"
        assert isinstance(plan.data, Gtzan | SpeechCommands)
        assert (plan.data.chain.mean, plan.data.chain.std) == ((), ())
    x = torch.rand(5, 3, 33, 31, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(stem(100 * x), stem(10 * x), rtol=0, atol=0.01)


@pytest.mark.filterwarnings("ignore::offramp.doubts.DoubtWarning")  # of GTZAN's segments
def test_a_quick_trial_takes_a_few_samples_of_every_data_set(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    write_stand_ins(tmp_path)
    places = Places(tmp_path, tmp_path / "backbones")
    found = {}
    for one in [*EVERY[::3], list(trained_backbones("track"))[9]]:  # each data set once
        first, second = smoke_changes(one)
        plan = FinetunePlan.model_validate(backbone_plan(one, places, **first))
        assert Plan.model_validate(branch_plan(one, places, **second)).data == plan.data
        splits = plan.data.load()
        assert splits.stand_in
        found[str(one)] = tuple(len(samples) for samples in splits.named().values())
    assert len(found) == 6
    assert found.pop("disco-audiocsrnet") == (2, 1, 1)
    assert {*found.values()} == {(8, 4, 4)}


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
