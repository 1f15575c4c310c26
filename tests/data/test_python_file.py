from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from offramp.data import PythonData, Splits
from offramp.data.python_file import splits_from
from offramp.data.splits import SPLIT_NAMES
from offramp.errors import DataError, OfframpError, OfframpWarning, PlanError, ShapeError
from offramp.preprocess import ImagePreprocess

FILE = """
import numpy as np

from offramp.data import Splits, as_samples
from offramp.data.images import labelled_pictures
from offramp.preprocess import ImagePreprocess

class Listed(list):
    ids = ["a", "b"]

class Broken:
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise self.error

def pair(count=3, side=5, channels=2):
    rng = np.random.default_rng(count)
    return rng.normal(size=(count, channels, side, 7)), rng.integers(0, 4, count)

def parts(**changes):
    return {
        "train": pair(6),
        "validation": list(zip(*pair(3))),
        "calibration": as_samples(pair(4)),
        "test": Listed(zip(*pair(2))),
    } | changes

def pictures(*greys):
    pixels = [np.full((count, 9, 9), count, np.uint8) for count in (3, 4, 5, 6)]
    ways = [ImagePreprocess(height=5, width=8, mean=(grey,) * 3) for grey in greys]
    return {
        name: labelled_pictures(each, np.arange(len(each)), way)
        for name, each, way in zip(parts(), pixels, ways)
    }

def make():
    return RETURNED
"""


@pytest.fixture
def returning(tmp_path: Path) -> Callable[[str], str]:
    """Gives the place of a function that returns the value of an expression."""

    def place(expression: str) -> str:
        (tmp_path / "mine.py").write_text(FILE.replace("RETURNED", expression))
        return f"{tmp_path / 'mine.py'}:make"

    return place


Returning = Callable[[str], str]


def test_a_dict_of_any_kinds_of_data_sets_becomes_splits(returning: Returning) -> None:
    splits = splits_from(returning("parts(target_names=['a', 'b', 'c', 'd'])"), "classification")
    assert {name: len(each) for name, each in splits.named().items()} == dict(
        zip(SPLIT_NAMES, (6, 3, 4, 2), strict=True)
    )
    assert splits.target_names == ("a", "b", "c", "d")
    assert (splits.origin, splits.inputs) == ("mine.py:make", ())
    np.testing.assert_array_equal(splits.test.ids, ["a", "b"])


def test_target_names_are_optional_and_the_task_is_that_of_the_plan(returning: Returning) -> None:
    splits = splits_from(returning("parts()"), "regression")
    assert (splits.target_names, splits.task) == ((), "regression")


def test_splits_may_hold_the_same_data_sets_as_a_dict_and_keep_their_facts(
    returning: Returning,
) -> None:
    given = "Splits.of(parts(), target_names=['metres'], task='regression', skipped=('x',))"
    splits = splits_from(returning(given), "classification")
    assert isinstance(splits, Splits)
    assert (splits.target_names, splits.task, splits.skipped) == (("metres",), "regression", ("x",))
    assert splits.train.input_shapes == ((2, 5, 7),)


@pytest.mark.parametrize(("greys", "same"), [((0.5,) * 4, True), ((0.5, 0.5, 0.5, 0.4), False)])
def test_pictures_carry_their_preprocessing_if_all_are_prepared_in_the_same_way(
    returning: Returning, greys: tuple[float, ...], same: bool
) -> None:
    inputs = splits_from(returning(f"pictures{greys}"), "classification").inputs
    assert inputs == (ImagePreprocess(height=5, width=8, mean=(0.5,) * 3),) * same


@pytest.mark.parametrize(
    ("expression", "error", "expected"),
    [
        ("None", DataError, "returned a NoneType; it must return a dict of the data sets train"),
        ("tuple(parts().values())", DataError, "returned a tuple"),
        ("{}", DataError, "lacks train, validation, calibration, test"),
        ("{'train': pair(), 'test': pair()}", DataError, "lacks validation, calibration"),
        ("parts(val=pair())", DataError, "has the unknown key val"),
        ("parts(**{'test': None})", DataError, "test of .*mine.py:make: .*got NoneType"),
        ("parts(validation=[3, 4])", DataError, "validation of .*: sample 0 is a int"),
        ("parts(train=[])", DataError, "train of .*: the data set is empty"),
        ("parts(test=pair(side=6))", ShapeError, r"train \[\(2, 5, 7\)\].*test \[\(2, 6, 7\)\]"),
        ("parts(target_names='abcd')", DataError, "target_names .* are 'abcd'"),
        ("parts(target_names=[0, 1])", DataError, "target_names"),
        ("missing", PlanError, "failed with NameError"),
        ("exit('no data')", PlanError, "failed with SystemExit: no data"),
    ],
)
def test_anything_but_four_splits_is_refused_with_the_place(
    returning: Returning, expression: str, error: type[OfframpError], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        splits_from(returning(expression), "classification")


def test_python_data_cannot_be_loaded_without_its_function() -> None:
    with pytest.raises(PlanError, match="--data path/to/file"):
        PythonData().load()


@pytest.mark.parametrize("error", ["KeyError('label.txt')", "FileNotFoundError('a.png')"])
def test_an_error_of_a_data_sets_own_code_is_named_with_its_split(
    returning: Returning, error: str
) -> None:
    place = returning(f"parts(calibration=Broken({error}))")
    with pytest.raises(DataError, match=f"calibration of .* failed with {error[:5]}"):
        splits_from(place, "classification")


def test_samples_in_two_splits_are_warned_of_with_their_number(returning: Returning) -> None:
    with pytest.warns(
        OfframpWarning,
        match=r"mine\.py:make gives samples that are in more than one split .3 of them",
    ):
        splits_from(returning("parts(test=pair(3))"), "classification")
