"""Simulated populations: logits of several exits on samples whose difficulty the exits share."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from offramp.outputs import ExitOutputs

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Random = np.random.Generator

CLASSES = 4
STAGE_FLOPS, BRANCH_FLOPS = 100_000_000, 4_000_000
SURE = 8.0
"""What is added to a class that an exit is sure of, right or wrong."""

STAIRS = ((0.002, 0.0005), (0.00502, 0.0005), (0.01002, 0.001), (0.02002, 0.001), (0.05, 0.002))
"""Of each step: the drop of all samples that leave by it, and the share that leaving corrects."""
STEP = 0.18
"""Share of samples on each step; the rest never leaves early."""


def well_behaved(rows: int, rng: Random) -> ExitOutputs:
    """Three early exits that get better in turn and know fairly well when they are wrong."""
    labels = rng.integers(CLASSES, size=rows)
    return exits_of(graded(labels, (1.7, 2.1, 2.4, 2.6), rng), labels)


def overconfident(rows: int, rng: Random) -> ExitOutputs:
    """The first exit is saturated, and sure of a wrong class in 3 % of its answers."""
    labels = rng.integers(CLASSES, size=rows)
    logits = graded(labels, (1.7, 2.1, 2.4, 2.6), rng)
    wrong = np.flatnonzero(rng.random(rows) < 0.03)
    logits[0, wrong, (labels[wrong] + 1) % CLASSES] += SURE
    logits[0] *= 12
    return exits_of(logits, labels)


def one_class(rows: int, rng: Random) -> ExitOutputs:
    """Early exits are as good as the last one, but for class 0, which they often take for 1."""
    labels = rng.integers(CLASSES, size=rows)
    logits = graded(labels, (2.4, 2.5, 2.6), rng)
    for exit, share in ((0, 0.2), (1, 0.1)):
        mistaken = np.flatnonzero((labels == 0) & (rng.random(rows) < share))
        logits[exit, mistaken, 1] += SURE * rng.random(len(mistaken))
    return exits_of(logits, labels)


def many_exits(rows: int, rng: Random) -> ExitOutputs:
    """Seven early exits."""
    labels = rng.integers(CLASSES, size=rows)
    return exits_of(graded(labels, np.linspace(1.6, 2.6, 8).tolist(), rng), labels)


def never_good_enough(rows: int, rng: Random) -> ExitOutputs:
    """The first exit guesses, and is sure of it; the second is worth having."""
    labels = rng.integers(CLASSES, size=rows)
    logits = graded(labels, (0.0, 2.2, 2.6), rng)
    logits[0] = rng.normal(scale=SURE, size=(rows, CLASSES))
    return exits_of(logits, labels)


def stairs(rows: int, rng: Random) -> ExitOutputs:
    """One early exit with five scores; each limit is passed by a hair at one of its steps.

    The drop is exact but for rounding to whole samples: nothing but the order is drawn.
    """
    step = np.minimum(np.arange(rows) // int(STEP * rows), len(STAIRS))
    right = np.ones((2, rows), bool)
    right[0, step == len(STAIRS)] = False
    drops = np.diff([0.0, *(drop for drop, _ in STAIRS)])
    for place, (drop, (_, corrected)) in enumerate(zip(drops, STAIRS, strict=True)):
        here = np.flatnonzero(step == place)
        gains, losses = round(corrected * rows), round((drop + corrected) * rows)
        right[1, here[:gains]] = False
        right[0, here[gains : gains + losses]] = False
    logits = np.zeros((2, rows, CLASSES))
    logits[..., 0] = np.where(right, 1.0, 0.0)
    logits[..., 1] = np.where(right, 0.0, 1.0)
    logits[0] *= (len(STAIRS) + 1 - step)[:, None]
    order = rng.permutation(rows)
    return exits_of(logits[:, order], np.zeros(rows, np.int64))


def twelve_exits(rows: int, rng: Random) -> ExitOutputs:
    """Twelve early exits: more thresholds than a few samples can tell apart."""
    labels = rng.integers(CLASSES, size=rows)
    return exits_of(graded(labels, np.linspace(1.4, 2.6, 13).tolist(), rng), labels)


def clusters_of_5(rows: int, rng: Random) -> ExitOutputs:
    """Five rows of one source share their class and how hard they are."""
    return _clustered(np.full(rows // 5, 5), rng)


def clusters_of_20(rows: int, rng: Random) -> ExitOutputs:
    """Twenty rows of one source share their class and how hard they are."""
    return _clustered(np.full(rows // 20, 20), rng)


def clusters_of_1_to_20(rows: int, rng: Random) -> ExitOutputs:
    """Sources of 1, 2, 5 or 20 rows; the large ones are harder."""
    return _clustered(rng.choice([1, 2, 5, 20], rows // 7), rng, harder=0.05)


def equal_ids(rows: int, rng: Random) -> ExitOutputs:
    """Every sample five times under one id: what a set drawn with replacement looks like."""
    once = well_behaved(rows // 5, rng)
    times = np.repeat(np.arange(rows // 5), 5)
    return dataclasses.replace(
        once, outputs=once.outputs[:, times], labels=once.labels[times], ids=times.astype(str)
    )


def _clustered(sizes: Labels, rng: Random, harder: float = 0.0) -> ExitOutputs:
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    labels = rng.integers(CLASSES, size=len(sizes))[cluster]
    hardness = (rng.normal(size=len(sizes)) + harder * sizes)[cluster]
    logits = graded(labels, (1.7, 2.1, 2.4, 2.6), rng, hardness)
    return dataclasses.replace(exits_of(logits, labels), clusters=cluster)


SIMULATED: Mapping[str, Callable[[int, Random], ExitOutputs]] = MappingProxyType(
    {
        population.__name__.replace("_", " "): population
        for population in (
            well_behaved,
            overconfident,
            one_class,
            many_exits,
            never_good_enough,
            stairs,
            twelve_exits,
            clusters_of_5,
            clusters_of_20,
            clusters_of_1_to_20,
            equal_ids,
        )
    }
)


def graded(
    labels: Labels, abilities: Sequence[float], rng: Random, hardness: Floats | None = None
) -> Floats:
    """Logits (E, N, K): one difficulty per sample, one ability per exit, noise shared in part."""
    rows = len(labels)
    hardness = rng.normal(size=rows) if hardness is None else hardness
    margins = np.array(abilities)[:, None] - 0.9 * hardness
    margins += 0.3 * rng.normal(size=margins.shape)
    logits = 0.35 * rng.normal(size=(rows, CLASSES))
    logits = logits + 0.25 * rng.normal(size=(len(abilities), rows, CLASSES))
    logits[:, np.arange(rows), labels] += margins
    scaled: Floats = 2.5 * logits
    return scaled


def exits_of(logits: Floats, labels: Labels) -> ExitOutputs:
    """Outputs of exits that stand one equal stage apart."""
    exits = len(logits)
    branches = np.full(exits, BRANCH_FLOPS)
    branches[-1] = 0
    return ExitOutputs(
        outputs=logits.astype(np.float32),
        labels=labels,
        stage_flops=np.full(exits, STAGE_FLOPS),
        branch_flops=branches,
    )
