import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from offramp.data import DataSpec, ImageFolder, ImageTable, Splits
from offramp.data.splits import SPLIT_NAMES
from offramp.errors import DataError, OfframpWarning

CLASSES = ("ant", "bee", "cow")
Row = dict[str, str]


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Rows on 60 pictures: 20 of each class, 8 of them in val; ten in a row are of one film."""
    made = []
    for place, name in enumerate(CLASSES):
        for index in range(20):
            split = "val" if index < 8 else "train"
            path = tmp_path / "photos" / split / name / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw = np.random.default_rng(100 * place + index)
            Image.fromarray(draw.integers(0, 256, (7, 9, 3), np.uint8)).save(path)
            made.append(
                {
                    "path": str(path.relative_to(tmp_path)),
                    "label": name,
                    "split": split,
                    "site": "north" if index % 2 else "south",
                    "film": f"{name}{index // 10}",
                    "weight": str(place + index / 64),
                }
            )
    return made


def _spec(folder: Path, rows: Sequence[Row], **settings: object) -> ImageTable:
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    given = {"file": folder / "labels.csv", "image_size": 8, **settings}
    return ImageTable.model_validate(given)


def _load(folder: Path, rows: Sequence[Row], **settings: object) -> Splits:
    return _spec(folder, rows, **settings).load()


def _without(rows: Sequence[Row], column: str) -> list[Row]:
    return [{name: cell for name, cell in row.items() if name != column} for row in rows]


def _numbered(rows: Sequence[Row], start: int = 0) -> list[Row]:
    return [{**row, "label": str(CLASSES.index(row["label"]) + start)} for row in rows]


def _all(splits: Splits, what: str) -> list[Any]:
    return [one for images in splits.named().values() for one in getattr(images, what).tolist()]


def test_a_table_is_divided_as_a_folder_of_the_same_pictures(
    tmp_path: Path, rows: list[Row]
) -> None:
    theirs = ImageFolder(root=tmp_path / "photos", image_size=8).load()
    for given in (rows, rows[::-1]):
        ours = _load(tmp_path, given, root=tmp_path)
        assert ours.target_names == theirs.target_names
        for name, images in ours.named().items():
            assert {*images.digests} == {*theirs.named()[name].digests}
            value, label = images[0]
            assert value.shape == (3, 8, 8)
            assert images.ids is not None
            assert images.ids[0].split("/")[2] == CLASSES[label]


def test_shares_draw_all_splits_where_no_column_names_them(tmp_path: Path, rows: list[Row]) -> None:
    splits = _load(tmp_path, _without(rows, "split"), split={"test": 0.25, "seed": 3})
    sizes = {name: len(images) for name, images in splits.named().items()}
    assert sizes == {"train": 27, "validation": 6, "calibration": 12, "test": 15}


@pytest.mark.filterwarnings("ignore:sources that are also in train")
@pytest.mark.filterwarnings("ignore:classes of train that have no sample")
def test_groups_and_sources_come_from_their_columns(tmp_path: Path, rows: list[Row]) -> None:
    splits = _load(tmp_path, rows, group="site", source="film")
    for images in splits.named().values():
        assert images.groups is not None
        assert images.clusters is not None
        assert images.ids is not None
        known = {row["path"]: (row["site"], row["film"]) for row in rows}
        found = zip(images.groups.tolist(), images.clusters.tolist(), strict=True)
        assert [known[one] for one in images.ids] == list(found)
    held = [{*images.clusters} for name, images in splits.named().items() if name != "train"]  # type: ignore[misc]
    assert sum(map(len, held)) == len(set.union(*held))  # no film is in two of them


def test_other_names_of_columns_and_splits_are_settings(tmp_path: Path, rows: list[Row]) -> None:
    renamed = [
        {"image": row["path"], "breed": row["label"], "fold": row["split"].upper()} for row in rows
    ]
    splits = _load(tmp_path, renamed, path="image", label="breed", split="fold")
    assert len(splits.train) == 36


def test_absolute_paths_and_paths_below_another_root_are_read(
    tmp_path: Path, rows: list[Row]
) -> None:
    absolute = [{**row, "path": str(tmp_path / row["path"])} for row in rows]
    below = [{**row, "path": row["path"].removeprefix("photos/")} for row in rows]
    (tmp_path / "tables").mkdir()
    expected = _load(tmp_path, rows).train
    for given in (
        _load(tmp_path / "tables", absolute, root=tmp_path),
        _load(tmp_path / "tables", below, root=tmp_path / "photos"),
    ):
        assert given.train.digests.tolist() == expected.digests.tolist()
    again = _load(tmp_path, absolute).train
    assert again.ids is not None
    assert again.ids.tolist() == expected.ids.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("classes", [None, ["x", "y", "z"]])
@pytest.mark.parametrize("ending", ["", ".0"])
def test_whole_numbers_are_class_numbers(
    tmp_path: Path, rows: list[Row], classes: list[str] | None, ending: str
) -> None:
    numbered = [{**row, "label": row["label"] + ending} for row in _numbered(rows)]
    splits = _load(tmp_path, numbered, classes=classes)
    assert splits.target_names == tuple(classes or ())
    assert _all(splits, "targets") == _all(_load(tmp_path, rows), "targets")


def test_class_numbers_keep_their_value_where_some_are_missing(
    tmp_path: Path, rows: list[Row]
) -> None:
    numbers = {*_all(_load(tmp_path, _numbered(rows, start=9)), "targets")}
    assert numbers == {9, 10, 11}


def test_listed_classes_give_the_order_even_of_names_that_are_numbers(
    tmp_path: Path, rows: list[Row]
) -> None:
    splits = _load(tmp_path, _numbered(rows, start=1), classes=["7", "3", "2", "1"])
    assert splits.target_names == ("7", "3", "2", "1")
    assert {*_all(splits, "targets")} == {1, 2, 3}


def test_values_are_estimated_and_drawn_evenly(tmp_path: Path, rows: list[Row]) -> None:
    splits = _load(tmp_path, _without(rows, "label"), value="weight", split={})
    assert (splits.task, splits.target_names) == ("regression", ("weight",))
    assert sorted(_all(splits, "targets")) == [float(row["weight"]) for row in rows]
    for images in splits.named().values():
        assert images.targets.dtype == np.float32
        assert np.bincount(images.targets.astype(int)).min() >= len(images) // 3 - 1


def test_every_broken_row_is_listed_with_its_line(tmp_path: Path, rows: list[Row]) -> None:
    rows[0]["path"] = "photos/gone.png"
    rows[1]["label"] = " "
    rows[2]["split"] = "trian"
    rows[3]["path"] = "./" + rows[4]["path"]
    rows[5].update(label="dog", film="")
    with pytest.raises(DataError) as caught:
        _load(tmp_path, rows, source="film", classes=CLASSES)
    listed = f"""5 of 60 rows of {tmp_path / "labels.csv"} cannot be used:
  line 2: there is no file photos/gone.png
  line 3: the label is empty
  line 4: no split is called 'trian'
  line 6: photos/val/ant/04.png is on line 5 already
  line 7: the source is empty; 'dog' is not in `classes`
Correct or remove these rows. Paths start from {tmp_path} (see `root`).
Rows without their file are left out with `on_corrupt: skip`."""
    assert str(caught.value) == listed


@pytest.mark.parametrize("label", ["-1", "unknown", "123456", "1.5"])
def test_a_name_among_class_numbers_is_refused(tmp_path: Path, rows: list[Row], label: str) -> None:
    numbered = _numbered(rows)
    numbered[7]["label"] = label
    with pytest.raises(
        DataError, match=f"line 9: '{label}' is not a class number, although other labels are"
    ) as caught:
        _load(tmp_path, numbered)
    assert "on_corrupt" not in str(caught.value)


@pytest.mark.parametrize("value", ["heavy", "nan", "inf", "1e300", "1,5"])
def test_a_value_that_is_not_a_finite_number_is_refused(
    tmp_path: Path, rows: list[Row], value: str
) -> None:
    rows[7]["weight"] = value
    with pytest.raises(DataError, match=f"line 9: '{value}' is not a finite number"):
        _load(tmp_path, rows, value="weight")


def test_a_class_number_beyond_the_listed_classes_is_refused(
    tmp_path: Path, rows: list[Row]
) -> None:
    with pytest.raises(DataError, match=r"20 of 60 rows .*[\s\S]*line 42: '3' is not in"):
        _load(tmp_path, _numbered(rows, start=1), classes=["x", "y", "z"])


def test_missing_files_can_be_skipped_but_never_in_silence(
    tmp_path: Path, rows: list[Row], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / rows[30]["path"]).unlink()
    with caplog.at_level(logging.WARNING):
        splits = _load(tmp_path, rows, on_corrupt="skip")
    assert len(_all(splits, "ids")) == 59
    assert f"left out, since it cannot be read: {rows[30]['path']}" in caplog.text


@pytest.mark.parametrize("setting", ["path", "label", "split", "group"])
def test_a_column_that_is_not_there_is_refused_with_those_that_are(
    tmp_path: Path, rows: list[Row], setting: str
) -> None:
    with pytest.raises(DataError) as caught:
        _load(tmp_path, rows, **{setting: "colour"})
    assert f"one column 'colour' (setting `{setting}`)" in str(caught.value)
    assert "columns are 'path', 'label', 'split', 'site', 'film', 'weight'." in str(caught.value)
    assert ("`split: {}`" in str(caught.value)) == (setting == "split")


def test_a_duplicate_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label,label\na.png,ant,bee\n")
    with pytest.raises(DataError, match=r"one column 'label' \(setting `label`\)"):
        ImageTable(file=tmp_path / "labels.csv", split={}).load()


@pytest.mark.parametrize("split", ["train", "val"])
def test_splits_that_leave_nothing_to_train_or_to_hold_out_are_refused(
    tmp_path: Path, rows: list[Row], split: str
) -> None:
    one = [{**row, "split": split} for row in rows]
    with pytest.raises(DataError, match=r"names only \w+\. It should name train and val"):
        _load(tmp_path, one)


def test_four_splits_are_left_as_they_are(tmp_path: Path, rows: list[Row]) -> None:
    four = [{**row, "split": SPLIT_NAMES[place % 4]} for place, row in enumerate(rows)]
    splits = _load(tmp_path, four)
    for name, images in splits.named().items():
        assert images.ids is not None
        assert images.ids.tolist() == [row["path"] for row in four if row["split"] == name]


def test_classes_that_differ_between_splits_are_refused_unless_they_are_listed(
    tmp_path: Path, rows: list[Row]
) -> None:
    few = [row for row in rows if (row["split"], row["label"]) != ("val", "bee")]
    with pytest.raises(DataError, match=r"validation lacks bee\. .*`classes`"):
        _load(tmp_path, few)
    assert 1 not in _load(tmp_path, few, classes=CLASSES).test.targets


def test_calibrating_on_pictures_that_trained_the_backbone_is_warned_of(
    tmp_path: Path, rows: list[Row]
) -> None:
    with pytest.warns(OfframpWarning, match="12 of 12 calibration and 6 of 6 test samples were"):
        _load(tmp_path, rows, trained_on=["photos/val"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": "a", "value": "b"}, "`value` is for regression and `label` for classes"),
        ({"value": "b", "classes": ["x"]}, "`value` is for regression and `classes` for classes"),
        ({"split": {"tset": 0.2}}, "Extra inputs are not permitted"),
        ({"lable": "breed"}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ImageTable.model_validate({"file": "labels.csv", **settings})


@pytest.mark.parametrize(
    "settings", [{}, {"value": "weight"}, {"label": "x", "split": {"seed": 3}}]
)
def test_written_settings_are_read_back_as_they_were(settings: dict[str, object]) -> None:
    adapter: TypeAdapter[DataSpec] = TypeAdapter(DataSpec)
    spec = adapter.validate_python({"kind": "csv", "file": "labels.csv", **settings})
    assert adapter.validate_json(adapter.dump_json(spec)) == spec
    assert spec.label == (settings.get("label") or (None if settings else "label"))  # type: ignore[union-attr]
