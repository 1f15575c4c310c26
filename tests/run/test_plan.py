from pathlib import Path

import pytest

from offramp.branches import ConvBranch, SLViT
from offramp.errors import CutError, PlanError
from offramp.run.plan import Plan, load_plan
from offramp.run.prepare import prepare_run

PLAN = """
backbone: {name: "torchvision:resnet18", num_outputs: 10}
data: {kind: fashion_mnist, image_size: 64}
branches:
  layer1: [{kind: slvit, patch: 4, dim: 8, heads: 2}, {kind: conv}]
  layer2.0.conv1: [{kind: conv, layers: 0, pool: global}]
train: {lr: 1e-3, seeds: [0, 1]}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def test_a_plan_becomes_the_specs_that_python_uses(path: Path) -> None:
    plan = load_plan(path)
    assert plan.branches["layer1"] == (SLViT(patch=4, dim=8, heads=2), ConvBranch())
    assert plan.train.lr == 1e-3


def test_the_written_plan_reads_back_as_the_same_plan(path: Path, tmp_path: Path) -> None:
    plan = load_plan(path)
    (tmp_path / "again.yaml").write_text(plan.to_yaml())
    assert load_plan(tmp_path / "again.yaml") == plan


def test_three_mistakes_are_reported_together(path: Path) -> None:
    text = PLAN.replace("patch: 4", "pach: 4").replace("fashion_mnist", "fashion")
    path.write_text(text.replace("lr: 1e-3", "lr: -1"))
    with pytest.raises(PlanError) as caught:
        load_plan(path)
    message = str(caught.value)
    assert "3 mistakes" in message
    assert "branches.layer1.0.slvit.pach: no such setting, did you mean 'patch'?" in message
    assert "data: " in message
    assert "'fashion_mnist'" in message
    assert "train.lr: " in message


def test_an_unknown_backbone_counts_as_a_mistake_of_the_plan(path: Path) -> None:
    path.write_text(PLAN.replace("resnet18", "resnet81").replace("lr: 1e-3", "lrr: 1e-3"))
    with pytest.raises(PlanError) as caught:
        load_plan(path)
    assert "2 mistakes" in str(caught.value)
    assert "torchvision:resnet18" in str(caught.value)
    assert "train.lrr" in str(caught.value)


def test_a_wrong_kind_lists_the_kinds(path: Path) -> None:
    path.write_text(PLAN.replace("kind: slvit", "kind: slvt"))
    expected = r"branches\.layer1\.0: no such kind, did you mean 'slvit'\? \(got 'slvt'; there are "
    with pytest.raises(PlanError, match=f"{expected}slvit, conv"):
        load_plan(path)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("{image_size: 64}", "data: give its kind"),
        ("photos", "data: write it as settings, `key: value`"),
    ],
)
def test_settings_without_a_kind_are_refused_in_words_of_plans(
    path: Path, data: str, expected: str
) -> None:
    path.write_text(PLAN.replace("{kind: fashion_mnist, image_size: 64}", data))
    with pytest.raises(PlanError, match=expected):
        load_plan(path)


def test_set_reaches_values_below_keys_with_dots(path: Path) -> None:
    plan = load_plan(path, ["train.lr=3e-4", "branches.layer2.0.conv1=[{kind: conv, filters: 7}]"])
    assert plan.train.lr == 3e-4
    assert plan.branches["layer2.0.conv1"] == (ConvBranch(filters=7),)


def test_set_is_checked_like_the_file(path: Path) -> None:
    with pytest.raises(PlanError, match=r"train\.lrr: no such setting, did you mean 'lr'"):
        load_plan(path, ["train.lrr=1"])


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.seed", "seeds"),
        ("train.learning_rate", "lr"),
        ("evaluate.seed", "bootstrap_seed"),
        ("data.size", "image_size"),
        ("data.normalise_mean", "mean"),
        ("batch_size", "train.batch_size"),
    ],
)
def test_the_setting_that_is_suggested_exists_at_that_place(
    path: Path, key: str, meant: str
) -> None:
    with pytest.raises(PlanError, match=rf"no such setting, did you mean '{meant}'\?"):
        load_plan(path, [f"{key}=1"])


def test_one_number_in_place_of_a_list_is_shown_as_a_list(path: Path) -> None:
    with pytest.raises(PlanError, match=r"mean: write a list, \[0\.45\] \(got 0\.45\)"):
        load_plan(path, ["data={kind: image_folder, root: x, mean: 0.45}"])


@pytest.mark.parametrize("bad", ["train.lr", "train.lr=[", "train.lr.deeper=1"])
def test_a_malformed_set_is_named(path: Path, bad: str) -> None:
    with pytest.raises(PlanError, match="--set"):
        load_plan(path, [bad])


def test_a_key_written_twice_is_refused(path: Path) -> None:
    path.write_text(PLAN + "data: {kind: fashion_mnist}\n")
    with pytest.raises(PlanError, match="'data' is written twice"):
        load_plan(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [("[1, 2]", "not a mapping"), ("a: [", "not valid YAML"), ("", "not a mapping")],
)
def test_a_file_that_is_not_a_plan_is_refused(path: Path, text: str, says: str) -> None:
    path.write_text(text)
    with pytest.raises(PlanError, match=says):
        load_plan(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.yaml cannot be read"):
        load_plan(tmp_path / "none.yaml")


def test_a_cut_without_branches_is_refused(path: Path) -> None:
    path.write_text(PLAN.replace("[{kind: conv, layers: 0, pool: global}]", "[]"))
    with pytest.raises(PlanError, match="at least one branch"):
        load_plan(path)


def test_yaml_never_runs_code(path: Path) -> None:
    path.write_text('backbone: !!python/object/apply:os.system ["true"]')
    with pytest.raises(PlanError, match="not valid YAML"):
        load_plan(path)


def test_evaluation_settings_are_bounded(path: Path) -> None:
    with pytest.raises(PlanError, match=r"evaluate\.threshold"):
        load_plan(path, ["evaluate={threshold: 1.5}"])
    assert Plan.model_fields["evaluate"].default.threshold == 0.9


def test_a_plan_names_the_leaves_of_its_backbone(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        """
from torch import nn

class Odd(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), Odd(), nn.Conv2d(4, 10, 26), nn.Flatten())
"""
    )
    settings = {
        "backbone": {"name": "python"},
        "data": {"kind": "fashion_mnist", "limit": 70, "image_size": 28},
        "leaves": ["Odd"],
        "branches": {"1": [{"kind": "conv", "filters": 2}]},
    }
    place = f"{file}:make"
    assert prepare_run(Plan.model_validate(settings), place).backbone.leaves[0].endswith(".Odd")
    with pytest.raises(CutError, match="cannot trace 1 "):
        prepare_run(Plan.model_validate(settings | {"leaves": []}), place)


def test_a_rival_size_given_twice_is_refused(path: Path) -> None:
    with pytest.raises(PlanError, match=r"evaluate\.rival_sizes: give each size once"):
        load_plan(path, ["evaluate={rival_sizes: [40, 32, 40]}"])
