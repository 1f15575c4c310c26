"""Whatever saves also loads: odd models, saved and read back."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.backbones.zoo import build, describe
from offramp.branches import BranchSpec, ConvBranch, SLViT
from offramp.errors import BundleError
from offramp.multiexit import Epoch, Failed, MultiExit, Trial
from offramp.multiexit.saved import read_inputs
from offramp.multiexit.trial import ModelInfo
from offramp.preprocess import ImagePreprocess, Preprocess
from offramp.preprocess.spectrogram import VGGISH
from offramp.spec import FeatureShape, Spec, TapShape
from offramp.storage.folder import read_folder
from offramp.storage.manifest import MANIFEST, RUN
from offramp.task import Task


class Untraceable(nn.Module):
    """Decides by a value, which FX cannot follow."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps if maps.sum() > 0 else -maps


class Toy(nn.Module):
    """(B, 2, 12, 8) to (B, outputs), with tied weights and a buffer without axes."""

    def __init__(self, outputs: int = 5, leaf: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 7, 3, padding=1)
        self.norm = nn.BatchNorm2d(7)
        self.odd = Untraceable() if leaf else nn.Identity()
        self.second = nn.Conv2d(7, 7, 1)
        self.third = nn.Conv2d(7, 7, 1)
        self.third.weight = self.second.weight
        self.top = nn.Linear(7, outputs)

    def forward(self, images: Tensor) -> Tensor:
        x = self.second(self.odd(self.norm(self.first(images))).relu()).relu()
        top: Tensor = self.top(self.third(x).mean((2, 3)))
        return top


class Two(nn.Module):
    """A map and a number of a table to (B, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(2, 4, 3)
        self.table = nn.Embedding(6, 4)
        self.both = nn.Conv2d(4, 5, 3)
        self.top = nn.Linear(5, 3)

    def forward(self, maps: Tensor, number: Tensor) -> Tensor:
        x = self.maps(maps) + self.table(number)[:, :, None, None]
        top: Tensor = self.top(self.both(x.relu()).mean((2, 3)))
        return top


class BothTaps(Spec):
    """A branch of a researcher's own that reads two maps."""

    kind: str = "both"
    hidden: int = 3

    def label(self) -> str:
        return f"both {self.hidden}"

    def build(self, features: TapShape | tuple[TapShape, ...], num_outputs: int) -> nn.Module:
        assert isinstance(features, tuple)
        channels = sum(shape.channels for shape in features if isinstance(shape, FeatureShape))
        return Pooled(channels, self.hidden, num_outputs)


class Pooled(nn.Module):
    def __init__(self, channels: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.Linear(hidden, outputs))
        self.standardise = None

    def forward(self, *maps: Tensor) -> Tensor:
        pooled: Tensor = self.layers(torch.cat([each.mean((2, 3)) for each in maps], 1))
        return pooled


CONV = ConvBranch(filters=3, standardise=True)
SLVIT = SLViT(patch=4, dim=6, heads=2, error_predictor=True)
IMAGE = torch.randn(1, 2, 12, 8, generator=torch.Generator().manual_seed(0))


def trials(backbone: StagedBackbone, at: str, *specs: BranchSpec) -> list[Trial]:
    torch.manual_seed(1)
    return [
        Trial(
            at,
            spec,
            seed,
            spec.build(backbone.features(at), backbone.num_outputs).eval(),
            (Epoch(1, 1.5, 1.25, 0.375, 1e-3),),
            1,
            1.25,
            0.375,
        )
        for spec in specs
        for seed in (0, 3)
    ]


def multi_exit(
    backbone: StagedBackbone,
    at: str,
    *specs: BranchSpec,
    task: Task = "classification",
    info: ModelInfo | None = None,
    failed: Sequence[Failed] = (),
) -> MultiExit:
    every = trials(backbone, at, *specs)
    return MultiExit(backbone, {at: every[-1]}, every, task=task, info=info, failed=failed)


def leaves() -> MultiExit:
    return multi_exit(cut(Toy(leaf=True), ["odd"], IMAGE, leaves=[Untraceable]), "odd", CONV)


def two_inputs() -> MultiExit:
    sample = IMAGE, torch.tensor([4])
    return multi_exit(cut(Two(), ["both"], sample), "both", CONV)


def several_taps() -> MultiExit:
    place = Cut("early", after=("second",), taps=("first", "second"))
    return multi_exit(cut(Toy(), [place], IMAGE), "early", BothTaps())


def regression() -> MultiExit:
    return multi_exit(cut(Toy(1), ["first"], IMAGE), "first", CONV, SLVIT, task="regression")


def double_precision() -> MultiExit:
    return multi_exit(cut(Toy(), ["first"], IMAGE), "first", CONV).double()


def half_precision() -> MultiExit:
    return multi_exit(cut(Toy(), ["first"], IMAGE), "first", CONV).to(torch.bfloat16)


def double_precision_backbone() -> MultiExit:
    return multi_exit(cut(Toy().double(), ["first"], IMAGE.double()), "first", CONV).double()


def failed_trials() -> MultiExit:
    failed = [Failed("first", SLVIT, 2, "diverged in epoch 1")]
    return multi_exit(cut(Toy(), ["first", "second"], IMAGE), "first", CONV, failed=failed)


def without_branches() -> MultiExit:
    return MultiExit(cut(Toy(), ["first"], IMAGE), {})


def a_chosen_branch_that_is_not_a_trial() -> MultiExit:
    backbone = cut(Toy(), ["first", "second"], IMAGE)
    [one, other] = trials(backbone, "second", SLVIT)
    return MultiExit(backbone, {"second": other}, [one])


def zoo(name: str, place: str, side: int, **facts: object) -> MultiExit:
    model = build(name, num_outputs=3, seed=1, **facts)  # type: ignore[arg-type]
    named = describe(name).cuts.get(place, place)
    backbone = cut(model, [named], torch.zeros(1, 3, side, side))
    info = ModelInfo(
        backbone={"name": name, "num_outputs": 3, **facts}, class_names=("a", "b", "c")
    )
    return multi_exit(backbone, place, ConvBranch(layers=0, pool="global"), info=info)


def torchvision() -> MultiExit:
    return zoo("torchvision:squeezenet1_1", "features.4", 32)


def double_precision_zoo() -> MultiExit:
    return torchvision().double()


def timm() -> MultiExit:
    return zoo("timm:resnet10t", "layer1", 32)


@pytest.mark.parametrize(
    "make",
    [
        leaves,
        two_inputs,
        several_taps,
        regression,
        double_precision,
        half_precision,
        double_precision_backbone,
        double_precision_zoo,
        failed_trials,
        without_branches,
        a_chosen_branch_that_is_not_a_trial,
        torchvision,
        timm,
    ],
)
def test_whatever_saves_also_loads(make: Callable[[], MultiExit], tmp_path: Path) -> None:
    torch.manual_seed(7)
    model = make()
    model.save(tmp_path)
    original = None if model.info.backbone is not None else model.backbone.original
    again = MultiExit.load(tmp_path, backbone=original, branches=[BothTaps])
    shapes, dtypes = model.backbone.input_shapes, model.backbone.input_dtypes
    inputs = [
        torch.ones(2, *shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    for (name, answer), (other, same) in zip(model.walk(*inputs), again.walk(*inputs), strict=True):
        assert name == other
        assert torch.equal(answer, same)
    assert again.digest() == model.digest()
    assert again.names == model.names
    assert (again.task, again.failed, again.info) == (model.task, model.failed, model.info)
    assert {trial.seed for trial in again.trials} >= {trial.seed for trial in model.trials}
    again.save(tmp_path / "again")
    first, second = (read_folder(place, RUN).manifest for place in (tmp_path, tmp_path / "again"))
    assert first == second


@pytest.mark.parametrize("inputs", [(), (VGGISH,), (ImagePreprocess(height=8, width=8), VGGISH)])
def test_the_preprocessing_of_each_input_is_saved(
    inputs: tuple[Preprocess, ...], tmp_path: Path
) -> None:
    model = regression()
    model.info = ModelInfo(inputs=inputs)
    model.save(tmp_path)
    again = MultiExit.load(tmp_path, backbone=model.backbone.original)
    assert again.info.inputs == inputs


def test_the_single_preprocessing_that_earlier_versions_saved_is_read() -> None:
    one = ImagePreprocess(height=8, width=8)
    assert read_inputs(one.model_dump(mode="json")) == (one,)
    assert read_inputs(None) == ()


@pytest.mark.parametrize("name", ["model.safetensors", MANIFEST])
def test_saving_over_a_file_that_no_save_wrote_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(BundleError, match=f"{name}.*Choose another folder|was changed or damaged"):
        regression().save(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_saving_over_a_model_replaces_it_whole(tmp_path: Path) -> None:
    failed_trials().save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    regression().save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {
        "model.safetensors",
        MANIFEST,
        "notes.txt",
    }
    assert read_folder(tmp_path, RUN).manifest["task"] == "regression"


def test_a_backbone_by_flag_is_asked_for_by_its_file_and_function(tmp_path: Path) -> None:
    backbone = cut(Toy().eval(), ["first"], torch.zeros(1, 2, 12, 8))
    info = ModelInfo({"name": "python", "function": "mine.py:network"})
    MultiExit(backbone, {}, info=info).save(tmp_path)
    with pytest.raises(BundleError, match=r"--backbone path/to/mine\.py:network"):
        MultiExit.load(tmp_path)
    assert MultiExit.load(tmp_path, backbone.original).info == info
