"""Folders of files by class; more on their splits and classes is in images/test_folder.py."""

from pathlib import Path
from typing import Any

import pytest

from offramp.data.layout import list_split, list_unsplit
from offramp.errors import DataError, KindError
from offramp.preprocess.media import IMAGES, SOUNDS, other_medium


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"content")
    return root


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.wav", "b.FLAC"], SOUNDS),
        (["a.csv", "b.mp3"], SOUNDS),
        (["a.wav", "a.jpg"], None),
        (["a.txt"], None),
        ([], None),
    ],
)
def test_files_are_of_another_medium_if_none_is_of_this_one(
    names: list[str], expected: object
) -> None:
    assert other_medium(IMAGES, map(Path, names)) is expected


@pytest.mark.parametrize("classes", [None, ("owl", "wren")])
def test_sounds_in_folders_of_images_are_refused_with_the_right_kind(
    tmp_path: Path, classes: tuple[str, ...] | None
) -> None:
    write(tmp_path, "owl/a.wav", "wren/b.wav")
    with pytest.raises(KindError, match=r"holds sound files, .* Use `kind: sound_folder`\."):
        list_unsplit(tmp_path, IMAGES, classes)


def test_pictures_in_folders_of_sounds_are_refused_with_the_right_kind(tmp_path: Path) -> None:
    write(tmp_path, "train/owl/a.png", "val/owl/b.png")
    with pytest.raises(KindError, match=r"holds image files, .* Use `kind: image_folder`\."):
        list_split(tmp_path, SOUNDS)


@pytest.mark.parametrize("medium", [IMAGES, SOUNDS])
def test_a_folder_of_files_without_classes_is_not_called_empty(tmp_path: Path, medium: Any) -> None:
    write(tmp_path, "a.wav", "labels.csv")
    with pytest.raises(DataError, match=r"2 files, such as a.wav, and no .* `kind: sound_csv`\."):
        list_unsplit(tmp_path, medium)


def test_an_empty_folder_is_called_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        list_unsplit(tmp_path, SOUNDS)


def test_a_class_whose_name_resembles_a_split_is_not_taken_for_one(tmp_path: Path) -> None:
    write(tmp_path, "robin/a.wav", "rain/b.wav", "tests/c.wav")
    with pytest.raises(DataError) as caught:
        list_split(tmp_path, SOUNDS)
    assert "rename" not in str(caught.value)
    assert "`split: {}`" in str(caught.value)
    write(tmp_path, "train/rain/d.wav", "val/rain/e.wav")
    files = list_split(tmp_path, SOUNDS)
    assert {file.split for file in files} == {"train", "validation"}


def test_a_misspelt_split_is_still_named(tmp_path: Path) -> None:
    write(tmp_path, "trian/owl/a.wav", "val/owl/b.wav")
    with pytest.raises(DataError, match=r"rename 'trian' to 'train'\?"):
        list_split(tmp_path, SOUNDS)
