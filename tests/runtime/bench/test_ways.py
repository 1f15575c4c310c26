"""Policies that let given shares of samples leave at given exits."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from offramp.answering.walk import full_network
from offramp.policy import ExitPolicy, find_score
from offramp.runtime.bench.ways import asking_all, leaving_at, leaving_in_shares, straight_to
from offramp.runtime.runtime import Runtime

SHAPE = (3, 9, 7)


@pytest.fixture(scope="module")
def runtime(folder: Path) -> Iterator[Runtime]:
    with Runtime(folder, threads=1) as opened:
        yield opened


def policy_of(runtime: Runtime, score: str = "max_softmax") -> ExitPolicy:
    return ExitPolicy(score=find_score(score), names=runtime.facts.names, thresholds=(0.9, 0.4))


def sample(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(1).normal(size=(count, *SHAPE)).astype(np.float32))


@pytest.mark.parametrize("exit", [0, 1, 2])
@pytest.mark.parametrize("score", ["max_softmax", "patience"])
def test_every_sample_leaves_at_the_exit_that_was_set(
    runtime: Runtime, exit: int, score: str
) -> None:
    policy = policy_of(runtime, score)
    for way in (leaving_at(policy, exit), straight_to(policy, exit)):
        before = np.array(runtime.stage_runs)
        found = [answer.exit for answer in runtime.run_batch(sample(5), way)]
        assert found == [runtime.facts.names[exit]] * 5
        assert (np.array(runtime.stage_runs) - before).tolist() == [
            int(stage <= exit) for stage in range(3)
        ]


def test_the_way_straight_to_an_exit_runs_no_other_branch(runtime: Runtime) -> None:
    policy = policy_of(runtime, "patience")
    flops = runtime.run(sample(1)[0], straight_to(policy, 1)).flops
    passed = runtime.run(sample(1)[0], leaving_at(policy, 1)).flops
    assert passed - flops == runtime.facts.exits[0].flops


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_shares_hold_over_many_batches_of_any_size(runtime: Runtime, batch: int) -> None:
    shares = (0.4, 0.35, 0.25)
    way = leaving_in_shares(policy_of(runtime), shares)
    rounds = 140 // batch
    found = Counter(
        answer.exit for _ in range(rounds) for answer in runtime.run_batch(sample(batch), way)
    )
    expected = dict(zip(runtime.facts.names, shares, strict=True))
    for name, count in found.items():
        assert abs(count - batch * rounds * expected[name]) <= 2


def test_all_exits_are_asked_where_there_is_no_policy(runtime: Runtime) -> None:
    policy = asking_all(full_network(runtime.facts.task, runtime.facts.names))
    assert policy.enabled.all()
