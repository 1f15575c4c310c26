"""The whole network as one graph."""

from pathlib import Path

import numpy as np
import pytest

from offramp.bundle import open_bundle
from offramp.runtime.bench.one_graph import as_one_graph
from offramp.runtime.runtime import Runtime


@pytest.mark.parametrize("name", ["folder", pytest.param("hearing_folder", marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [1, 3])
def test_one_graph_answers_as_the_stages_in_turn(
    name: str, count: int, request: pytest.FixtureRequest
) -> None:
    place: Path = request.getfixturevalue(name)
    bundle = open_bundle(place)
    with Runtime(bundle, threads=1) as stages, Runtime(as_one_graph(bundle), threads=1) as whole:
        draw = np.random.default_rng(2)
        samples = [
            tuple(draw.normal(size=each.shape).astype(each.dtype) for each in stages.facts.inputs)
            for _ in range(count)
        ]
        for one, other in zip(whole.run_batch(samples), stages.run_batch(samples), strict=True):
            assert (one.exit, one.flops) == ("final", other.flops)
            np.testing.assert_allclose(one.outputs, other.outputs, atol=1e-5)
        assert whole.stage_runs == (1,)
