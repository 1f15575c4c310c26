import itertools
import json

import numpy as np
import pytest

from offramp.drift import dependence
from offramp.drift.dependence import LAGS, LagTest


def stream(answers: int, *shares: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(shares), answers, p=shares)


def test_mean_and_variance_match_all_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependence, "LAGS", 2)
    block = [0, 0, 0, 1, 1, 2, 0]
    found = np.array([dependence._excess(np.array(o)) for o in itertools.permutations(block)])
    excess, variance = found[:, 0], found[:, 1]
    np.testing.assert_allclose(excess.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(variance[0], (excess**2).mean(axis=0))


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.97, 0.03), (0.3, 0.3, 0.3, 0.1)])
def test_independent_answers_give_no_warning(shares: tuple[float, ...]) -> None:
    for seed in range(20):
        assert LagTest().update(stream(13_000, *shares, seed=seed)) is None


def test_drift_is_not_mistaken_for_dependence() -> None:
    random = np.random.default_rng(0)
    creeping = random.random(40_000) < np.linspace(0.2, 0.6, 40_000)
    jump = np.concatenate([stream(5050, 0.9, 0.1), stream(5050, 0.5, 0.5)])
    assert LagTest().update(creeping.astype(np.int64)) is None
    assert LagTest().update(jump) is None


@pytest.mark.parametrize("length", [2, 5, 10])
def test_runs_are_detected_with_about_their_length(length: int) -> None:
    answers = np.repeat(stream(6400 // length, 0.6, 0.4), length)
    reach = LagTest().update(answers)
    assert reach is not None
    assert length // 2 <= reach < length


def test_alternating_cameras_are_detected() -> None:
    one, other = (np.repeat(stream(400, 0.5, 0.5, seed=seed), 4) for seed in (1, 2))
    answers = np.stack([one, other], axis=1).ravel()  # alike at distances of 2, 4 and 6
    reach = LagTest().update(answers)
    assert reach is not None
    assert reach % 2 == 0


def test_batching_and_restarts_do_not_change_the_state() -> None:
    answers = stream(2050, 0.5, 0.3, 0.2)
    whole, parts = LagTest(), LagTest()
    whole.update(answers)
    for piece in np.split(answers, [0, 7, 100, 101, 950]):
        parts.update(piece)
        restored = LagTest()
        restored.restore(json.loads(json.dumps(parts.state())))
        parts = restored
    assert parts.state() == whole.state()
    assert whole.blocks == 20
    assert len(whole.sums[0]) == LAGS
