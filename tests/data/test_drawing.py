"""Drawing splits: balanced over classes, and nothing that belongs together parted."""

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from offramp.data.drawing import HeldOut, RandomSplit, complete, drawn, matching, warn_of_training
from offramp.errors import DataError, OfframpWarning


def _digests(num: int) -> NDArray[np.str_]:
    return np.array([hashlib.sha256(str(row).encode()).hexdigest() for row in range(num)])


def _shares() -> dict[str, float]:
    return RandomSplit().shares


def test_each_class_is_spread_in_proportion() -> None:
    labels = np.repeat([0, 1, 2], [200, 50, 20])
    splits = drawn(_shares(), 3, _digests(270), labels)
    for number, size in enumerate([200, 50, 20]):
        for name, share in _shares().items():
            count = np.sum((splits == name) & (labels == number))
            assert abs(count - share * size) <= 1, (name, number)


def test_the_draw_follows_content_and_seed_and_not_the_order() -> None:
    digests, labels = _digests(60), np.arange(60) % 3
    first = drawn(_shares(), 0, digests, labels)
    order = np.random.default_rng(0).permutation(60)
    assert np.array_equal(drawn(_shares(), 0, digests[order], labels[order]), first[order])
    assert not np.array_equal(drawn(_shares(), 1, digests, labels), first)


def test_copies_are_drawn_into_one_split() -> None:
    digests = np.array([f"{k % 30:03}" for k in range(90)])
    splits = drawn(_shares(), 4, digests, np.arange(90) % 30 % 2)
    for content in {*digests.tolist()}:
        assert len({*splits[digests == content].tolist()}) == 1
    assert {*splits.tolist()} == {*_shares()}


def test_samples_of_one_source_are_drawn_into_one_split_though_their_classes_differ() -> None:
    sources = np.array([f"film{k // 6}" for k in range(240)])
    splits = drawn(_shares(), 0, _digests(240), np.arange(240) % 3, sources)
    for source in {*sources.tolist()}:
        assert len({*splits[sources == source].tolist()}) == 1
    assert {*splits.tolist()} == {*_shares()}


def test_splits_that_are_there_stay_and_the_others_come_from_validation() -> None:
    given = np.repeat(["train", "validation"], [40, 80])
    splits = complete(given, {"train", "validation"}, HeldOut(), _digests(120), np.zeros(120, int))
    assert np.array_equal(splits[:40], given[:40])
    counts = {name: int(np.sum(splits == name)) for name in ("validation", "calibration", "test")}
    assert counts == {"validation": 20, "calibration": 40, "test": 20}


def test_all_four_splits_stay_as_they_are() -> None:
    given = np.array(["train", "validation", "calibration", "test"])
    splits = complete(given, {*given.tolist()}, HeldOut(), _digests(4), np.zeros(4, int))
    assert np.array_equal(splits, given)


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ValueError, match=r"add up to 1\.1, which leaves nothing"):
        RandomSplit(validation=0.5, calibration=0.3, test=0.3)


def test_copies_of_training_samples_in_calibration_are_warned_of() -> None:
    splits = np.array(["train", "calibration", "test", "test"])
    digests = np.array(["a", "a", "b", "c"])
    with pytest.warns(OfframpWarning, match="1 of 1 calibration samples were used to train"):
        warn_of_training(splits, digests, splits == "train")


def test_a_pattern_names_a_folder_or_paths() -> None:
    ids = np.array(["train/a/1.png", "val/a/1.png", "val/b/2.png"])
    assert matching(ids, ["val"]).tolist() == [False, True, True]
    assert matching(ids, ["val/a/", "train/*"]).tolist() == [True, True, False]
    with pytest.raises(DataError, match="'tain', but no sample matches it"):
        matching(ids, ["tain"])
