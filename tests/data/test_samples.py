from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from offramp.data import Batch, as_samples
from offramp.data.item import PROBED
from offramp.errors import DataError, ShapeError

RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(11, 3, 5)).astype(np.float32)
LABELS = np.arange(11) % 4


class Tracks(list[Any]):
    """A user's data set whose samples have names and belong to tracks."""

    ids = np.array([f"frame {place}" for place in range(11)])
    groups = tuple(f"site {place % 2}" for place in range(11))
    clusters = np.arange(11) // 3


def test_a_users_names_groups_and_clusters_come_along() -> None:
    samples = as_samples(Tracks(zip(INPUTS, LABELS, strict=True)))
    chosen = samples.subset([7, 2])
    assert [list(map(str, names)) for names in (chosen.ids, chosen.groups, chosen.clusters)] == [  # type: ignore[arg-type]
        ["frame 7", "frame 2"],
        ["site 1", "site 0"],
        ["2", "0"],
    ]
    assert samples.content_key != as_samples((INPUTS, LABELS)).content_key


def test_names_that_are_not_one_per_sample_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"ids have shape \(11,\) for 10 samples"):
        as_samples(Tracks(zip(INPUTS[:10], LABELS[:10], strict=True)))


def test_probabilities_are_soft_targets() -> None:
    soft = RNG.dirichlet(np.ones(4), size=11)
    for data in ((INPUTS, soft), list(zip(INPUTS, soft, strict=True))):
        samples = as_samples(data)
        assert samples.targets.shape == (11, 4)
        assert samples.read([3, 4]).targets.dtype == torch.float32
        np.testing.assert_array_equal(samples[5][1], soft[5].astype(np.float32))


def test_an_input_may_be_absent_but_not_for_a_model_that_needs_it() -> None:
    sound = RNG.normal(size=(11, 2)).astype(np.float32)
    data = [((INPUTS[p], None if p in (4, 5) else sound[p]), 0) for p in range(11)]
    samples = as_samples(data)
    mixed, lacking = samples.read([3, 4]), samples.read([4, 5])
    assert mixed.present is not None
    assert mixed.present.tolist() == [[True, True], [True, False]]
    np.testing.assert_array_equal(mixed.values[1], [sound[3], [0, 0]])
    assert lacking.values[1] is None
    assert samples[4][0][1] is None
    assert samples.read([0, 10]).present is None
    assert samples.present is not None
    assert np.flatnonzero(~samples.present[:, 1]).tolist() == [4, 5]
    assert samples.subset([5, 0]).present.tolist() == [[True, False], [True, True]]  # type: ignore[union-attr]
    assert samples.subset([0, 1]).present is None
    with pytest.raises(DataError, match=r"sample 4 lacks input 1 .* needs all of its inputs"):
        _ = mixed.inputs


def test_a_sample_without_any_input_is_refused() -> None:
    with pytest.raises(DataError, match="sample 0 has no input at all"):
        as_samples([(None, 0)]).read([0])


class Counting(list[Any]):
    """A user's data set that counts how often each sample is read."""

    def __init__(self, samples: Any) -> None:
        super().__init__(samples)
        self.read = Counter[int]()

    def __getitem__(self, index: Any) -> Any:
        self.read[index] += 1
        return super().__getitem__(index)


def test_labels_shapes_and_content_key_come_with_one_reading() -> None:
    data = Counting(zip(INPUTS, LABELS, strict=True))
    samples = as_samples(data)
    samples.read([3, 1])
    assert samples.input_shapes == ((3, 5),)
    np.testing.assert_array_equal(samples.targets, LABELS)
    assert len(samples.content_key) == 64
    assert data.read == dict.fromkeys(range(11), 2)  # one for the probe, which takes all of so few


def test_only_some_samples_of_a_large_data_set_are_probed() -> None:
    data = Counting([(torch.zeros(1), 0)] * 3000)
    samples = as_samples(data)
    samples.read([5])
    probed = [row for row, times in data.read.items() if times == 2]
    assert len(probed) == PROBED
    assert max(np.diff(sorted(probed))) < 2 * 3000 / PROBED
    assert len(samples.targets) == 3000
    assert data.read.total() == 3000 + PROBED


@pytest.mark.parametrize("size", [1, 11, 500])
def test_a_data_set_with_random_inputs_or_labels_is_refused(size: int) -> None:
    draw = np.random.default_rng(0)

    class RandomInputs(Counting):
        def __getitem__(self, index: Any) -> Any:
            return draw.random(3), 0

    class RandomLabels(Counting):
        def __getitem__(self, index: Any) -> Any:
            return np.zeros(3), draw.integers(1000)

    for data in (RandomInputs(range(size)), RandomLabels(range(size))):
        samples = as_samples(data)
        for _ in range(2):  # and again when it is asked again
            with pytest.raises(DataError, match=r"changes its samples at random.* `augment=`"):
                samples.read([0])


def test_a_sample_that_changes_between_two_readings_is_refused() -> None:
    class Changing(Counting):
        def __getitem__(self, index: Any) -> Any:
            super().__getitem__(index)
            return torch.full((3,), index == 7 and self.read[7] > 2), 0

    samples = as_samples(Changing(range(11)))
    assert len(samples.targets) == 11
    samples.read(range(7))
    with pytest.raises(DataError, match=r"sample 7 has changed .* `augment=`"):
        samples.read([8, 7])


@pytest.mark.parametrize("as_pair", [True, False])
def test_an_array_overwritten_between_two_readings_is_refused(as_pair: bool) -> None:
    inputs = INPUTS.copy()
    data: Any = (inputs, LABELS) if as_pair else list(zip(inputs, LABELS, strict=True))
    samples = as_samples(data)
    assert len(samples.content_key) == 64
    inputs[9, 0, 0] += 1
    with pytest.raises(DataError, match="sample 9 has changed since"):
        samples.read(range(11))


def test_a_sample_keeps_the_share_of_each_class_wherever_it_lies() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 11])
    samples = as_samples((np.arange(101.0), labels))
    for order in (np.arange(101), np.random.default_rng(0).permutation(101)):
        for seed in range(5):
            drawn = samples.subset(order).sample(21, seed)
            counts = np.bincount(drawn.targets)
            np.testing.assert_allclose(counts, 21 * np.array([60, 30, 11]) / 101, atol=1)
            assert len(set(drawn.rows.tolist())) == 21


def test_a_sample_spreads_over_the_range_of_values() -> None:
    values = np.random.default_rng(1).exponential(size=300)
    samples = as_samples((np.zeros((300, 2)), values))
    drawn = np.sort(samples.sample(30, 4).targets)
    ranks = np.searchsorted(np.sort(values.astype(np.float32)), drawn)
    assert np.diff(ranks).tolist() == [10] * 29


def test_a_sample_is_seeded_and_in_order_unless_shuffled() -> None:
    samples = as_samples((np.arange(50.0), np.arange(50) % 3))
    rows = samples.sample(20, 7).rows
    assert rows.tolist() == sorted(rows.tolist()) == samples.sample(20, 7).rows.tolist()
    assert rows.tolist() != samples.sample(20, 8).rows.tolist()
    shuffled = samples.sample(20, 7, shuffled=True).rows
    assert sorted(shuffled.tolist()) == rows.tolist() != shuffled.tolist()
    assert samples.sample(99, 7).rows.tolist() == list(range(50))


def test_a_batch_counts_its_samples() -> None:
    assert len(Batch((torch.zeros(4, 3),), torch.zeros(4), np.arange(4))) == 4


def test_names_may_be_python_objects_but_not_fractions() -> None:
    data = Tracks(zip(INPUTS, LABELS, strict=True))
    data.groups = np.array(["north", "south"] * 5 + ["north"], dtype=object)  # type: ignore[assignment]
    groups = as_samples(data).groups
    assert groups is not None
    assert groups.dtype.kind == "U"
    data.clusters = np.arange(11) / 2  # type: ignore[assignment]
    with pytest.raises(DataError, match="clusters are float64, but must be text or whole numbers"):
        as_samples(data)


def test_shapes_of_an_unread_data_set_take_one_sample() -> None:
    data = Counting(zip(INPUTS, LABELS, strict=True))
    assert as_samples(data).input_shapes == ((3, 5),)
    assert data.read == {0: 1}
