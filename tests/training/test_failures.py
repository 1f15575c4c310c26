"""A branch whose training fails is a result, not the end of the others."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import StagedBackbone
from offramp.branches import ConvBranch
from offramp.branches.tap import TapShapes
from offramp.errors import DataError
from offramp.multiexit.model import MultiExit
from offramp.spec import FeatureShape, Spec

Images = tuple[Tensor, Tensor]
Fit = Callable[..., MultiExit]
SHORT: list[BaseException] = []
"""What a branch with the fault "memory" raises in its second epoch, as long as this holds one."""
GOOD = ConvBranch(filters=3, hidden=9, dropout=0.3)
PROBED = 2
"""Samples in the batches, at most, that a branch is tried with; these branches let them pass."""


class Failing(Spec):
    """Fails in training as its kind of fault says."""

    kind: Literal["failing"] = "failing"
    fault: Literal["raises", "memory", "nan", "judging", "later"]

    def label(self) -> str:
        return f"failing-{self.fault}"

    def build(self, features: TapShapes, num_outputs: int) -> nn.Module:
        assert isinstance(features, FeatureShape)
        return FailingBranch(self.fault, features.channels, num_outputs)


class FailingBranch(nn.Module):
    def __init__(self, fault: str, channels: int, num_outputs: int) -> None:
        super().__init__()
        self.fault, self.batches = fault, 0
        self.dense = nn.Linear(channels, num_outputs)

    def forward(self, features: Tensor) -> Tensor:
        answers: Tensor = self.dense(features.mean(dim=(2, 3)))
        if len(features) <= PROBED:
            return answers
        self.batches += 1
        if self.fault == "raises":
            raise ValueError("no such patch\nand more")
        if self.fault == "memory" and self.batches > 8 and SHORT:
            raise SHORT[0]
        if self.fault == "judging" and not self.training:
            raise ZeroDivisionError("no samples")
        if self.fault == "later" and self.batches > 8:  # in the second epoch
            raise ValueError("too many batches")
        return answers * float("nan") if self.fault == "nan" else answers


REASONS = {
    "raises": "ValueError in epoch 1: no such patch",
    "nan": "diverged in epoch 1",
    "judging": "ZeroDivisionError in epoch 1: no samples",
    "later": "ValueError in epoch 2: too many batches",
}


def weights(model: MultiExit) -> list[Tensor]:
    return [value for trial in model.trials for value in trial.branch.state_dict().values()]


@pytest.mark.parametrize("fault", REASONS)
@pytest.mark.parametrize("how", ["cached", "fused"])
def test_a_branch_that_fails_is_a_result_and_the_others_train_as_without_it(
    fit: Fit, tmp_path: Path, how: str, fault: Any
) -> None:
    branches = {"2": [Failing(fault=fault), GOOD], "4": [GOOD]}
    options = {"seeds": [3], "how": how}
    model = fit(branches, out=tmp_path, **options)
    [failed] = model.failed
    assert (failed.cut, failed.spec, failed.seed) == ("2", Failing(fault=fault), 3)
    assert failed.reason.startswith(REASONS[fault])
    assert "\n" not in failed.reason
    expected = fit({"2": [GOOD], "4": [GOOD]}, **options)
    torch.testing.assert_close(weights(model), weights(expected), rtol=0, atol=0)

    events: list[str] = []
    again = fit(branches, out=tmp_path, progress=lambda what, *_: events.append(what), **options)
    assert not [what for what in events if "epoch" in what]
    assert again.failed == model.failed
    torch.testing.assert_close(weights(again), weights(model), rtol=0, atol=0)


def no_memory_on_a_cpu() -> BaseException:
    with pytest.raises(RuntimeError) as found:
        torch.empty(10**15)
    return found.value


@pytest.mark.parametrize("how", ["cached", "fused"])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError(), None])
def test_a_branch_that_lacked_memory_is_a_row_now_and_tried_again_from_its_last_epoch(
    fit: Fit,
    tmp_path: Path,
    how: str,
    error: BaseException | None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    branches = {"2": [Failing(fault="memory"), GOOD]}
    options = {"seeds": [3], "how": how}
    monkeypatch.setattr(f"{__name__}.SHORT", [error or no_memory_on_a_cpu()])
    [failed] = fit(branches, out=tmp_path, **options).failed
    assert failed.reason.startswith("out of memory in epoch 2: ")
    assert "it resumes from the last epoch that was saved" in caplog.text

    SHORT.clear()
    events: list[str] = []
    again = fit(branches, out=tmp_path, progress=lambda what, *_: events.append(what), **options)
    assert not again.failed
    assert [what for what in events if "epoch 2/" in what]
    assert not [what for what in events if "epoch 1/" in what]
    torch.testing.assert_close(weights(again), weights(fit(branches, **options)), rtol=0, atol=0)


def test_a_cut_where_all_branches_failed_has_no_exit_and_a_warning(
    fit: Fit,
    backbone: StagedBackbone,
    validation: Images,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        model = fit({"2": [Failing(fault="nan")], "4": [GOOD]})
    assert model.names == ("4", "final")
    assert "All branches at '2' failed" in caplog.text
    assert "failing-nan at '2', seed 3: diverged in epoch 1" in caplog.text
    assert model.collect(validation).names == ("4", "final")

    model.save(tmp_path)
    loaded = MultiExit.load(tmp_path, backbone, branches=[Failing])
    assert loaded.failed == model.failed
    assert len(loaded.failed) == 2


def test_where_every_branch_failed_one_error_lists_them(fit: Fit) -> None:
    branches = {"2": [Failing(fault="raises")], "4": [Failing(fault="nan")]}
    text = (
        r"no branch could be trained: failing-raises at '2', seed 3: ValueError in epoch 1: no "
        r"such patch; .*failing-nan at '4', seed 5: diverged in epoch 1\. If training diverged"
    )
    with pytest.raises(DataError, match=text):
        fit(branches)


def test_an_error_that_is_not_a_branch_s_own_stops_all_at_their_next_step(
    fit: Fit, tmp_path: Path
) -> None:
    seen: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        seen.append(what)
        if "epoch 2/" in what:
            raise OSError("the bar is broken")

    with pytest.raises(OSError, match="the bar is broken"):
        fit(out=tmp_path, threads=3, epochs=60, progress=progress)
    assert not [what for what in seen if "epoch 3/" in what]
