from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from offramp.data import ImageFolder, ImageTable
from offramp.errors import DataError
from offramp.preprocess import SpectrogramPreprocess

SIZE = {"image_size": 8, "resize_to": 8}
CHAIN: Any = {"rate": 8000, "num_samples": 400, "channels": [{"window": 40, "step": 20, "fft": 64}]}
SOUND = SpectrogramPreprocess(**CHAIN)
WriteTone = Callable[..., None]


def write_picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(path)


@pytest.fixture
def films(tmp_path: Path, write_tone: WriteTone) -> Path:
    for split in ("train", "val", "calibration", "test"):
        for kind in ("cat", "dog"):
            for number in range(3):
                place = tmp_path / "films" / split / kind / f"{number}.png"
                write_picture(place, 40 * number + 7 * (kind == "dog") + len(split))
                write_tone(place.with_suffix(".wav"), 300 + 50 * number, rate=8000, seconds=0.05)
    return tmp_path / "films"


def test_a_picture_and_the_sound_beside_it_are_two_inputs(
    films: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = ImageFolder(root=films, sound=SOUND, **SIZE).load()
    assert splits.train.input_shapes == ((3, 8, 8), SOUND.shape)
    (picture, sound), label = splits.test[4]
    assert label == 1
    assert np.array_equal(sound.numpy(), SOUND((films / "test/dog/1.wav").read_bytes()))
    assert len({*picture.flatten().tolist()}) == 3  # one shade, three channels
    assert "not read" not in caplog.text


def test_without_the_setting_sounds_are_left_out_with_a_warning(
    films: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(ImageFolder(root=films, **SIZE).load().train.input_shapes) == 1
    assert "6 .wav" in caplog.text


def test_pictures_without_one_sound_each_are_listed(films: Path, write_tone: WriteTone) -> None:
    (films / "train/cat/0.wav").unlink()
    write_tone(films / "train/dog/2.flac", 500)
    with pytest.raises(DataError, match=r"2 of 24 pictures") as caught:
        ImageFolder(root=films, sound=SOUND, **SIZE).load()
    assert "train/cat/0.png: no sound file beside it" in str(caught.value)
    assert "train/dog/2.png: 2.wav and 2.flac beside it" in str(caught.value)


def test_a_sound_that_changes_gives_another_key(films: Path, write_tone: WriteTone) -> None:
    before = ImageFolder(root=films, sound=SOUND, **SIZE).load().train.content_key
    write_tone(films / "train/cat/0.wav", 777, rate=8000, seconds=0.05)
    assert ImageFolder(root=films, sound=SOUND, **SIZE).load().train.content_key != before


def test_a_table_names_picture_sound_and_count(films: Path) -> None:
    rows = ["path,sound,people,split"]
    for path in sorted(films.rglob("*.png")):
        place = path.relative_to(films)
        rows.append(f"{place},{place.with_suffix('.wav')},{len(rows)},{place.parts[0]}")
    table = films / "crowd.csv"
    table.write_text("\n".join(rows))
    splits = ImageTable(file=table, value="people", sound=SOUND, **SIZE).load()
    assert splits.task == "regression"
    assert splits.train.input_shapes == ((3, 8, 8), SOUND.shape)
    table.write_text("\n".join([*rows, "train/cat/0.png,nowhere.wav,3,train"]))
    with pytest.raises(DataError, match=r"line 26: .*there is no file nowhere.wav"):
        ImageTable(file=table, value="people", sound=SOUND, **SIZE).load()
