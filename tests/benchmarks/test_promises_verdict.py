import numpy as np
import pytest
from promises.draws import Asked, Outcome, Tally, tallied
from promises.pool import Pool
from promises.populations import well_behaved
from promises.verdict import Judgement, judged, most_broken

LTT = Asked("ltt", 0.01, 0.05)


def tally(issued: int = 1000, broken: int = 0, saved: float = 0.5, asked: Asked = LTT) -> Tally:
    return Tally(7400, asked, 1000, issued, broken, 0.005, saved, 5180, 0.01)


def test_draws_are_counted_over_all_and_means_over_the_policies_issued() -> None:
    found = [
        Outcome(LTT, True, 0.012, 0.4, 5000, 0.1),
        Outcome(LTT, True, 0.01, 0.2, 5100, 0.1),
        Outcome(LTT, False, 0.0, 0.0, 0, 0.4),
    ]
    counted = tallied(7400, LTT, found)
    assert (counted.draws, counted.issued, counted.broken) == (3, 2, 1)
    assert (counted.drop, counted.saved) == pytest.approx((0.011, 0.3))
    assert counted.samples == 5050
    assert counted.seconds == pytest.approx(0.2)


def test_a_promise_may_be_broken_in_delta_of_the_draws_and_chance_on_top() -> None:
    assert most_broken(1000, 0.05) == 67
    assert most_broken(1000, 0.1) == 123
    assert Judgement(tally(broken=67), 67, None).kept
    assert not Judgement(tally(broken=68), 67, None).kept
    assert Judgement(tally(broken=900), None, None).kept


@pytest.mark.parametrize(
    ("issued", "saved", "useful"), [(800, 0.42, True), (799, 0.5, False), (1000, 0.41, False)]
)
def test_timid_is_who_issues_seldom_or_saves_little(
    issued: int, saved: float, useful: bool
) -> None:
    assert Judgement(tally(issued, saved=saved), 67, 0.6).useful is useful


def test_only_promises_on_enough_samples_are_held_against_the_best_policy() -> None:
    pool = Pool("pool", well_behaved(3000, np.random.default_rng(0)))
    few = Tally(2000, LTT, 10, 10, 0, 0.0, 0.5, 1400, 0.01)
    greedy = tally(asked=Asked("greedy", 0.01, None))
    large, small, free = judged(pool, [tally(), few, greedy])
    assert large.certifiable is not None
    assert large.certifiable > 0.5
    assert small.certifiable is None
    assert free.certifiable is free.allowed is None


def test_a_record_is_flat() -> None:
    record = Judgement(tally(broken=68, saved=2 / 3), 67, None).as_json()
    assert record["method"] == "ltt"
    assert record["max_drop"] == 0.01
    assert record["saved"] == 0.666667
    assert record["kept"] is False
    assert not any(isinstance(value, dict) for value in record.values())
