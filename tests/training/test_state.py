import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from offramp.branches import ConvBranch
from offramp.compute import seeded
from offramp.errors import DataError
from offramp.multiexit.trial import Epoch, Trial
from offramp.spec import FeatureShape
from offramp.training.learner import Learner, TrialName
from offramp.training.objective import Objective
from offramp.training.settings import TrainSettings
from offramp.training.state import Curves, load_state, safe_name, save_state

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


def test_a_learner_resumes_from_its_state_as_if_never_stopped(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.safetensors"
    save_state(path, train(learner(), 2))
    resumed = learner()
    assert load_state(path, resumed)
    assert same(train(resumed, 2), train(learner(), 4))


def test_the_state_of_a_finished_branch_holds_its_result_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    finished = train(learner(), 4)
    save_state(path, finished)
    read = learner()
    assert load_state(path, read)
    assert read.done
    assert {name.split("/")[0] for name in read.state()[0]} == {"best"}
    trial, expected = read.result(), finished.result()
    assert isinstance(trial, Trial)
    assert isinstance(expected, Trial)
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
def test_a_damaged_state_is_named_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, train(learner(), 2))
    harm(path)
    fresh = learner()
    with caplog.at_level(logging.WARNING):
        assert not load_state(path, fresh)
    assert "state.safetensors" in caplog.text
    assert same(fresh, learner())


def test_a_state_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    path.mkdir()
    with pytest.raises(DataError, match=r"state\.safetensors cannot be written"):
        save_state(path, train(learner(), 1))
    assert [left.name for left in tmp_path.iterdir()] == ["state.safetensors"]


def epoch(number: int, loss: float) -> Epoch:
    return Epoch(number, loss, 2 * loss, 0.5, 1e-3)


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_a_resumed_curve_is_that_of_the_history_without_gaps_or_repeats(tmp_path: Path) -> None:
    killed = Curves(tmp_path, [])
    for number in (1, 2, 3):  # the third was written but its state was not saved
        killed.write(epoch(number, number))
    resumed = Curves(tmp_path, [epoch(1, 1), epoch(2, 2)])
    resumed.write(epoch(3, 7))
    resumed.close()
    assert curve(tmp_path, "train_loss") == [(1, 1), (2, 2), (3, 7)]
    assert curve(tmp_path, "validation_loss") == [(1, 2), (2, 4), (3, 14)]
    killed.close()


@pytest.mark.parametrize(
    "text",
    [
        "../../x",
        "/etc/passwd",
        "..",
        "a\\b",
        "layer 1",
        "Layer1",
        "CON",
        "nul",
        "com1.txt",
        "",
        "long" * 99,
        "ümläut",
        "a:b|c*?",
        "trailing.",
    ],
)
def test_no_text_of_a_user_is_a_path(text: str) -> None:
    name = safe_name(text)
    assert re.fullmatch(r"[a-z0-9._-]{1,80}", name)
    assert not name.startswith(".")
    assert name not in ("con", "nul", "com1.txt")


def test_different_texts_have_different_names_and_plain_ones_stay() -> None:
    texts = ["Layer1", "layer1", "LAYER1", "a/b", "a_b", "a\\b", "long" * 50, "long" * 51]
    assert len({safe_name(text) for text in texts}) == len(texts)
    assert safe_name("layer1.2.relu_2") == "layer1.2.relu_2"
