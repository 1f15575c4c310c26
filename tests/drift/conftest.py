"""A reference with a known exit mix, and a policy on it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from offramp.drift import Watch, watch
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, find_score


def reference_with(counts: Sequence[int], differ: int = 0) -> ExitOutputs:
    """As many samples as `counts` says leave at each exit; the first `differ` answer otherwise."""
    exits, samples = len(counts), sum(counts)
    leaves = np.repeat(np.arange(exits), counts)
    scores = (np.arange(exits)[:, np.newaxis] >= leaves).astype(np.float64)
    answers = np.zeros((exits, samples), np.int64)
    answers[:-1, :differ] = 1
    return ExitOutputs(
        outputs=np.eye(2, dtype=np.float32)[answers],
        labels=np.zeros(samples, np.int64),
        stage_flops=np.ones(exits, np.int64),
        branch_flops=np.array([1] * (exits - 1) + [0]),
        scores=scores,
    )


def policy_on(reference: ExitOutputs, *disabled: int) -> ExitPolicy:
    """A policy under which each sample leaves where its scores say."""
    early = len(reference.names) - 1
    return ExitPolicy(
        score=find_score("given"),
        thresholds=tuple(None if exit in disabled else 1.0 for exit in range(early)),
        names=tuple(reference.names),
    )


@pytest.fixture
def make_watch() -> Callable[..., Watch]:
    def make(counts: Sequence[int], differ: int = 0, **settings: Any) -> Watch:
        reference = reference_with(counts, differ)
        return watch(reference, policy_on(reference), **settings)

    return make


@pytest.fixture
def make_reference() -> Callable[..., ExitOutputs]:
    return reference_with


@pytest.fixture
def make_policy() -> Callable[..., ExitPolicy]:
    return policy_on
