from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from offramp.multiexit.model import MultiExit
from offramp.policy import ExitPolicy, find_score
from offramp.run import OpenRun
from offramp.runtime.runtime import Runtime

SHAPE = (3, 9, 7)


def samples(count: int = 61) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(count, *SHAPE)).astype(np.float32)


@pytest.fixture
def runtime(folder: Path) -> Iterator[Runtime]:
    with Runtime(folder) as opened:
        yield opened


def splitting(model: MultiExit) -> ExitPolicy:
    """A policy under which about a third of the samples leaves at each exit."""
    rows = model.collect((samples(), np.arange(61) % 5))
    score = find_score("max_softmax")
    thresholds = tuple(float(np.quantile(scores, 0.63)) for scores in score.of(rows))
    return ExitPolicy(score=score, names=model.names, thresholds=thresholds)


@pytest.mark.filterwarnings("ignore::offramp.doubts.DoubtWarning")
def test_a_bundle_answers_as_the_model_does_with_torch(model: MultiExit, runtime: Runtime) -> None:
    policy = splitting(model)
    wanted = OpenRun(model).run_batch(samples(), policy)
    for found in (
        runtime.run_batch(samples(), policy),
        [runtime.run(sample, policy) for sample in samples()],
    ):
        assert [each.exit for each in found] == [each.exit for each in wanted]
        assert [each.flops for each in found] == [each.flops for each in wanted]
        np.testing.assert_allclose(
            [each.outputs for each in found], [each.outputs for each in wanted], atol=1e-5
        )
    assert len({each.exit for each in wanted}) == 3


def test_no_stage_runs_after_the_exit_that_answers(model: MultiExit, runtime: Runtime) -> None:
    score = find_score("max_softmax")
    for thresholds, runs in (((0.0, 0.0), (1, 0, 0)), ((None, 0.0), (2, 1, 0))):
        runtime.run(samples()[0], ExitPolicy(score=score, names=model.names, thresholds=thresholds))
        assert runtime.stage_runs == runs
    runtime.run(samples()[0])
    assert runtime.stage_runs == (3, 2, 1)
