"""The fused mode: one backbone pass per batch for all branches, against taps from the disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from offramp.branches import ConvBranch
from offramp.data.augment import Augment
from offramp.errors import DataError, PlanError
from offramp.multiexit.model import MultiExit

Images = tuple[Tensor, Tensor]
Fit = Callable[..., MultiExit]


def losses(model: MultiExit) -> list[float]:
    return [epoch.train_loss for trial in model.trials for epoch in trial.history]


def weights(model: MultiExit) -> list[Tensor]:
    return [value for trial in model.trials for value in trial.branch.state_dict().values()]


def same_bits(one: MultiExit, other: MultiExit) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def first_losses(fit: Fit, **options: Any) -> list[float]:
    """Loss of the first step alone: one epoch of a single batch."""
    return losses(fit(epochs=1, batch_size=41, **options))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_first_step_losses_of_both_modes_agree(fit: Fit, dtype: str) -> None:
    cached, fused = (first_losses(fit, how=how, cache_dtype=dtype) for how in ("cached", "fused"))
    assert fused == pytest.approx(cached, rel=1e-3)


def test_the_fused_mode_rounds_taps_as_the_cache_does(fit: Fit) -> None:
    cached, fused = (losses(fit(how=how)) for how in ("cached", "fused"))
    unrounded = losses(fit(how="fused", cache_dtype="float32"))

    def apart(some: list[float]) -> float:
        return max(abs(a - b) for a, b in zip(cached, some, strict=True))

    assert apart(fused) < apart(unrounded) / 10


def test_a_branch_trains_to_the_same_weights_alone_and_with_others_fused(fit: Fit) -> None:
    together = fit(how="fused")
    last = together.trials[-1]
    alone = fit({last.cut: [last.spec]}, seeds=[last.seed], how="fused", threads=1)
    assert alone.trials[0].history == last.history


def test_the_fused_mode_keeps_no_taps_and_says_why_it_was_taken(fit: Fit, tmp_path: Path) -> None:
    seen: list[str] = []
    fit(out=tmp_path, disk_gb=0, progress=lambda what, *_: seen.append(what))
    assert not list(tmp_path.rglob("*.bin"))
    assert seen[0].startswith("training fused: the taps would take")
    assert json.loads((tmp_path / "how.json").read_text())["how"] == "fused"


def test_a_mode_taken_is_kept_when_less_is_allowed_later(fit: Fit, tmp_path: Path) -> None:
    first = fit(out=tmp_path)
    seen: list[str] = []
    again = fit(out=tmp_path, disk_gb=0, progress=lambda what, *_: seen.append(what))
    assert seen[0].startswith("training cached")
    assert same_bits(first, again)


def test_a_change_of_augmentation_chooses_the_mode_again(fit: Fit, tmp_path: Path) -> None:
    fit(out=tmp_path)
    seen: list[str] = []
    augment = Augment(flip=True)
    fit(out=tmp_path, augment=augment, progress=lambda what, *_: seen.append(what))
    assert seen[0].startswith("training fused: every epoch has new views")


def test_a_stopped_fused_run_resumes_to_the_same_weights(fit: Fit, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if "epoch 2/" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(out=tmp_path, how="fused", progress=stop)
    seen: list[str] = []
    ended = fit(out=tmp_path, how="fused", progress=lambda what, *_: seen.append(what))
    assert not [what for what in seen if "epoch 1/" in what or "statistics" in what]
    assert same_bits(ended, fit(how="fused"))


def test_stored_views_give_what_the_same_views_give_fused(fit: Fit) -> None:
    augment = Augment(flip=True, shift=2, views=2)
    cached, fused = (losses(fit(how=how, augment=augment)) for how in ("cached", "fused"))
    plain = losses(fit(how="cached"))
    assert fused == pytest.approx(cached, rel=1e-3)
    assert plain != pytest.approx(cached, rel=1e-3)


def test_fresh_views_differ_in_every_epoch_and_stored_ones_come_round(fit: Fit) -> None:
    branches = {"4": [ConvBranch(filters=3, hidden=9, dropout=0.0)]}
    options = {"lr": 1e-30, "batch_size": 41, "epochs": 3}  # weights as good as fixed
    fresh, stored = (
        losses(fit(branches, seeds=[3], augment=Augment(shift=3, views=views), **options))
        for views in (None, 2)
    )
    assert len({f"{loss:.4f}" for loss in fresh}) == 3
    assert stored[2] == pytest.approx(stored[0], rel=1e-6)
    assert stored[1] != pytest.approx(stored[0], rel=1e-4)


def test_fresh_views_cannot_be_cached(fit: Fit) -> None:
    with pytest.raises(PlanError, match="how='fused'"):
        fit(how="cached", augment=Augment(flip=True))


def test_a_sample_that_is_not_finite_is_named_fused_too(fit: Fit, train: Images) -> None:
    images, labels = train
    images[17, 1, 2, 3] = float("nan")
    with pytest.raises(DataError, match="sample 17"):
        fit(how="fused", train=(images, labels))


def test_damaged_statistics_are_computed_again(
    fit: Fit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = fit(out=tmp_path, how="fused")
    [path] = tmp_path.glob("cache/*-statistics.json")
    path.write_text(path.read_text()[:100])
    again = fit(out=tmp_path, how="fused")
    assert "will be recomputed" in caplog.text
    assert same_bits(first, again)
