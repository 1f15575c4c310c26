from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from offramp.data import as_samples
from offramp.errors import DataError, PlanError, ShapeError

INPUTS = np.random.default_rng(2).normal(size=(11, 3, 5))
LABELS = np.arange(11) % 4


def _pair() -> list[tuple[Tensor, int]]:
    return [(torch.from_numpy(x).float(), int(y)) for x, y in zip(INPUTS, LABELS, strict=True)]


def test_all_samples_come_in_turn_and_the_last_batch_is_short() -> None:
    found = list(as_samples(_pair()).batches(4))
    assert [len(batch.targets) for batch in found] == [4, 4, 3]
    assert np.concatenate([batch.rows for batch in found]).tolist() == list(range(11))
    values = torch.cat([batch.inputs[0] for batch in found])
    assert torch.equal(values, torch.from_numpy(INPUTS).float())


def test_samples_come_in_the_given_order() -> None:
    first, second = as_samples(_pair()).batches(2, order=[10, 3, 3])
    assert first.rows.tolist() == [10, 3]
    assert second.targets.tolist() == [3]
    assert torch.equal(second.inputs[0][0], torch.from_numpy(INPUTS[3]).float())


@pytest.mark.parametrize(
    "data",
    [
        (INPUTS, LABELS),
        (torch.from_numpy(INPUTS), torch.from_numpy(LABELS)),
        ((INPUTS,), LABELS.astype(np.uint8)),
        [INPUTS, LABELS],
        _pair(),
        [(x, np.int32(y)) for x, y in zip(INPUTS, LABELS, strict=True)],
        [((x,), torch.tensor(y)) for x, y in zip(INPUTS, LABELS, strict=True)],
        [[x, [y]] for x, y in zip(INPUTS, LABELS, strict=True)],
    ],
)
def test_every_accepted_form_gives_the_same_batches(data: Any) -> None:
    samples = as_samples(data)
    for batch, expected in zip(samples.batches(4), as_samples(_pair()).batches(4), strict=True):
        torch.testing.assert_close(batch.inputs, expected.inputs, rtol=0, atol=0)
        torch.testing.assert_close(batch.targets, expected.targets, rtol=0, atol=0)
    np.testing.assert_array_equal(samples.targets, LABELS.astype(np.int64), strict=True)
    assert samples.ids is None


def test_a_model_of_two_inputs_gets_both() -> None:
    other = np.arange(22).reshape(11, 2)
    for data in (
        ((INPUTS, other), LABELS),
        [*zip(zip(INPUTS, other, strict=True), LABELS, strict=True)],
    ):
        batch = next(as_samples(data).batches(3))
        assert [tuple(x.shape) for x in batch.inputs] == [(3, 3, 5), (3, 2)]
        assert [x.dtype for x in batch.inputs] == [torch.float32, torch.int64]


def test_float_labels_are_values_to_estimate() -> None:
    batch = next(as_samples((INPUTS, LABELS / 3)).batches(5))
    assert batch.targets.dtype == torch.float32
    assert as_samples([(x, 0.5) for x in INPUTS]).targets.dtype == np.float32


def test_read_only_and_backwards_arrays_are_read() -> None:
    frozen = INPUTS.copy()
    frozen.flags.writeable = False
    batch = next(as_samples([(frozen[0, ::-1], 0)]).batches(1))
    np.testing.assert_array_equal(batch.inputs[0][0], frozen[0, ::-1].astype(np.float32))
    assert next(as_samples((frozen, LABELS)).batches(2)).inputs[0].shape == (2, 3, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("as_pair", [True, False])
def test_a_value_that_is_not_finite_is_refused_with_its_sample(value: float, as_pair: bool) -> None:
    inputs = INPUTS.copy()
    inputs[7, 2, 4] = value
    data: Any = (inputs, LABELS) if as_pair else list(zip(inputs, LABELS, strict=True))
    with pytest.raises(DataError, match=r"sample 7 holds NaN or infinite"):
        list(as_samples(data).batches(4))


def test_large_finite_values_are_fine_though_their_sum_is_not() -> None:
    inputs = np.full((2, 3), 3e38)
    assert torch.isfinite(next(as_samples((inputs, np.arange(2))).batches(2)).inputs[0]).all()


def test_a_label_that_is_not_finite_is_refused() -> None:
    with pytest.raises(DataError, match="label 3 is nan"):
        as_samples((INPUTS, np.where(LABELS == 3, np.nan, LABELS)))


@pytest.mark.parametrize("label", ["cat", None])
def test_a_label_that_is_not_a_number_is_refused(label: object) -> None:
    with pytest.raises(DataError, match="which is not a number"):
        next(as_samples([(INPUTS[0], label)]).batches(1))


def test_a_label_of_several_numbers_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"label 0 has shape \(2,\)"):
        next(as_samples([(INPUTS[0], [2, 1])]).batches(1))


def test_labels_that_change_their_kind_are_refused() -> None:
    with pytest.raises(
        DataError, match="of sample 0 is a whole number but that of sample 2 is a float"
    ):
        list(as_samples([(INPUTS[0], 1), (INPUTS[0], 2), (INPUTS[0], 2.5)]).batches(2))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_inputs_of_differing_shape_are_refused_with_the_first_odd_one(batch_size: int) -> None:
    samples = [(np.zeros((3, 5 + (place == 3))), 0) for place in range(5)]
    with pytest.raises(ShapeError, match=r"sample 3 .*\(3, 6\)"):
        list(as_samples(samples).batches(batch_size))


def test_a_changing_number_of_inputs_is_refused() -> None:
    with pytest.raises(ShapeError, match="sample 1 has 2 inputs but sample 0 has 1"):
        list(as_samples([(INPUTS[0], 0), ((INPUTS[0], INPUTS[1]), 0)]).batches(2))


@pytest.mark.parametrize("item", [INPUTS[0], (INPUTS[0],), {"image": INPUTS[0], "label": 1}])
def test_an_item_that_is_not_a_pair_is_refused(item: object) -> None:
    with pytest.raises(DataError, match="not a pair"):
        next(as_samples([item]).batches(1))


@pytest.mark.parametrize("value", ["text", object(), np.array(["a"])])
def test_an_input_that_holds_no_numbers_is_refused(value: object) -> None:
    with pytest.raises(DataError, match=r"input of sample 0 is a .* holds no plain numbers"):
        next(as_samples([(value, 0)]).batches(1))


@pytest.mark.parametrize("data", [[], (INPUTS[:0], LABELS[:0])])
def test_an_empty_set_is_refused(data: Any) -> None:
    with pytest.raises(DataError, match="the data set is empty"):
        as_samples(data)


def test_an_empty_order_is_refused() -> None:
    with pytest.raises(DataError, match="there are no samples"):
        list(as_samples(_pair()).batches(4, order=[]))


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_without_samples_is_refused(batch_size: int) -> None:
    with pytest.raises(PlanError, match="at least 1 sample"):
        list(as_samples(_pair()).batches(batch_size))


@pytest.mark.parametrize("data", [iter(_pair()), 7, (INPUTS, LABELS, LABELS), (INPUTS, [0, 1])])
def test_an_object_that_is_not_a_data_set_is_refused(data: Any) -> None:
    with pytest.raises(DataError, match=r"a data set needs len\(\) and \[i\]"):
        as_samples(data)


def test_arrays_of_differing_length_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\[11, 10\] rows"):
        as_samples((INPUTS, LABELS[:10]))


def test_a_pair_whose_inputs_are_not_arrays_is_refused() -> None:
    with pytest.raises(DataError, match="must be arrays or tensors"):
        as_samples(("images", LABELS))


def test_the_content_key_follows_every_sample_label_and_their_order() -> None:
    inputs, labels = INPUTS.copy(), LABELS.copy()
    inputs[10, 2, 4] += 1e-3
    labels[5] = 0
    variants = [(INPUTS, LABELS), (inputs, LABELS), (INPUTS, labels), (INPUTS[::-1], LABELS[::-1])]
    assert len({as_samples(variant).content_key for variant in variants}) == 4
    assert as_samples((INPUTS, LABELS)).content_key == as_samples(_pair()).content_key


def test_raw_pixels_are_refused_with_what_to_do() -> None:
    data = np.zeros((2, 3, 4, 5), np.uint8), np.zeros(2, np.int64)
    with pytest.raises(DataError, match=r"uint8, probably raw pixels\. Scale and normalise"):
        as_samples(data).read([0, 1])


def test_a_data_loader_is_refused_with_the_data_set_to_give() -> None:
    loader: DataLoader[Any] = DataLoader(_pair())  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"got DataLoader\. Give its `\.dataset`\."):
        as_samples(loader)
