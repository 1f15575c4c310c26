"""Branch kinds that are not shipped take the same road as those that are."""

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.branches import ConvBranch, SLViT, branch_kinds
from offramp.branches.tap import Standardise, TapShapes
from offramp.errors import OfframpError, PlanError, ShapeError
from offramp.evaluation import compare
from offramp.multiexit.model import MultiExit
from offramp.run.measure import collect_trials
from offramp.spec import FeatureShape, Spec
from offramp.training import fit_branches

Images = tuple[Tensor, Tensor]
Fit = Callable[..., MultiExit]


class MeanMax(Spec):
    """Mean and maximum of every channel, then a dense layer."""

    kind: Literal["mean-max"] = "mean-max"
    hidden: int = 5

    def label(self) -> str:
        return f"mean-max-{self.hidden}"

    def build(self, features: TapShapes, num_outputs: int) -> nn.Module:
        assert isinstance(features, FeatureShape)
        return MeanMaxBranch(features.channels, self.hidden, num_outputs)


class MeanMaxBranch(nn.Module):
    def __init__(self, channels: int, hidden: int, num_outputs: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(
            nn.Linear(2 * channels, hidden), nn.Dropout(0.2), nn.Linear(hidden, num_outputs)
        )

    def forward(self, features: Tensor) -> Tensor:
        pooled = [features.mean(dim=(2, 3)), features.amax(dim=(2, 3))]
        answers: Tensor = self.dense(torch.cat(pooled, dim=1))
        return answers


BRANCHES = {"2": [MeanMax(), ConvBranch(filters=3, hidden=9)], "4": [MeanMax(hidden=7)]}


def weights(model: MultiExit) -> list[Tensor]:
    return [value for trial in model.trials for value in trial.branch.state_dict().values()]


def test_an_own_kind_trains_resumes_saves_loads_and_is_compared(
    fit: Fit, backbone: StagedBackbone, validation: Images, tmp_path: Path
) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if "epoch 2/" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(BRANCHES, out=tmp_path / "work", progress=stop)
    resumed = fit(BRANCHES, out=tmp_path / "work")
    torch.testing.assert_close(weights(resumed), weights(fit(BRANCHES)), rtol=0, atol=0)

    resumed.save(tmp_path / "saved")
    with pytest.raises(PlanError, match=r"kind 'mean-max'.*branches=\[YourSpec\]"):
        MultiExit.load(tmp_path / "saved", backbone)
    loaded = MultiExit.load(tmp_path / "saved", backbone, branches=[MeanMax])
    assert [trial.spec for trial in loaded.trials] == [trial.spec for trial in resumed.trials]
    assert torch.equal(loaded(validation[0]), resumed(validation[0]))
    table = str(compare(collect_trials(loaded, validation), draws=20))
    assert "mean-max" in table


class Noise(nn.Module):
    """Scales by a random number, of numpy or of Python."""

    def __init__(self, of_numpy: bool) -> None:
        super().__init__()
        self.of_numpy = of_numpy

    def forward(self, x: Tensor) -> Tensor:
        return x * (np.random.rand() if self.of_numpy else random.random())  # noqa: NPY002, S311


class Broken(Spec):
    """Behaves as `fault` says."""

    kind: Literal["broken"] = "broken"
    fault: str = "none"

    def label(self) -> str:
        return "" if self.fault == "label" else f"broken-{self.fault}"

    def build(self, features: TapShapes, num_outputs: int) -> Any:
        if self.fault == "build":
            raise KeyError("no")
        layers: dict[str, list[nn.Module]] = {
            "shape": [nn.Flatten(), nn.Linear(96 * 7, num_outputs + 1)],
            "run": [nn.Linear(3, 4)],
            "weights": [nn.Flatten()],
            "random": [nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(96 * 7, num_outputs)],
            "numpy": [Noise(True), nn.Flatten(), nn.Linear(96 * 7, num_outputs)],
            "python": [Noise(False), nn.Flatten(), nn.Linear(96 * 7, num_outputs)],
            "standardise": [Standardise(7), Standardise(7), nn.Flatten(), nn.Linear(672, 4)],
        }
        return nn.Sequential(*layers[self.fault]) if self.fault in layers else "a text"


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("label", PlanError, r"Broken\.label\(\) gives ''"),
        ("two\nlines", PlanError, r"Broken\.label\(\) gives 'broken-two\\nlines'"),
        ("build", PlanError, "broken-build cannot be built.*KeyError"),
        ("module", PlanError, r"build\(\) gives a str"),
        ("shape", ShapeError, r"returns \(2, 5\).*must return \(2, 4\)"),
        ("run", PlanError, "broken-run cannot be built or run on taps of 7x12x8: RuntimeError"),
        ("weights", PlanError, "no weight to train"),
        ("random", PlanError, "global random generator.*Use nn.Dropout"),
        ("numpy", PlanError, "draws from numpy's global random generator"),
        ("python", PlanError, "draws from Python's global random generator"),
        ("standardise", PlanError, "2 Standardise modules for 1 taps"),
    ],
)
def test_a_kind_that_cannot_work_is_refused_before_the_backbone_runs(
    fit: Fit, fault: str, error: type[OfframpError], text: str
) -> None:
    def nothing(what: str, done: int, total: int) -> None:
        raise AssertionError(what)

    states = random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    with pytest.raises(error, match=text):
        fit({"2": [ConvBranch(filters=3), Broken(fault=fault)]}, progress=nothing)
    assert states == (random.getstate(), pickle.dumps(np.random.get_state()))  # noqa: NPY002


class Shadow(ConvBranch):
    """Another class of a shipped kind."""


class Double(MeanMax):
    """Another class of the same kind."""


class NoKind(Spec):
    """A Spec that is not a branch's."""


class NoBuild(Spec):
    """A kind that builds nothing."""

    kind: Literal["no-build"] = "no-build"

    def label(self) -> str:
        return "no-build"


class Melted(MeanMax):
    """Not frozen."""

    model_config = ConfigDict(frozen=False)


@pytest.mark.parametrize(
    ("specs", "text"),
    [
        ([MeanMax], r"MeanMax is a class, not settings. Write MeanMax\(\)"),
        ([nn.Linear(2, 3)], "not by a Linear"),
        (["slvit"], "not by a str"),
        ([NoKind()], "NoKind has no label"),
        ([NoBuild()], r"NoBuild has no build\(\)"),
        ([Melted()], "Melted is not a frozen Spec"),
        ([Shadow()], "Shadow and ConvBranch are both of the kind 'conv'"),
        (
            [MeanMax(), Double()],
            "Double and MeanMax are both of the kind|MeanMax and Double are both",
        ),
        ([MeanMax(), Double(hidden=6)], "both of the kind 'mean-max'"),
    ],
)
def test_a_class_that_is_not_a_kind_of_branch_is_refused(
    fit: Fit, specs: list[Any], text: str
) -> None:
    with pytest.raises(PlanError, match=text):
        fit({"2": specs})


@pytest.mark.parametrize(("branches", "text"), [([MeanMax, Double], "both"), ([int], "int is not")])
def test_classes_that_are_not_kinds_of_their_own_cannot_be_loaded(
    branches: list[type], text: str
) -> None:
    with pytest.raises(PlanError, match=text):
        branch_kinds(branches)


def test_two_specs_that_share_a_label_are_refused_before_any_work(fit: Fit) -> None:
    pools = [ConvBranch(layers=0, pool="global", kernel=kernel) for kernel in (3, 5)]
    with pytest.raises(PlanError, match="have the label pool, so tables could not"):
        fit({"2": pools})


def test_no_cut_can_take_the_name_of_the_last_exit() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(40, 2))
    with pytest.raises(OfframpError, match="No cut can be called 'final'"):
        cut(net, [Cut("final", after=("0",))], torch.zeros(1, 3, 6, 4))


class TwoTaps(Spec):
    """Reads two taps, standardised."""

    kind: Literal["two"] = "two"

    def label(self) -> str:
        return "two"

    def build(self, features: TapShapes, num_outputs: int) -> nn.Module:
        assert isinstance(features, tuple)
        return TwoTapsBranch(num_outputs)


class TwoTapsBranch(nn.Module):
    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.first, self.second = Standardise(7), Standardise(5)
        self.dense = nn.Linear(12, num_outputs)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        taps = self.first(first).mean(dim=(2, 3)), self.second(second).mean(dim=(2, 3))
        answers: Tensor = self.dense(torch.cat(taps, dim=1))
        return answers


def test_a_kind_may_read_and_standardise_several_taps(
    backbone: StagedBackbone, train: Images
) -> None:
    both = cut(backbone.original, [Cut("both", after=("4",), taps=("2", "4"))], train[0][:2])
    model = fit_branches(both, {"both": [TwoTaps()]}, train, train, seeds=[0], epochs=1)
    given = model.chosen["both"].branch.get_submodule("second")
    assert isinstance(given, Standardise)
    _, (_, tap) = both.stages[0]((train[0],))
    torch.testing.assert_close(given.mean, tap.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-3)


def test_shipped_kinds_have_labels_of_their_own() -> None:
    assert SLViT().label() == "slvit-p4-d32-h12"


class Doubting(MeanMax):
    """Predicts its own error in one more column, which the plain field announces."""

    kind: Literal["doubting"] = "doubting"  # type: ignore[assignment]
    error_predictor: bool = True

    def build(self, features: TapShapes, num_outputs: int) -> nn.Module:
        return super().build(features, num_outputs + self.error_predictor)


def test_a_kind_may_predict_its_error(fit: Fit, validation: Images) -> None:
    model = fit({"4": [Doubting()]}, seeds=[3])
    outputs = model.collect(validation)
    assert outputs.outputs.shape == (2, 23, 4)
    assert outputs.scores is not None
