from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from offramp.bundle import open_bundle
from offramp.errors import BundleError
from offramp.multiexit.model import MultiExit
from offramp.policy import ExitPolicy, find_score
from offramp.run import OpenRun
from offramp.runtime.leaving import Leaving
from offramp.runtime.measuring import measured_times
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


@pytest.mark.filterwarnings("ignore::offramp.doubts.DoubtWarning")
@pytest.mark.parametrize(("row_ms", "removed"), [(1e9, False), (0.0, True)])
def test_samples_that_have_left_are_removed_only_where_that_pays(
    model: MultiExit, folder: Path, row_ms: float, removed: bool
) -> None:
    policy = splitting(model)
    wanted = OpenRun(model).run_batch(samples(), policy)
    exits = [sum(each.exit == name for each in wanted) for name in model.names]
    with Runtime(folder) as measured:
        here = measured_times(measured.bundle, measured.parts, repeats=2)
    bundle = open_bundle(folder)
    times = here.model_copy(update={"row_ms": (row_ms, row_ms)})
    manifest = bundle.manifest.model_copy(update={"times": (times,)})
    with Runtime(replace(bundle, manifest=manifest)) as runtime:
        found = runtime.run_batch(samples(), policy)
        left = (61, 61 - exits[0], exits[2]) if removed else (61, 61, 61)
        assert runtime.parts.stage_samples == left
    assert [each.exit for each in found] == [each.exit for each in wanted]
    assert [each.label for each in found] == [each.label for each in wanted]
    np.testing.assert_allclose(
        [each.outputs for each in found], [each.outputs for each in wanted], atol=1e-4
    )


def test_without_times_of_this_machine_samples_that_have_left_are_removed(folder: Path) -> None:
    manifest = open_bundle(folder).manifest
    assert Leaving.of(manifest, None).pays(0, 60, 61)
    times = manifest.times[0]
    assert len(times.row_ms) == 2
    cheap = times.model_copy(update={"row_ms": (1.0, 1.0)})
    parts = tuple(each.model_copy(update={"median_ms": 10.0}) for each in times.parts)
    found = Leaving.of(manifest, cheap.model_copy(update={"parts": parts}))
    assert [found.pays(0, 61 - left, 61) for left in (5, 6)] == [False, True]


def test_a_closed_runtime_says_so(folder: Path) -> None:
    runtime = Runtime(folder)
    runtime.warm_up()
    runtime.close()
    for deadline in (None, 1000.0):
        with pytest.raises(BundleError, match=r"was closed\. Open it again"):
            runtime.run(samples()[0], deadline_ms=deadline)
