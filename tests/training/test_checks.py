from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import StagedBackbone, cut
from offramp.branches import ConvBranch, SLViT
from offramp.doubts import DoubtWarning
from offramp.errors import CutError, DataError, OfframpError, PlanError, ShapeError
from offramp.multiexit.model import MultiExit

Images = tuple[Tensor, Tensor]
Fit = Callable[..., MultiExit]
ONE = {"4": [ConvBranch(filters=2, hidden=5)]}


@pytest.mark.parametrize(
    ("branches", "error", "text"),
    [
        ({}, PlanError, r"no branches are given for any cut"),
        ({"2": []}, PlanError, r"no branches are given for \['2'\]"),
        ({"22": [ConvBranch()]}, CutError, r"'22'.*Did you mean '2'\?.*\['2', '4'\]"),
        ({"2": [SLViT(patch=5)]}, ShapeError, r"patch=5 does not divide the 12x8.*\[1, 2, 4\]"),
        ({"2": [ConvBranch(), SLViT(), ConvBranch()]}, PlanError, r"conv-k3-f16 twice"),
    ],
)
def test_branches_that_cannot_be_trained_are_refused(
    fit: Fit, branches: object, error: type[OfframpError], text: str
) -> None:
    with pytest.raises(error, match=text):
        fit(branches)


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("gpu0", "'gpu0' is not a device of torch"),
        ("cuda:99", "'cuda:99' is not available.*cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused(fit: Fit, device: str, text: str) -> None:
    with pytest.raises(PlanError, match=text):
        fit(device=device)


def test_training_labels_of_one_class_and_of_too_few_are_warned_of(fit: Fit, train: Images) -> None:
    images, labels = train
    with pytest.warns(DoubtWarning, match="all 41 training samples are of class 0"):
        fit(ONE, train=(images, labels * 0), epochs=1, seeds=[0])
    with pytest.warns(DoubtWarning, match="leave out 2 of the network's 4 classes"):
        fit(ONE, train=(images, labels % 2), epochs=1, seeds=[0])


def test_answers_of_a_final_exit_that_guesses_are_warned_of(fit: Fit, train: Images) -> None:
    model, (images, labels) = fit(ONE, epochs=1, seeds=[0]), train
    with pytest.warns(DoubtWarning, match="the final exit hardly does better than guessing"):
        model.collect((images, labels.roll(7)))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_bad_data_is_refused_in_either_split(fit: Fit, train: Images, split: str) -> None:
    images, labels = train
    spoilt = images.clone()
    spoilt[31, 1, 2, 3] = float("nan")
    bad: list[tuple[object, type[OfframpError], str]] = [
        ((images[:0], labels[:0]), DataError, "data cannot be used: the data set is empty"),
        ((spoilt, labels), DataError, r"sample 31 .*holds NaN"),
        ((images, labels + 1), DataError, "labels run from 1 to 4, but the model has 4 outputs"),
        ((images, labels / 2), DataError, "not class numbers.*task='regression'"),
        ((images[..., :6], labels), ShapeError, r"\(\(3, 12, 6\),\).*\(\(3, 12, 8\),\)"),
        ((images[:, :2], labels), ShapeError, r"\(\(2, 12, 8\),\)"),
    ]
    for data, error, text in bad:
        with pytest.raises(error, match=text):
            fit(**{split: data})


def test_the_split_of_a_wrong_label_is_named(fit: Fit, train: Images) -> None:
    with pytest.raises(DataError, match="validation"):
        fit(validation=(train[0], train[1] + 1))


def test_a_regression_needs_a_backbone_with_one_output(fit: Fit) -> None:
    with pytest.raises(
        ShapeError, match=r"returns \(4,\) per sample, but regression needs \(1,\) or one"
    ):
        fit(task="regression")


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_a_backbone_of_another_precision_cuts_but_does_not_train(
    train: Images, precision: torch.dtype
) -> None:
    from offramp.training import fit_branches

    images = train[0].to(precision)
    net = nn.Sequential(nn.Conv2d(3, 7, 3), nn.Flatten(), nn.Linear(420, 4)).to(precision).eval()
    backbone = cut(net, ["0"], images[:2])
    with torch.no_grad():
        assert torch.equal(backbone(images), net.requires_grad_(False)(images))
    with pytest.raises(CutError, match=rf"{precision}, but branches train on float32.*float\(\)"):
        fit_branches(backbone, {"0": [ConvBranch()]}, train, train, seeds=[0])


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 4, 3)), r"\(B, 4, 94\).*one spatial axis"),
        (nn.Sequential(nn.Unflatten(1, (3, 1)), nn.Conv3d(3, 4, 1)), r"\(B, 4, 1, 12, 8\).*three"),
    ],
)
def test_maps_of_sound_and_video_are_refused_where_a_branch_would_read_them(
    train: Images, layer: nn.Module, text: str
) -> None:
    from offramp.training import fit_branches

    net = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(4))
    net(train[0][:2])
    backbone = cut(net, ["0"], train[0][:2])
    with pytest.raises(ShapeError, match=text):
        fit_branches(backbone, {"0": [ConvBranch()]}, train, train, seeds=[0])


def test_a_backbone_that_answers_with_a_map_is_refused(train: Images) -> None:
    from offramp.training import fit_branches

    net = nn.Sequential(nn.Conv2d(3, 7, 3), nn.Conv2d(7, 4, 3))
    backbone: StagedBackbone = cut(net, ["0"], train[0][:2])
    with pytest.raises(ShapeError, match=r"returns \(4, 8, 4\)"):
        fit_branches(backbone, {"0": [ConvBranch()]}, train, train, seeds=[0])


def test_arrays_of_numpy_are_accepted(fit: Fit, train: Images) -> None:
    as_numpy = (train[0].numpy(), train[1].numpy().astype(np.int16))
    one, other = fit(train=train), fit(train=as_numpy)
    assert torch.equal(one(train[0]), other(train[0]))


class Windows(nn.Module):
    """Folds windows of the picture into the batch, as window attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.top = nn.Conv2d(3, 7, 1), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        b, h = x.shape[0], x.shape[2]
        rows = self.conv(x).unflatten(2, (h // 4, 4)).transpose(1, 2).flatten(0, 1) * 2
        logits: Tensor = self.top(rows.mean((2, 3)).unflatten(0, (b, h // 4)).mean(1))
        return logits


def test_windows_in_the_batch_axis_are_refused(train: Images) -> None:
    from offramp.training import fit_branches

    backbone = cut(Windows(), ["mul"], train[0][:2])
    with pytest.raises(CutError, match=r"\(3, 7, 4, 8\) for one sample and \(9, 7, 4, 8\) for 3"):
        fit_branches(backbone, {"mul": [ConvBranch()]}, train, train, seeds=[0])
