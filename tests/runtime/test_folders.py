from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from offramp.bundle import open_bundle
from offramp.errors import DataError
from offramp.runtime.folders import is_divided, read_splits


def draw(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_folder_of_classes_is_calibration_data_unless_told_otherwise(
    folder: Path, tmp_path: Path
) -> None:
    for name in ("c/1.png", "a/2.PNG", "a/10.jpg"):
        draw(tmp_path / name)
    facts = open_bundle(folder).manifest.facts
    [(split, found)] = read_splits(tmp_path, facts).items()
    assert split == "calibration"
    assert found.ids == ("a/10.jpg", "a/2.PNG", "c/1.png")
    assert [found[row][1] for row in range(len(found))] == [0, 0, 2]
    assert found[2][0] == str(tmp_path / "c/1.png")
    assert [*read_splits(tmp_path, facts, "test")] == ["test"]
    assert not is_divided(tmp_path)


def test_a_divided_folder_gives_its_calibration_and_test_samples(
    folder: Path, tmp_path: Path
) -> None:
    for name in ("test/b/1.png", "calibration/a/1.png", "calibration/b/2.png", "train/x/1.png"):
        draw(tmp_path / name)
    facts = open_bundle(folder).manifest.facts
    assert is_divided(tmp_path)
    found = read_splits(tmp_path, facts)
    assert {name: each.ids for name, each in found.items()} == {
        "calibration": ("calibration/a/1.png", "calibration/b/2.png"),
        "test": ("test/b/1.png",),
    }
    assert [*read_splits(tmp_path, facts, "test")] == ["test"]
    (tmp_path / "calibration").rename(tmp_path / "dev")
    assert [*read_splits(tmp_path, facts)] == ["test"]
    with pytest.raises(DataError, match="has no folder 'calibration', only 'test'"):
        read_splits(tmp_path, facts, "calibration")


def test_a_class_may_have_the_name_of_a_split(folder: Path, tmp_path: Path) -> None:
    draw(tmp_path / "test/1.png")
    facts = open_bundle(folder).manifest.facts.renamed(["test", *"bcde"])
    assert read_splits(tmp_path, facts)["calibration"].ids == ("test/1.png",)


def test_a_folder_that_is_no_class_of_the_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    facts = open_bundle(folder).manifest.facts
    for name in ("a/1.png", "zebra/1.png"):
        draw(tmp_path / name)
    with pytest.raises(DataError, match="holds zebra, and this bundle knows the classes a, b, c"):
        read_splits(tmp_path, facts)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ((), "holds no folders of classes with files that this bundle reads"),
        (("1.png",), "holds no folders of classes with files"),
        (("a/1.txt",), "holds no folders of classes with files"),
        (("a/deep/1.png",), r"a should hold the files of one class, but holds 1 folder \(deep\)"),
    ],
)
def test_a_folder_without_classes_is_refused(
    files: tuple[str, ...], says: str, folder: Path, tmp_path: Path
) -> None:
    for name in files:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True)
        path.touch()
    (tmp_path / "photos").mkdir(exist_ok=True)
    with pytest.raises(DataError, match=says):
        read_splits(tmp_path / "photos", open_bundle(folder).manifest.facts)


def test_other_files_are_counted_in_a_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path / "a/1.png")
    (tmp_path / "a/1.txt").touch()
    (tmp_path / "a/.hidden").touch()
    read_splits(tmp_path, open_bundle(folder).manifest.facts)
    assert "these were not read, since they are not .jpg/" in caplog.text
    assert caplog.text.rstrip().endswith(": 1 .txt")


def test_labels_need_class_names_and_files_a_preprocessing(folder: Path, tmp_path: Path) -> None:
    draw(tmp_path / "a/1.png")
    facts = open_bundle(folder).manifest.facts
    with pytest.raises(DataError, match="has no names for its classes"):
        read_splits(tmp_path, facts.renamed(()))
    values = facts.model_copy(update={"task": "regression", "class_names": ("people",)})
    with pytest.raises(DataError, match="answers values"):
        read_splits(tmp_path, values)
    [first] = facts.inputs
    bare = facts.model_copy(update={"inputs": (first.model_copy(update={"preprocess": None}),)})
    with pytest.raises(DataError, match="does not know how to prepare files"):
        read_splits(tmp_path, bare)


@pytest.mark.slow
def test_a_picture_comes_with_the_sound_beside_it(hearing_folder: Path, tmp_path: Path) -> None:
    facts = open_bundle(hearing_folder).manifest.facts
    for name in ("a/1.png", "b/2.png"):
        draw(tmp_path / name)
    (tmp_path / "a/1.wav").touch()
    found = read_splits(tmp_path, facts)["calibration"]
    assert found[0] == ((str(tmp_path / "a/1.png"), tmp_path / "a/1.wav"), 0)
    with pytest.raises(DataError, match=r"b/2\.png has no sound file beside it, and the bundle"):
        found[1]
