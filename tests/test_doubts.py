"""What is said of labels and answers that look like a mistake, and what is left alone."""

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from offramp.doubts import class_counts, doubts_of_answers, doubts_of_labels
from offramp.outputs import ExitOutputs

RNG = np.random.default_rng(0)
LABELS = np.arange(90) % 5
NAMES = ["ant", "bee", "cow", "dog", "elk"]


def answers(*shares: float, labels: NDArray[np.int64] = LABELS, classes: int = 5) -> ExitOutputs:
    """Exits that are right on these shares of the samples, and else answer the next class."""
    right = [np.random.default_rng(7).permutation(len(labels)) < s * len(labels) for s in shares]
    shown = [np.where(each, labels, (labels + 1) % classes) for each in right]
    return of(4 * np.eye(classes)[np.stack(shown)], labels)


def of(outputs: NDArray[np.float64], labels: NDArray[np.generic], **facts: object) -> ExitOutputs:
    flops = np.ones(len(outputs), np.int64)
    return ExitOutputs(
        outputs=(outputs - 2 if "task" not in facts else outputs).astype(np.float32),
        labels=labels,
        stage_flops=flops,
        branch_flops=np.append(flops[1:], 0),
        **facts,  # type: ignore[arg-type]
    )


def test_a_network_that_works_raises_no_doubt() -> None:
    assert doubts_of_answers(answers(0.6, 0.8, 0.9)) == ()
    assert doubts_of_answers(answers(0.85, 0.8)) == ()


def test_a_final_exit_near_chance_is_named_with_likely_causes() -> None:
    guesses = of(4 * np.eye(5)[RNG.integers(0, 5, (2, 300))], np.arange(300) % 5)
    [doubt] = doubts_of_answers(guesses)
    assert "hardly does better than guessing: averaged over 5 classes" in doubt
    assert "guessing on 20.0 %. Likely causes: labels" in doubt
    assert "mean and standard deviation" in doubt


def test_chance_is_judged_by_class_where_one_class_is_most_of_the_data() -> None:
    labels = np.repeat([0, 1], [180, 20])
    always, good = np.zeros(200, np.int64), np.where(np.arange(200) < 188, labels, 0)
    [doubt] = doubts_of_answers(of(4 * np.eye(2)[always[None]], labels))
    assert "It answers class 0 for every sample" in doubt
    assert doubts_of_answers(of(4 * np.eye(2)[good[None]], labels)) == ()


def test_a_final_exit_far_below_an_early_one_is_named_with_both() -> None:
    [doubt] = doubts_of_answers(answers(0.95, 0.7, 0.55))
    assert "right on 55.6 % of the samples and the early exit 'exit 0' on 95.6 %" in doubt


def test_permuted_labels_are_recognised_with_the_numbers_that_fit() -> None:
    moved = np.array([3, 2, 1, 0, 4])
    network = answers(0.95)
    source = {"class_names": NAMES}
    wrong = of(network.outputs.astype(np.float64) + 2, moved[network.labels.astype(int)])
    named = ExitOutputs(**{**vars(wrong), "source": source, "names": wrong.names})
    [doubt] = doubts_of_answers(named)
    assert "it answers ant for dog, bee for cow, cow for bee, dog for ant. So the labels" in doubt
    assert 'by `classes: ["dog", "cow", "bee", "ant", "elk"]` under' in doubt


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (np.full((1, 40, 5), 0.2) + 2, "ended in a softmax"),
        (np.stack([np.zeros(40), np.linspace(0, 1, 40)], 1)[None] + 2, "ended in a sigmoid"),
    ],
    ids=["softmax", "sigmoid"],
)
def test_a_network_that_ends_in_probabilities_is_recognised(
    outputs: NDArray[np.float64], expected: str
) -> None:
    labels = np.arange(40) % outputs.shape[-1]
    assert expected in doubts_of_answers(of(outputs, labels))[0]


def test_a_regression_no_better_than_a_constant_is_named() -> None:
    labels = RNG.normal(5, 2, 50)
    good = of((labels + 0.3)[None, :, None], labels, task="regression")
    other_unit = of((labels * 100)[None, :, None], labels, task="regression")
    assert doubts_of_answers(good) == ()
    assert "always answering the median of the labels" in doubts_of_answers(other_unit)[0]


def test_few_samples_say_nothing() -> None:
    assert doubts_of_answers(answers(0.0, labels=LABELS[:19])) == ()


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (np.zeros(7, np.int64), 2, "all 7 training samples are of class ant"),
        (LABELS % 3, 1000, r"997 of the network's 1,000 classes .*3, 4, 5, 6, 7 and 992 more"),
        (
            LABELS[LABELS != 2],
            5,
            r"leave out 1 of the network's 5 classes .*\(cow\).*ant 18, bee 18",
        ),
    ],
    ids=["one class", "a network for other classes", "one class is missing"],
)
def test_classes_without_samples_are_named_with_the_counts(
    labels: NDArray[np.int64], classes: int, expected: str
) -> None:
    [doubt] = doubts_of_labels(labels, classes, NAMES if classes <= 5 else ())
    assert re.search(expected, doubt)


def test_labels_of_every_class_raise_no_doubt() -> None:
    assert doubts_of_labels(LABELS, 5) == ()
    assert class_counts(LABELS, NAMES, shown=2) == "ant 18, bee 18 and 3 more"
