"""DISCO on stand-in files; what is compared is read with scipy, Pillow and soundfile directly."""

import shutil
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter

from offramp.data import DataSpec, Splits
from offramp.data.published import MARK
from offramp.errors import DataError

SMALL = {"image_size": (16, 24)}


def loaded(root: Path, **settings: Any) -> Splits:
    given = {"kind": "disco", "root": root, **SMALL, **settings}
    return TypeAdapter[DataSpec](DataSpec).validate_python(given).load()


def log_mel(path: Path) -> NDArray[np.float64]:
    """VGGish's input, written down from its definition."""
    soundfile: Any = pytest.importorskip("soundfile")
    soxr: Any = pytest.importorskip("soxr")
    samples, rate = soundfile.read(path, always_2d=True)
    mono = soxr.resample(samples.mean(axis=1).astype(np.float32), rate, 16_000)
    mono = np.pad(mono, (0, 20_000))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    spectra = np.array(
        [np.abs(np.fft.rfft(window * mono[160 * n : 160 * n + 400], 512)) for n in range(96)]
    )
    mel = [1127 * np.log(1 + hz / 700) for hz in np.arange(257) * 16_000 / 512]
    low, high = (1127 * np.log(1 + hz / 700) for hz in (125, 7500))
    step = (high - low) / 65
    filters = np.zeros((257, 64))
    for bin_ in range(1, 257):
        for number in range(64):
            distance = abs(mel[bin_] - (low + (number + 1) * step)) / step
            filters[bin_, number] = max(0.0, 1 - distance)
    found: NDArray[np.float64] = np.log(spectra @ filters + 0.01)
    return found


def test_inputs_and_count_are_those_that_other_libraries_read(crowds: Path) -> None:
    splits = loaded(crowds)
    assert splits.stand_in
    assert (splits.task, splits.target_names) == ("regression", ("people",))
    folders = {"train": "train", "validation": "val", "test": "test"}
    assert {*splits.named()} == {*folders}
    for split, folder in folders.items():
        samples = splits.named()[split]
        assert samples.ids is not None
        assert samples.ids.tolist() == [f"{folder}_{number:04d}" for number in range(6)]
        for row in (0, 5):
            name = samples.ids[row]
            (picture, sound), count = samples[row]
            with Image.open(crowds / f"imgs/{name}.jpg") as there:
                small = there.resize((24, 16), Image.Resampling.BILINEAR)
            values = np.asarray(small) / 255 - [0.4108, 0.3706, 0.3597]
            values = np.moveaxis(values / [0.2786, 0.2693, 0.2716], -1, 0)
            assert np.allclose(picture, values, atol=1e-5)
            assert np.allclose(sound[0], log_mel(crowds / f"auds/{name}.wav"), atol=2e-4)
            published = scipy.io.loadmat(crowds / f"density/{folder}/{name}.mat")["map"]
            assert count == pytest.approx(published.sum(), rel=1e-6)


def test_the_paper_reads_576_by_1024(crowds: Path) -> None:
    given = {"kind": "disco", "root": crowds}
    spec = TypeAdapter[DataSpec](DataSpec).validate_python(given)
    assert [each.shape for each in spec.inputs] == [(3, 576, 1024), (1, 96, 64)]
    assert spec.load().test.input_shapes == ((3, 576, 1024), (1, 96, 64))


def test_splits_may_lie_at_the_top(crowds: Path) -> None:
    before = loaded(crowds).train.content_key
    (crowds / "density/cross_scene_train").mkdir()
    for split in ("train", "val", "test"):
        shutil.move(crowds / "density" / split, crowds / split)
    assert loaded(crowds).train.content_key == before


def test_hidden_files_and_other_splits_are_left_alone(crowds: Path) -> None:
    before = loaded(crowds).train.content_key
    shutil.copytree(crowds / "density/train", crowds / "density/cross_scene_train")
    for name in ("imgs/._train_0001.jpg", "auds/._a.wav", "density/train/._train_0001.mat"):
        (crowds / name).write_bytes(b"\x00\x05\x16\x07")
    (crowds / "density/val/.DS_Store").touch()
    assert loaded(crowds).train.content_key == before


@pytest.mark.slow
def test_the_whole_data_set_has_the_papers_sizes(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    for folder in ("imgs", "auds"):
        (tmp_path / folder).mkdir()
    picture, sound = tmp_path / "a.jpg", tmp_path / "a.wav"
    Image.new("RGB", (3, 2)).save(picture)
    write_wav(sound, np.zeros(2, np.int16))
    for split, count in {"train": 1435, "val": 200, "test": 300}.items():
        (tmp_path / "density" / split).mkdir(parents=True)
        for number in range(count):
            name = f"{split}{number}"
            (tmp_path / f"imgs/{name}.jpg").hardlink_to(picture)
            (tmp_path / f"auds/{name}.wav").hardlink_to(sound)
            made = {"map": np.full((2, 3), number / 7)}
            scipy.io.savemat(tmp_path / f"density/{split}/{name}.mat", made)
    given = {"kind": "disco", "root": tmp_path, "calibration": 100}
    splits = TypeAdapter[DataSpec](DataSpec).validate_python(given).load(check=False)
    sizes = {name: len(part) for name, part in splits.named().items()}
    assert sizes == {"train": 1335, "validation": 200, "calibration": 100, "test": 300}
    assert not splits.stand_in
    assert splits.calibration is not None
    middle = np.median(np.arange(1435) * 6 / 7)
    assert (splits.calibration.targets < middle).sum() == pytest.approx(50, abs=5)
    for folder, ending in (("density/test", "mat"), ("imgs", "jpg"), ("auds", "wav")):
        (tmp_path / folder / f"test7.{ending}").unlink()
    with pytest.raises(DataError, match="test has 299 instead of 300"):
        loaded(tmp_path)


def write_wav(path: Path, samples: NDArray[np.int16], rate: int = 48_000) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


@pytest.mark.parametrize("length", [1, 15_599, 15_600, 16_000, 30_960, 50_000])
def test_a_sound_of_any_length_is_one_example(crowds: Path, length: int) -> None:
    path = crowds / "auds/test_0000.wav"
    noise = np.random.default_rng(0).integers(-9000, 9000, length).astype(np.int16)
    write_wav(path, noise, 16_000)
    (_, sound), _ = loaded(crowds).test[0]
    assert sound.shape == (1, 96, 64)
    assert np.allclose(sound[0], log_mel(path), atol=2e-4)


def test_silence_is_a_sound_like_any_other(crowds: Path) -> None:
    write_wav(crowds / "auds/test_0000.wav", np.zeros(48_000, np.int16))
    (_, sound), _ = loaded(crowds).test[0]
    assert np.allclose(sound, np.log(0.01))


def test_dots_in_text_files_take_the_place_of_maps(crowds: Path, tmp_path: Path) -> None:
    (tmp_path / "dots").mkdir()
    for number, path in enumerate(sorted(crowds.glob("density/*/*.mat"))):
        (tmp_path / f"dots/{path.stem}.txt").write_text("1 2\n" * number)
    splits = loaded(crowds, dots=tmp_path / "dots")
    counts = [part.targets.tolist() for part in splits.named().values()]
    assert sorted(map(tuple, counts)) == [
        (0, 1, 2, 3, 4, 5),
        (6, 7, 8, 9, 10, 11),
        (*range(12, 18),),
    ]
    (tmp_path / "dots/val_0003.txt").write_text("1 2\n81 5")
    with pytest.raises(DataError, match=r"val_0003.txt: line 2: the dot at x = 81, y = 5"):
        loaded(crowds, dots=tmp_path / "dots")
    (tmp_path / "dots/val_0003.txt").unlink()
    with pytest.raises(DataError, match=r"val_0003: there is no .*dots/val_0003.txt"):
        loaded(crowds, dots=tmp_path / "dots")


def test_a_map_of_dots_counts_them(crowds: Path) -> None:
    dots = np.zeros((56, 80), np.uint8)
    dots[0, 0] = dots[55, 79] = 2
    scipy.io.savemat(crowds / "density/test/test_0000.mat", {"map": dots})
    assert loaded(crowds).test.targets[0] == 4


def without(folder: str, ending: str) -> Callable[[Path], None]:
    return lambda root: (root / folder / f"train_0002{ending}").unlink()


def write_map(values: Any) -> Callable[[Path], None]:
    place = "density/train/train_0002.mat"
    return lambda root: scipy.io.savemat(root / place, values)


def twice(root: Path) -> None:
    shutil.copy(root / "density/train/train_0002.mat", root / "density/test")


def of_words(folder: str, ending: str) -> Callable[[Path], Any]:
    return lambda root: (root / folder / f"train_0002{ending}").write_text("words")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("imgs", ".jpg"), "1 fault in .*train_0002: there is no imgs/train_0002.jpg"),
        (without("auds", ".wav"), "train_0002: there is no auds/train_0002.wav"),
        (without("density/train", ".mat"), "train_0002: there is no train_0002.mat"),
        (lambda root: shutil.rmtree(root / "auds"), "18 faults in the 18 examples"),
        (twice, "train_0002.mat is in both train and test"),
        (write_map({"other": 1}), r"train/train_0002.mat: it should have the variable `map`"),
        (write_map({"map": np.ones((80, 56))}), r"train_0002.mat: its map has 80 x 56 pixels"),
        (of_words("imgs", ".jpg"), r"train_0002.jpg: its content is not a picture"),
        (of_words("auds", ".wav"), "train_0002: its content is not a sound"),
        (of_words("density/train", ".mat"), r"train_0002.mat: its content is not a MATLAB file"),
        (lambda root: shutil.rmtree(root / "density"), "holds no folder density/train"),
        (lambda root: shutil.rmtree(root / "density/val"), "validation would be empty"),
        (lambda root: (root / MARK).unlink(), "train has 6 instead of 1,435, val has 6"),
    ],
)
def test_files_that_do_not_fit_are_named_in_one_error(
    crowds: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    spoil(crowds)
    if message.startswith("validation"):  # and with it what belongs to it
        for path in [*crowds.glob("imgs/val*"), *crowds.glob("auds/val*")]:
            path.unlink()
    with pytest.raises(DataError, match=rf"(?s){message}"):
        loaded(crowds)


def test_examples_that_cannot_be_used_may_be_left_out(
    crowds: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder, name in (
        ("imgs", "train_0001.jpg"),
        ("auds", "train_0002.wav"),
        ("density/train", "train_0003.mat"),
    ):
        (crowds / folder / name).write_text("words")
    with pytest.raises(DataError, match="leave them out with `on_corrupt: skip`"):
        loaded(crowds)
    splits = loaded(crowds, on_corrupt="skip")
    assert splits.train.ids is not None
    assert splits.train.ids.tolist() == ["train_0000", "train_0004", "train_0005"]
    assert [line.split(":")[0] for line in splits.skipped] == [
        "train/train_0001.jpg",
        "train/train_0002.wav",
        "train/train_0003.mat",
    ]
    assert "left out, since it cannot be used: train/train_0001.jpg" in caplog.text


def test_degraded_pictures_are_other_samples(crowds: Path) -> None:
    degrade = {"brightness": 0.2, "noise": 25}
    clean, worse = loaded(crowds).train, loaded(crowds, degrade=degrade).train
    again = loaded(crowds, degrade=degrade).train
    assert clean.content_key != worse.content_key == again.content_key
    assert loaded(crowds, degrade={**degrade, "noise": 50}).train.content_key != worse.content_key
    assert np.array_equal(worse[0][0][0], again[0][0][0])
    assert np.array_equal(worse[0][0][1], clean[0][0][1])  # the sound
    assert worse[0][1] == clean[0][1]
    assert worse[0][0][0].mean() < clean[0][0][0].mean()


def test_pictures_are_degraded_before_they_are_resized(crowds: Path) -> None:
    clean, noisy = (loaded(crowds, degrade=d).train[3][0][0] for d in (None, {"noise": 25}))
    # Of 3.5 x 3.3 pixels that become one, with Pillow's triangular filter twice as wide.
    difference = (noisy - clean).numpy() * 255 * 0.273
    assert 25 / 8 < difference.std() < 25 / 3
    covered = loaded(crowds, degrade={"occlusion": 1}).train[3][0][0].numpy()
    black = -np.array([0.4108, 0.3706, 0.3597]) / [0.2786, 0.2693, 0.2716]
    assert np.allclose(covered, black[:, None, None], atol=1e-5)


def test_a_picture_is_read_as_it_is_stored(crowds: Path) -> None:
    path = crowds / "imgs/test_0000.jpg"
    before = loaded(crowds).test[0][0][0].numpy()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    content, block = path.read_bytes(), exif.tobytes()
    marker = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big")
    path.write_bytes(content[:2] + marker + block + content[2:])
    with Image.open(path) as picture:
        assert picture.getexif()[0x0112] == 6
    assert np.array_equal(loaded(crowds).test[0][0][0], before)
