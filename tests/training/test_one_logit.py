"""Binary networks of one logit: every exit gives the two logits [0, z], the backbone stays."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import StagedBackbone, cut
from offramp.branches import ConvBranch
from offramp.calibration import calibrate
from offramp.data import Splits, as_samples
from offramp.data.images import labelled_pictures
from offramp.errors import DataError, ShapeError
from offramp.multiexit.model import MultiExit
from offramp.preprocess import ImagePreprocess
from offramp.run.plan import Plan
from offramp.run.rivals import static_rivals
from offramp.run.steps import evaluate, train
from offramp.run.stored import load_result
from offramp.training import fit_branches

Data = tuple[Tensor, Tensor]
BRANCHES = {"1": [ConvBranch(filters=2, hidden=5, dropout=0.0)]}


class Bright(nn.Module):
    """Says with one logit whether a picture is bright: (B, 3, 7, 6) to (B, 1), or (B,)."""

    def __init__(self, flat: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 90, 3)
        self.flat = flat

    def forward(self, images: Tensor) -> Tensor:
        costly = self.second(self.first(images).relu()).mean((1, 2, 3))
        logit = 3 * images.mean((1, 2, 3)) + 0 * costly
        answer: Tensor = logit if self.flat else logit.unsqueeze(1)
        return answer


def draw(count: int, seed: int) -> Data:
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 0.3 * torch.randn(count, 3, 7, 6, generator=chance)
    return images + (labels * 2.0 - 1)[:, None, None, None], labels


def staged(flat: bool = False) -> StagedBackbone:
    torch.manual_seed(3)
    return cut(Bright(flat).eval(), ["first"], torch.zeros(1, 3, 7, 6))


def fit(data: Data, *, flat: bool = False) -> MultiExit:
    return fit_branches(
        staged(flat),
        {"first": BRANCHES["1"]},
        data,
        draw(13, 1),
        seeds=[0],
        epochs=4,
        batch_size=9,
        lr=0.01,
    )


@pytest.fixture(scope="module")
def model() -> MultiExit:
    return fit(draw(40, 0))


@pytest.mark.parametrize("flat", [False, True])
def test_every_exit_gives_two_logits_and_the_backbone_its_own(flat: bool) -> None:
    model, images = fit(draw(20, 0), flat=flat), draw(5, 2)[0]
    logit = Bright(flat)(images).reshape(5)
    with torch.no_grad():
        answers = model(images)
        assert torch.equal(model.backbone(images).reshape(5), logit)
    assert answers.shape == (2, 5, 2)
    assert torch.equal(answers[-1], torch.stack([torch.zeros(5), logit], 1))
    assert torch.allclose(answers[-1].softmax(1)[:, 1], logit.sigmoid())
    assert model.backbone(images).shape == ((5,) if flat else (5, 1))


@pytest.mark.parametrize(
    "spelt",
    [
        lambda labels: labels.float(),
        lambda labels: labels.float().unsqueeze(1),
        lambda labels: labels.bool(),
        lambda labels: labels.numpy().astype(np.float64),
    ],
    ids=["floats", "a column", "booleans", "an array"],
)
def test_labels_may_be_as_binary_cross_entropy_takes_them(
    model: MultiExit, spelt: Callable[[Tensor], object]
) -> None:
    images, labels = draw(40, 0)
    other = fit((images, spelt(labels)))  # type: ignore[arg-type]
    assert other.trials[0].history == model.trials[0].history
    test = draw(12, 4)
    outputs = other.collect((test[0], spelt(test[1])))
    assert outputs.labels.tolist() == test[1].tolist()
    assert outputs.labels.dtype == np.int64


def test_a_calibrated_policy_answers_the_same_after_saving(
    model: MultiExit, tmp_path: Path
) -> None:
    model.save(tmp_path / "model")
    read = MultiExit.load(tmp_path / "model", backbone=model.backbone.original)
    data = draw(300, 5)
    outputs = read.collect(data)
    assert np.array_equal(outputs.outputs, model.collect(data).outputs)
    assert outputs.outputs.shape == (2, 300, 2)
    assert outputs.correct[-1].all()
    policy = calibrate(outputs, max_drop=0.05)
    assert policy.answers(outputs).shape == (300, 2)


def test_labels_of_more_than_two_classes_are_refused_with_both_remedies() -> None:
    images, labels = draw(20, 0)
    with pytest.raises(DataError, match=r"2 outputs, .*0 to 1.*values .*task='regression'"):
        fit((images, labels * 3))
    with pytest.raises(DataError, match=r"floats such as 0.25.*task='regression'"):
        fit((images, labels + 0.25))


@pytest.mark.parametrize("flat", [False, True])
def test_a_rival_of_one_logit_is_judged_by_its_two_classes(flat: bool) -> None:
    pixels = np.repeat(np.array([0, 255], np.uint8), 15)[:, None, None].repeat(7, 1).repeat(7, 2)
    pictures = labelled_pictures(pixels, np.arange(30) // 15, ImagePreprocess(height=7, width=6))
    model = MultiExit(staged(flat), {})
    [rival] = static_rivals(model, pictures, pictures, [5])
    assert rival.value == 1.0


def test_a_rival_in_a_regression_may_answer_one_value_without_an_axis() -> None:
    pixels = np.arange(30, dtype=np.uint8)[:, None, None].repeat(7, 1).repeat(7, 2)
    values = 3 * (np.arange(30) / 255 - 0.5) / 0.5
    pictures = labelled_pictures(
        pixels, values.astype(np.float32), ImagePreprocess(height=7, width=6)
    )
    [rival] = static_rivals(MultiExit(staged(True), {}, task="regression"), pictures, pictures, [5])
    assert rival.value < 1e-5


NETWORK = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
"""


@pytest.mark.slow
def test_a_plan_trains_and_evaluates_a_network_of_one_logit(tmp_path: Path) -> None:
    (tmp_path / "network.py").write_text(NETWORK)
    name = f"{tmp_path / 'network.py'}:network"
    names = ("train", "validation", "calibration", "test")
    parts = {each: as_samples(draw(20 + seed, seed)) for seed, each in enumerate(names)}
    splits = Splits.of(parts, target_names=("dark", "bright"))
    plan = Plan.model_validate(
        {
            "backbone": {"name": "python"},
            "data": {"kind": "fashion_mnist"},
            "branches": {"1": [{"kind": "conv", "filters": 2}]},
            "train": {"seeds": [0], "epochs": 1, "batch_size": 9},
            "evaluate": {"timing_repeats": 0, "bootstrap_draws": 9},
        }
    )
    train(plan, tmp_path / "run", splits=splits, backbone_file=name)
    again = evaluate(tmp_path / "run", splits=splits, backbone_file=name)
    assert load_result(tmp_path / "run", name).model.num_outputs == 2
    assert str(again.comparison) == str(load_result(tmp_path / "run", name).comparison)


def test_a_map_of_outputs_is_still_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3))
    backbone = cut(network.eval(), ["1"], torch.zeros(1, 3, 7, 6))
    with pytest.raises(ShapeError, match="one logit for two classes"):
        fit_branches(backbone, BRANCHES, draw(9, 0), draw(9, 1), seeds=[0])
