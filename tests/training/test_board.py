from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from offramp.multiexit.trial import Epoch
from offramp.training.board import Board


def epoch(number: int, loss: float) -> Epoch:
    return Epoch(number, loss, 2 * loss, 0.5, 1e-3)


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_a_resumed_curve_is_that_of_the_history_without_gaps_or_repeats(tmp_path: Path) -> None:
    killed = Board(tmp_path, [])
    for number in (1, 2, 3):  # the third was written but its state was not saved
        killed.write(epoch(number, number))
    resumed = Board(tmp_path, [epoch(1, 1), epoch(2, 2)])
    resumed.write(epoch(3, 7))
    resumed.close()
    assert curve(tmp_path, "train_loss") == [(1, 1), (2, 2), (3, 7)]
    assert curve(tmp_path, "validation_loss") == [(1, 2), (2, 4), (3, 14)]
    killed.close()
