from pathlib import Path

import numpy as np
import pytest
from promises.draws import Task, answered, outcomes
from promises.pool import Pool
from promises.populations import well_behaved

from offramp.calibration import calibrate
from offramp.errors import NoPolicyError
from offramp.policy.promise import Method

POOL = Pool("pool", well_behaved(4000, np.random.default_rng(2)))
DROPS = (0.0005, 0.01, 0.03)


@pytest.mark.parametrize("method", ["ltt", "ucb"])
def test_limits_given_together_are_answered_as_one_by_one(method: Method) -> None:
    drawn = POOL.drawn(np.random.default_rng(0).integers(len(POOL), size=900))
    together = answered(method, 0.1, drawn, DROPS, seed=7)
    for drop in DROPS:
        thresholds, samples = together[drop]
        try:
            policy = calibrate(
                drawn.outputs,
                max_drop=drop,
                confidence=0.9,
                method=method,
                seed=7,
            )
        except NoPolicyError:
            assert thresholds == (None, None, None)
            continue
        assert policy.promise is not None
        assert (policy.thresholds, policy.promise.num_samples) == (thresholds, samples)
    assert together[DROPS[0]] == ((None, None, None), 0)  # too strict for so few
    assert together[DROPS[-1]][1] > 0


def test_a_draw_depends_on_its_number_alone(tmp_path: Path) -> None:
    path = tmp_path / "pool.npz"
    POOL.outputs.save(path)

    def found(*draws: int) -> list[tuple[float, float]]:
        task = Task("pool", path, 500, draws, 3, (0.02,), (("greedy", None),))
        return [(each.drop, each.saved) for each in outcomes(task, clock=lambda: 0.0)]

    both = found(4, 5)
    assert both == found(4) + found(5)
    assert both[0] != both[1]
