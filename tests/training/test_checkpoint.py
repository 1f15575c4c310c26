import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from offramp.branches import ConvBranch
from offramp.compute import seeded
from offramp.errors import DataError
from offramp.spec import FeatureShape
from offramp.training.checkpoint import load_checkpoint, save_checkpoint
from offramp.training.learner import Learner, TrialName
from offramp.training.objective import Objective
from offramp.training.settings import TrainSettings

SPEC = ConvBranch(filters=3, hidden=9, norm=True)
TAPS = torch.randn(13, 7, 6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(13) % 4


def learner() -> Learner:
    name = TrialName("here", SPEC, 5)
    with seeded(*name.stream):
        branch = SPEC.build(FeatureShape(7, 6, 4), 4)
    settings = TrainSettings(epochs=4, lr=1e-2, lr_patience=1)
    return Learner(name, branch, settings, Objective("classification", "mae"))


def train(learner: Learner, epochs: int) -> Learner:
    for _ in range(epochs):
        learner.begin_epoch()
        learner.learn((TAPS,), LABELS, learner.plateau.epoch)
        learner.judge((TAPS,), LABELS)
        learner.end_epoch()
    return learner


def same(one: Learner, other: Learner) -> bool:
    (tensors, scalars), (other_tensors, other_scalars) = one.state(), other.state()
    return (
        scalars == other_scalars
        and tensors.keys() == other_tensors.keys()
        and all(torch.equal(value, other_tensors[name]) for name, value in tensors.items())
    )


def test_a_learner_goes_on_from_its_checkpoint_as_if_never_stopped(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.safetensors"
    save_checkpoint(path, train(learner(), 2))
    resumed = learner()
    assert load_checkpoint(path, resumed)
    assert same(train(resumed, 2), train(learner(), 4))


def test_a_checkpoint_of_a_finished_branch_holds_its_result_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    finished = train(learner(), 4)
    save_checkpoint(path, finished)
    read = learner()
    assert load_checkpoint(path, read)
    assert read.done
    assert {name.split("/")[0] for name in read.state()[0]} == {"best"}
    trial, expected = read.trial(), finished.trial()
    assert trial.history == expected.history
    for name, value in expected.branch.state_dict().items():
        assert torch.equal(trial.branch.state_dict()[name], value)


def flip_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_header(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"train_loss", b"train_lost", 1))


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("harm", [flip_middle, flip_header, shorten])
def test_a_damaged_checkpoint_is_named_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, train(learner(), 2))
    harm(path)
    fresh = learner()
    with caplog.at_level(logging.WARNING):
        assert not load_checkpoint(path, fresh)
    assert "state.safetensors" in caplog.text
    assert same(fresh, learner())


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".state.123.tmp.safetensors").write_bytes(b"half")
    assert not load_checkpoint(tmp_path / "state.safetensors", learner())
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    path.mkdir()
    with pytest.raises(DataError, match=r"state\.safetensors cannot be written"):
        save_checkpoint(path, train(learner(), 1))
    assert [left.name for left in tmp_path.iterdir()] == ["state.safetensors"]
