import numpy as np
import pytest
from promises.pool import Pool
from promises.populations import exits_of, well_behaved
from promises.rivals import Replay, in_sample_greedy

POOL = Pool("pool", well_behaved(1500, np.random.default_rng(4)))


@pytest.mark.parametrize("max_drop", [0.0, 0.005, 0.02, 1.0])
def test_greedy_search_keeps_the_drop_on_its_own_rows(max_drop: float) -> None:
    assert POOL.judge(in_sample_greedy(POOL, max_drop)).drop <= max_drop + 1e-12


def test_greedy_search_lowers_until_the_next_step_would_break_the_limit() -> None:
    labels = np.zeros(4, np.int64)
    logits = np.zeros((2, 4, 3))
    logits[1, :, 0] = 1
    logits[0, np.arange(4), [0, 0, 1, 0]] = [4, 3, 2, 1]  # the third answer is wrong
    pool = Pool("four", exits_of(logits, labels))
    for max_drop, leaving in ((0.0, 2), (0.25, 4)):
        [threshold] = in_sample_greedy(pool, max_drop)
        assert threshold is not None
        assert np.count_nonzero(pool.scores[0] >= threshold) == leaving


def test_greedy_search_disables_an_exit_whose_surest_answer_is_too_wrong() -> None:
    logits = np.zeros((2, 2, 3))
    logits[1, :, 0] = 1
    logits[0, :, 1] = [3, 2]
    assert in_sample_greedy(Pool("two", exits_of(logits, np.zeros(2, np.int64))), 0.1) == (None,)


@pytest.mark.filterwarnings("ignore:FLOPs analysis failed:RuntimeWarning")  # of its own counter
def test_earlyon_sees_the_stored_logits_and_keeps_the_drop_on_them() -> None:
    pytest.importorskip("earlyon")
    exits, _, classes = POOL.outputs.outputs.shape
    replay = Replay(exits, classes)
    for max_drop in (0.005, 0.05):
        thresholds = replay.calibrate(POOL, max_drop)
        judged = POOL.judge(thresholds)
        assert judged.drop <= max_drop
        assert judged.saved > 0
        assert set(thresholds) <= {None, 0.99, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5}
