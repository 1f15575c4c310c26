import math

import pytest

from offramp.training.course import Plateau
from offramp.training.settings import TrainSettings

SETTINGS = TrainSettings(lr=1.0, lr_factor=0.5, lr_patience=2, stop_patience=5, epochs=20)


def run(losses: list[float], settings: TrainSettings = SETTINGS) -> list[Plateau]:
    states = [Plateau(settings.rates[0])]
    for loss in losses:
        states.append(states[-1].after(loss, settings))
    return states[1:]


def test_the_second_epoch_in_a_row_without_a_gain_reduces_the_learning_rate() -> None:
    states = run([3.0, 2.0, 2.0, 2.5, 2.1, 2.2])
    assert [state.lr for state in states] == [1, 1, 1, 0.5, 0.5, 0.25]


def test_a_lower_loss_resets_both_counts() -> None:
    states = run([3.0, 4.0, 2.9, 4.0, 4.0, 4.0, 4.0, 4.0])
    assert [state.lr for state in states] == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    assert [state.stopped for state in states] == [False] * 7 + [True]
    assert {state.best_epoch for state in states[2:]} == {3}


def test_training_stops_at_the_last_epoch() -> None:
    states = run([3.0, 2.0, 1.0], SETTINGS.model_copy(update={"epochs": 3}))
    assert [state.stopped for state in states] == [False, False, True]
    assert all(state.improved for state in states)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_at_once_and_is_never_best(loss: float) -> None:
    last = run([3.0, loss])[-1]
    assert last.stopped
    assert (last.best_epoch, last.best_loss) == (1, 3.0)


KERAS = TrainSettings(profile="keras", lr=1.0, lr_factor=0.5, epochs=20)
SLOW = [1.0, 0.99997, 0.99994, 0.99991]


def test_as_in_keras_small_gains_reduce_the_learning_rate_but_do_not_stop_training() -> None:
    states = run(SLOW, KERAS)
    assert [state.lr for state in states] == [1, 1, 0.5, 0.5]
    assert [state.best_epoch for state in states] == [1, 2, 3, 4]


def test_without_the_keras_profile_any_gain_keeps_the_learning_rate() -> None:
    assert [state.lr for state in run(SLOW)] == [1, 1, 1, 1]


def test_as_in_keras_a_reduction_does_not_reset_the_count_towards_the_stop() -> None:
    states = run([1.0, 2.0, 2.0, 2.0, 2.0, 2.0], KERAS)
    assert [state.lr for state in states] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert [state.stopped for state in states] == [False] * 5 + [True]


def test_the_learning_rate_goes_by_the_loss_that_last_counted() -> None:
    states = run([1.0, 0.99995, 0.99985, 0.99984, 0.99983], KERAS)
    assert [state.lr for state in states] == [1, 1, 1, 1, 0.5]


def test_a_profile_sets_defaults_that_explicit_settings_override() -> None:
    assert (KERAS.lr_min_delta, KERAS.adam_epsilon) == (1e-4, 1e-7)
    assert TrainSettings(profile="keras", adam_epsilon=1e-8).adam_epsilon == 1e-8
    assert TrainSettings.model_validate(KERAS.model_dump()) == KERAS
