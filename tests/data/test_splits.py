"""Warnings of sources in training and in another split, and preprocessing that does not fit."""

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from offramp.data import ImageFolder, ImageTable, Samples, Splits, as_samples
from offramp.data.splits import SPLIT_NAMES
from offramp.doubts import DoubtWarning
from offramp.errors import DataError, OfframpWarning, ShapeError
from offramp.preprocess import ImagePreprocess
from offramp.run.data import RunData
from offramp.run.plan import Plan

CLASSES = ("finch", "owl")
LEAKY = (("a", "b", "c"), ("b", "d"), ("c", "e", "a"), ("f",))
APART = (("a", "b", "c"), ("d", "e"), ("f", "g", "h"), ("i",))
FOUND = "sources that are also in train: 1 of 2 in validation, 2 of 3 in calibration, such as 'a'."
Sources = Sequence[Sequence[str]]
Load = Callable[[Path, Sources], Splits]


def written(folder: Path, sources: Sources) -> list[str]:
    """Two pictures of each source, one of each class, as SPLIT/CLASS/SOURCE-NUMBER.png."""
    names: list[str] = []
    for split, each in zip(SPLIT_NAMES, sources, strict=True):
        for place, source in enumerate(each):
            for label, class_name in enumerate(CLASSES):
                name = f"{split}/{class_name}/{source}-{place}.png"
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                seed = [len(names), label]
                pixels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
                Image.fromarray(pixels).save(folder / name)
                names.append(name)
    return names


def folder_of(place: Path, sources: Sources) -> Splits:
    written(place, sources)
    return ImageFolder(root=place, image_size=4, source=r"(\w)-\d").load()


def table_of(place: Path, sources: Sources) -> Splits:
    rows = [name.split("/") for name in written(place, sources)]
    lines = [f"{'/'.join(row)},{row[1]},{row[0]},{row[2][0]}" for row in rows]
    (place / "birds.csv").write_text("\n".join(["path,label,split,recorder", *lines]))
    return ImageTable(file=place / "birds.csv", image_size=4, source="recorder").load()


def samples_of(clusters: Sequence[str] | None, seed: int) -> Samples:
    count = 3 if clusters is None else len(clusters)
    images = np.random.default_rng(seed).normal(size=(count, 3, 4, 4))
    given = as_samples((images, np.arange(count) % 2))
    return Samples.of(given.source, clusters=clusters)


def splits_of(sources: Sequence[Sequence[str] | None]) -> Splits:
    parts = {
        name: samples_of(each, seed)
        for seed, (name, each) in enumerate(zip(SPLIT_NAMES, sources, strict=True))
    }
    return Splits.of(parts, target_names=CLASSES)


def plan() -> Plan:
    settings = {"backbone": {"name": "timm:test_resnet"}, "data": {"kind": "python"}}
    return Plan.model_validate(settings | {"branches": {"layer1": [{"kind": "conv"}]}})


def given(_: Path, sources: Sources) -> Splits:
    return RunData(plan(), splits_of(sources)).splits


CODE = """
import numpy as np
from offramp.data.splits import SPLIT_NAMES

class Recorded(list):
    pass

def data():
    found = {}
    for seed, (name, clusters) in enumerate(zip(SPLIT_NAMES, SOURCES)):
        images = np.random.default_rng(seed).normal(size=(len(clusters), 3, 4, 4))
        found[name] = Recorded((image, k % 2) for k, image in enumerate(images))
        found[name].clusters = list(clusters)
    return found
"""


def own_code(place: Path, sources: Sources) -> Splits:
    (place / "mine.py").write_text(CODE.replace("SOURCES", repr(sources)))
    return RunData(plan(), data_file=f"{place / 'mine.py'}:data").splits


KINDS = pytest.mark.parametrize("load", [folder_of, table_of, given, own_code])


@KINDS
def test_shared_sources_are_counted_in_one_warning_that_the_splits_keep(
    tmp_path: Path, load: Load
) -> None:
    with pytest.warns(OfframpWarning) as warned:
        splits = load(tmp_path, LEAKY)
    assert [each.category for each in warned] == [DoubtWarning]
    text = str(warned[0].message)
    assert text.startswith(FOUND)
    assert "too good for samples of new sources. Put all samples of a source into one" in text
    assert splits.doubts == (text,)


@KINDS
def test_sources_that_are_apart_are_no_reason_to_warn(tmp_path: Path, load: Load) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(tmp_path, APART).doubts == ()


@pytest.mark.parametrize("known", [(), (1, 2, 3), (0,)], ids=["nowhere", "not in train", "train"])
def test_nothing_is_said_where_sources_are_not_known(known: tuple[int, ...]) -> None:
    sources = [each if place in known else None for place, each in enumerate(LEAKY)]
    assert splits_of(sources).doubting_sources().doubts == ()


def test_pictures_drawn_from_a_folder_that_shares_its_sources_are_counted_where_they_are_used(
    tmp_path: Path,
) -> None:
    written(tmp_path, (tuple("abcdefgh"), tuple("abcdefgh"), (), ()))
    with pytest.warns(DoubtWarning, match="in validation, 4 of 4 in calibration, 2 of 2 in test"):
        ImageFolder(root=tmp_path, image_size=4, source=r"(\w)-\d").load()


@pytest.mark.filterwarnings("ignore:sources that are also in train")
def test_splits_that_hold_the_warning_do_not_get_it_twice() -> None:
    once = splits_of(LEAKY).doubting_sources(remark="It is meant to be so.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = RunData(plan(), once).splits
    assert again.doubts == once.doubts == (f"{FOUND} It is meant to be so.",)


@pytest.mark.filterwarnings("ignore:sources that are also in train")
def test_numbers_and_texts_name_the_same_source() -> None:
    train, other = samples_of(("1", "2"), 0), samples_of(("2",), 1)
    numbered = Samples.of(other.source, clusters=[2])
    splits = Splits.of({"train": train, "validation": other, "test": numbered}, target_names=())
    [doubt] = splits.doubting_sources().doubts
    assert doubt.startswith("sources that are also in train: 1 of 1 in validation, 1 of 1 in test")


def prepared(shapes: Sequence[tuple[int, ...]], *sizes: tuple[int, int]) -> Splits:
    """Splits whose samples have these shapes, and a preprocessing to each (height, width)."""
    arrays = tuple(np.zeros((4, *shape), np.float32) for shape in shapes)
    parts = {name: as_samples((arrays, np.arange(4) % 2)) for name in SPLIT_NAMES}
    inputs = tuple(ImagePreprocess(height=height, width=width) for height, width in sizes)
    return Splits.of(parts, target_names=CLASSES, inputs=inputs)


@pytest.mark.parametrize(
    "sizes", [((5, 6),), ((7, 5), (5, 7)), ((6, 5),)], ids=["swapped", "two", "wider"]
)
def test_a_preprocessing_that_did_not_make_the_samples_is_refused(
    sizes: Sequence[tuple[int, int]],
) -> None:
    plan = Plan.model_validate(
        {
            "backbone": {"name": "python"},
            "data": {"kind": "python"},
            "branches": {"x": [{"kind": "conv"}]},
        }
    )
    with pytest.raises(ShapeError) as caught:
        _ = RunData(plan, prepared([(3, 7, 5)], *sizes)).splits
    assert str(caught.value).startswith("the train samples have inputs of shape (3, 7, 5), and the")
    assert f"makes {' and '.join(f'(3, {h}, {w})' for h, w in sizes)}. New" in str(caught.value)


def test_a_preprocessing_that_made_the_samples_or_none_is_accepted() -> None:
    prepared([(3, 7, 5)], (7, 5)).check_inputs()
    prepared([(3, 7, 5), (3, 4, 6)], (7, 5), (4, 6)).check_inputs()
    prepared([(2, 9)]).check_inputs()


def test_splits_are_shown_by_their_sizes_and_classes() -> None:
    parts = {
        name: as_samples((np.zeros((count, 3)), np.arange(count) % 2))
        for name, count in zip(("train", "validation", "test"), (1_200, 4, 3), strict=True)
    }
    named = Splits.of(parts, target_names=CLASSES)
    assert repr(named) == (
        "Splits(1,200 train, 4 validation, 3 test; classification of finch, owl)"
    )
    many = Splits.of(parts, target_names=tuple("abcdefg"))
    assert repr(many).endswith("; classification of a, b, c, d, e, ...)")
    assert str(Splits.of(parts, target_names=())) == "Splits(1,200 train, 4 validation, 3 test)"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"split": {}, "source": r"(\w)-\d"},
            r"validation, test would be empty: .* has 6 samples of 3 sources that can be read, and "
            r"samples of one source stay together. Add .* other sources, .* shares of `split`\.",
        ),
        ({"split": {"validation": 0.01}}, "has 6 samples that can be read. Add samples, or change"),
    ],
    ids=["sources", "samples"],
)
def test_splits_drawn_from_too_few_sources_are_refused_with_their_number(
    tmp_path: Path, settings: dict[str, object], text: str
) -> None:
    written(tmp_path, (("a", "b", "c"), (), (), ()))
    with pytest.raises(DataError, match=text):
        ImageFolder.model_validate({"root": tmp_path / "train", "image_size": 4, **settings}).load()


def test_splits_drawn_from_a_folder_say_how_many_sources_it_has(tmp_path: Path) -> None:
    written(tmp_path, (("a", "b", "c"), ("d", "e"), (), ()))
    text = r"has 4 samples of 2 sources in validation that can .* change the shares of `held_out`\."
    with pytest.raises(DataError, match=text):
        ImageFolder(root=tmp_path, image_size=4, source=r"(\w)-\d").load()


def test_a_split_that_has_a_folder_is_not_said_to_be_drawn(tmp_path: Path) -> None:
    for name in written(tmp_path, APART):
        if name.startswith("test"):
            (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"test would be empty: .* be read\. Add samples\.$"):
        ImageFolder(root=tmp_path, image_size=4, source=r"(\w)-\d", on_corrupt="skip").load()


def test_classes_that_drawn_splits_lack_are_named_in_one_warning(tmp_path: Path) -> None:
    for number in range(4 * 5):  # a source of ten pictures of one class each
        for place in range(10):
            file = tmp_path / f"{'abcd'[number % 4]}/{number:02}-{place}.png"
            file.parent.mkdir(exist_ok=True)
            pixels = np.random.default_rng([number, place]).integers(0, 256, (5, 7, 3), np.uint8)
            Image.fromarray(pixels).save(file)
    drawn = {"validation": 0.05, "calibration": 0.05, "test": 0.3}
    settings = {"root": tmp_path, "image_size": 4, "source": r"(\d+)-\d", "split": drawn}
    with pytest.warns(DoubtWarning, match="classes of train that have no") as warned:
        splits = ImageFolder.model_validate(settings).load()
    assert splits.doubts == (str(warned[0].message),)
    assert len(warned) == 1
    assert re.search(r"'\w', '\w', '\w' in validation \(1 source\)", splits.doubts[0])
    settings.pop("source")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ImageFolder.model_validate(settings).load().doubts == ()
