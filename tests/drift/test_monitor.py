import numpy as np
import pytest

from offramp.drift.bets import bets_on
from offramp.drift.monitor import Monitor

SHIFTS = {0.045: 0.75, 0.12: 0.25}


def monitor(counts: tuple[int, ...], limit: float = 100.0, seed: int = 0) -> Monitor:
    shares = np.array(counts) / sum(counts)
    random = np.random.default_rng(seed)
    return Monitor(bets_on(shares, SHIFTS), np.array(counts), np.log(limit), random)


def stream(answers: int, *shares: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(shares), answers, p=shares)


class Values(Monitor):
    """A monitor that also keeps the ranks it bet on."""

    def __init__(self, counts: tuple[int, ...], seed: int) -> None:
        random = np.random.default_rng(seed)
        super().__init__(bets_on(np.array([0.5, 0.5]), {0.05: 1.0}), np.array(counts), 99.0, random)
        self.seen: list[np.ndarray] = []

    def _ranks(self, hits: np.ndarray, upto: np.ndarray) -> np.ndarray:
        ranks = super()._ranks(hits, upto)
        self.seen.append(ranks)
        return ranks


def test_without_drift_ranks_are_uniform_and_independent_even_for_a_tiny_reference() -> None:
    """Reference and stream are drawn together: 10 samples, then 40 answers, 600 times."""
    random = np.random.default_rng(3)
    rows = []
    for seed in range(600):
        counts = random.multinomial(10, [0.3, 0.7])
        watched = Values(tuple(counts), seed)
        watched.update(random.choice(2, 40, p=[0.3, 0.7]))
        rows.append(np.concatenate(watched.seen))
    ranks = np.stack(rows)
    tenths = np.bincount((10 * ranks).astype(int).ravel(), minlength=10) / ranks.size
    np.testing.assert_allclose(tenths, 0.1, atol=0.01)
    together = np.corrcoef(ranks[:, 0], ranks[:, -1])[0, 1]
    assert abs(together) < 0.12
    # The mean over a stream varies as 40 independent uniform numbers do; ranks among the
    # reference alone would all lean to the side that the reference errs to.
    assert ranks.mean(axis=1).std() == pytest.approx(np.sqrt(1 / 12 / 40), rel=0.1)


def test_the_division_of_answers_into_calls_does_not_matter() -> None:
    exits = stream(3000, 0.3, 0.3, 0.4)
    whole, parts = monitor((400, 300, 300)), monitor((400, 300, 300))
    found = whole.update(exits)
    pieces = [parts.update(piece) for piece in np.split(exits, [0, 1, 7, 99, 100, 950, 2000])]
    assert parts.log_e == pytest.approx(whole.log_e, abs=1e-9)
    assert found is not None
    assert [piece.answers for piece in pieces if piece] == [found.answers]


def test_without_drift_the_mean_wealth_stays_the_same() -> None:
    """Stakes that started, one on average; what has not started yet is not counted."""
    random = np.random.default_rng(0)
    money = []
    for seed in range(1500):
        counts = random.multinomial(200, [0.6, 0.4])
        watched = Monitor(
            bets_on(np.array([0.6, 0.4]), SHIFTS), counts, 99.0, np.random.default_rng(seed)
        )
        watched.update(random.choice(2, 90, p=[0.6, 0.4]))
        money.append(np.exp(watched.log_e))
    assert np.mean(money) == pytest.approx(0.7, abs=0.05)


def test_a_late_change_is_dated_correctly() -> None:
    watched = monitor((2500, 2500))
    assert watched.update(stream(5000, 0.5, 0.5)) is None
    found = watched.update(stream(5000, 0.3, 0.7, seed=2))
    assert found is not None
    assert 4000 <= found.since.sum() <= 5300
    share = (found.upto - found.since)[0] / (found.upto - found.since).sum()
    assert share == pytest.approx(0.3, abs=0.1)


def test_the_limit_is_crossed_once() -> None:
    watched = monitor((2500, 2500))
    assert watched.update(stream(3000, 0.2, 0.8)) is not None
    assert watched.update(stream(3000, 0.2, 0.8)) is None
    assert watched.crossed


def test_an_empty_update_changes_nothing() -> None:
    watched = monitor((50, 50))
    before = watched.log_e
    assert watched.update(np.array([], np.int64)) is None
    assert (watched.log_e, watched.answers) == (before, 0)
