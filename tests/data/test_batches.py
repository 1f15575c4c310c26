from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from offramp.data.batches import (
    as_dataset,
    batches,
    check_labels,
    content_key,
    fingerprint,
    ids_of,
    labels_of,
)
from offramp.data.images import LabelledImages, array_digests
from offramp.errors import DataError, OfframpError, PlanError, ShapeError
from offramp.preprocess import ImagePreprocess

INPUTS = np.random.default_rng(2).normal(size=(11, 3, 5))
LABELS = np.arange(11) % 4


def _pair() -> list[tuple[Tensor, int]]:
    return [(torch.from_numpy(x).float(), int(y)) for x, y in zip(INPUTS, LABELS, strict=True)]


def test_all_samples_come_in_turn_and_the_last_batch_is_short() -> None:
    found = list(batches(_pair(), 4))
    assert [len(batch.targets) for batch in found] == [4, 4, 3]
    assert np.concatenate([batch.indices for batch in found]).tolist() == list(range(11))
    values = torch.cat([batch.inputs[0] for batch in found])
    assert torch.equal(values, torch.from_numpy(INPUTS).float())


def test_samples_come_in_the_order_asked_for() -> None:
    first, second = batches(_pair(), 2, order=[10, 3, 3])
    assert first.indices.tolist() == [10, 3]
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
    dataset = as_dataset(data)
    for batch, expected in zip(batches(dataset, 4), batches(_pair(), 4), strict=True):
        torch.testing.assert_close(batch.inputs, expected.inputs, rtol=0, atol=0)
        torch.testing.assert_close(batch.targets, expected.targets, rtol=0, atol=0)
    np.testing.assert_array_equal(labels_of(dataset), LABELS.astype(np.int64), strict=True)
    assert ids_of(dataset).tolist() == [str(place) for place in range(11)]


def test_a_model_of_two_inputs_gets_both() -> None:
    other = np.arange(22).reshape(11, 2)
    for data in (
        ((INPUTS, other), LABELS),
        [*zip(zip(INPUTS, other, strict=True), LABELS, strict=True)],
    ):
        batch = next(batches(as_dataset(data), 3))
        assert [tuple(x.shape) for x in batch.inputs] == [(3, 3, 5), (3, 2)]
        assert [x.dtype for x in batch.inputs] == [torch.float32, torch.int64]


def test_float_labels_are_values_to_estimate() -> None:
    batch = next(batches(as_dataset((INPUTS, LABELS / 3)), 5))
    assert batch.targets.dtype == torch.float32
    assert labels_of([(x, 0.5) for x in INPUTS]).dtype == np.float32


def test_read_only_and_backwards_arrays_are_read() -> None:
    frozen = INPUTS.copy()
    frozen.flags.writeable = False
    batch = next(batches([(frozen[0, ::-1], 0)], 1))
    np.testing.assert_array_equal(batch.inputs[0][0], frozen[0, ::-1].astype(np.float32))
    assert next(batches(as_dataset((frozen, LABELS)), 2)).inputs[0].shape == (2, 3, 5)


def test_images_come_as_a_batch_of_their_own() -> None:
    images = _images()
    batch = next(batches(images, 3, order=[4, 0, 6]))
    assert torch.equal(batch.inputs[0][2], images[6][0])
    assert batch.targets.tolist() == images.labels[[4, 0, 6]].tolist()
    assert ids_of(images)[6] == "photo 6"


def _images(size: int = 5) -> LabelledImages:
    pixels = np.random.default_rng(1).integers(0, 256, (7, 4, 6), np.uint8)
    ids = np.array([f"photo {place}" for place in range(7)])
    labels = np.arange(7, dtype=np.int64) % 3
    spec = ImagePreprocess(height=size, width=size)
    return LabelledImages(pixels, labels, ids, array_digests(pixels), spec)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("as_pair", [True, False])
def test_a_value_that_is_not_finite_is_refused_with_its_sample(value: float, as_pair: bool) -> None:
    inputs = INPUTS.copy()
    inputs[7, 2, 4] = value
    data: Any = (inputs, LABELS) if as_pair else list(zip(inputs, LABELS, strict=True))
    with pytest.raises(DataError, match=r"sample 7 \(id 7\) holds NaN or infinite"):
        list(batches(as_dataset(data), 4))


def test_large_finite_values_are_fine_though_their_sum_is_not() -> None:
    inputs = np.full((2, 3), 3e38)
    assert torch.isfinite(next(batches(as_dataset((inputs, np.arange(2))), 2)).inputs[0]).all()


def test_a_label_that_is_not_finite_is_refused() -> None:
    with pytest.raises(DataError, match="label 3 is nan"):
        as_dataset((INPUTS, np.where(LABELS == 3, np.nan, LABELS)))


@pytest.mark.parametrize("label", ["cat", None])
def test_a_label_that_is_no_number_is_refused(label: object) -> None:
    with pytest.raises(DataError, match="which is no number"):
        next(batches([(INPUTS[0], label)], 1))


def test_a_label_of_several_numbers_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"label 0 has shape \(2,\)"):
        next(batches([(INPUTS[0], [0, 1])], 1))


def test_labels_that_change_their_kind_are_refused() -> None:
    with pytest.raises(DataError, match=r"int64 at sample 0 but torch.float32 at sample 2"):
        list(batches([(INPUTS[0], 1), (INPUTS[0], 2), (INPUTS[0], 2.5)], 2))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_inputs_of_differing_shape_are_refused_with_the_first_odd_one(batch_size: int) -> None:
    samples = [(np.zeros((3, 5 + (place == 3))), 0) for place in range(5)]
    with pytest.raises(ShapeError, match=r"sample 3 .*\(3, 6\)"):
        list(batches(samples, batch_size))


def test_a_changing_number_of_inputs_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"have \[1, 2\] inputs"):
        list(batches([(INPUTS[0], 0), ((INPUTS[0], INPUTS[1]), 0)], 2))


@pytest.mark.parametrize("item", [INPUTS[0], (INPUTS[0],), {"image": INPUTS[0], "label": 1}])
def test_an_item_that_is_no_pair_is_refused(item: object) -> None:
    with pytest.raises(DataError, match="not a pair"):
        next(batches([item], 1))


@pytest.mark.parametrize("value", ["text", object(), np.array(["a"])])
def test_an_input_that_holds_no_numbers_is_refused(value: object) -> None:
    with pytest.raises(DataError, match=r"input of sample 0 is a .* holds no plain numbers"):
        next(batches([(value, 0)], 1))


@pytest.mark.parametrize("data", [[], (INPUTS[:0], LABELS[:0])])
def test_an_empty_set_is_refused(data: Any) -> None:
    with pytest.raises(DataError, match="the data set is empty"):
        as_dataset(data)


def test_an_empty_order_is_refused() -> None:
    with pytest.raises(DataError, match="there are no samples"):
        list(batches(_pair(), 4, order=[]))


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_without_samples_is_refused(batch_size: int) -> None:
    with pytest.raises(PlanError, match="at least 1 sample"):
        list(batches(_pair(), batch_size))


@pytest.mark.parametrize("data", [iter(_pair()), 7, (INPUTS, LABELS, LABELS), (INPUTS, [0, 1])])
def test_what_is_no_data_set_is_refused(data: Any) -> None:
    with pytest.raises(DataError, match=r"a data set needs len\(\) and \[i\]"):
        as_dataset(data)


def test_arrays_of_differing_length_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\[11, 10\] rows"):
        as_dataset((INPUTS, LABELS[:10]))


def test_a_pair_whose_inputs_are_no_arrays_is_refused() -> None:
    with pytest.raises(DataError, match="must be arrays or tensors"):
        as_dataset(("images", LABELS))


def test_a_fingerprint_follows_every_sample_and_label() -> None:
    inputs, labels = INPUTS.copy(), LABELS.copy()
    inputs[10, 2, 4] += 1e-3
    labels[5] = 0
    variants = [(INPUTS, LABELS), (inputs, LABELS), (INPUTS, labels), (INPUTS[::-1], LABELS[::-1])]
    assert len({fingerprint(as_dataset(variant)) for variant in variants}) == 4
    assert fingerprint(as_dataset((INPUTS, LABELS))) == fingerprint(_pair())


def test_images_know_their_own_fingerprint_and_key() -> None:
    images = _images()
    assert fingerprint(images) == images.fingerprint
    assert content_key(images) == images.content_key
    assert content_key(_images(6)) != images.content_key


def test_a_set_that_changes_from_reading_to_reading_is_refused() -> None:
    class Augmented(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            return torch.rand(3), 0

    with pytest.raises(DataError, match=r"Switch random augmentation off .* `augment=`"):
        content_key(Augmented([0, 0]))


def test_labels_must_fit_the_outputs() -> None:
    check_labels(LABELS, 4, ("a", "b", "c", "d"))
    with pytest.raises(DataError, match=r"from 0 to 3, .* classes are 0 to 2: 2 of 11"):
        check_labels(LABELS, 3)
    with pytest.raises(DataError, match="from -1 to 2"):
        check_labels(LABELS - 1, 4)


def test_class_names_must_be_as_many_as_the_outputs() -> None:
    with pytest.raises(DataError, match="3 classes but the model has 4 outputs"):
        check_labels(LABELS, 4, ("a", "b", "c"))


def test_values_are_no_classes() -> None:
    with pytest.raises(OfframpError, match="labels are float32, but classes are whole numbers"):
        check_labels(LABELS.astype(np.float32), 4)
