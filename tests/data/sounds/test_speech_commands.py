"""Speech Commands in its published layout, also as another reader finds it."""

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from offramp.data.sounds import SpeechCommands
from offramp.data.sounds.speech_commands import CLASSES, MAIN, NOISE, TEST, WORDS
from offramp.errors import DataError
from offramp.preprocess.spectrogram import SPEECH_COMMANDS

soundfile: Any = pytest.importorskip("soundfile")
write: Any = pytest.importorskip("stand_ins.speech_commands").write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, 3, 0)
    return tmp_path


def samples_of(path: Path) -> NDArray[np.floating]:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        found = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return found.astype(np.float32) / np.float32(32_768)


def test_splits_are_those_of_the_lists_and_of_the_test_archive(root: Path) -> None:
    splits = SpeechCommands(root=root).load()
    assert splits.target_names == CLASSES
    assert splits.calibration is None
    assert splits.stand_in
    ids = {
        name: [*map(str, part.ids)] for name, part in splits.named().items() if part.ids is not None
    }
    listed = (root / MAIN / "validation_list.txt").read_text().split()
    tested = (root / MAIN / "testing_list.txt").read_text().split()
    assert {name for name in ids["validation"] if NOISE not in name} == {*listed}
    assert not {*tested} & {*ids["train"], *ids["validation"]}
    assert len([name for name in ids["train"] if NOISE not in name]) == 12 * 3
    assert len(ids["test"]) == 12 * 3
    assert all(name.startswith("test/") for name in ids["test"])


def test_noise_is_cut_every_half_second_with_the_end_left_out(root: Path) -> None:
    splits = SpeechCommands(root=root).load()
    named = {name: part for name, part in splits.named().items() if name != "test"}
    found = {
        name: [str(one) for one in part.ids if NOISE in str(one)]
        for name, part in named.items()
        if part.ids is not None
    }
    starts = [0, 8000, 16_000, 24_000]  # of 48,000 samples: 32,000 is left out
    assert found["train"] == [f"{NOISE}/pink_noise.wav/{start}" for start in starts]
    assert found["validation"] == [f"{NOISE}/running_tap.wav/{start}" for start in starts]


def test_another_reader_finds_the_same_sounds_and_labels(root: Path) -> None:
    train = SpeechCommands(root=root).load().train
    assert train.ids is not None
    for row, name in enumerate(map(str, train.ids)):
        parts = name.split("/")
        start = int(parts.pop()) if parts[0] == NOISE else 0
        sound = samples_of(root / MAIN / "/".join(parts))[start : start + 16_000]
        value, label = train[row]
        expected = "silence" if parts[0] == NOISE else parts[0] if parts[0] in WORDS else "unknown"
        assert CLASSES[label] == expected
        padded = np.pad(sound, (0, 16_000 - len(sound)))
        assert np.array_equal(value.numpy(), SPEECH_COMMANDS(padded))


def test_clips_of_one_speaker_are_a_cluster_and_stay_together(root: Path) -> None:
    splits = SpeechCommands(root=root, calibration=14).load()
    train, held = splits.train.clusters, splits.named()["calibration"].clusters
    assert train is not None
    assert held is not None
    assert not {*map(str, train)} & {*map(str, held)}
    assert len({*map(str, held)}) < len(held)


def test_the_published_sizes_are_required_without_the_mark(root: Path) -> None:
    (root / "STAND_IN").unlink()
    with pytest.raises(DataError, match=r"train has 40 instead of 85,511, validation has 40"):
        SpeechCommands(root=root).load()


def test_missing_folders_say_how_to_unpack_the_archive(root: Path) -> None:
    (root / TEST).rename(root / "elsewhere")
    with pytest.raises(DataError, match=rf"no folder {TEST}\. Fetch {TEST}\.tar\.gz"):
        SpeechCommands(root=root).load()
    (root / f"{TEST}.tar.gz").touch()
    with pytest.raises(DataError, match=r"Unpack it: mkdir .* && tar -xzf"):
        SpeechCommands(root=root).load()


@pytest.mark.parametrize("place", [f"{MAIN}/validation_list.txt", f"{MAIN}/{NOISE}"])
def test_a_missing_part_of_the_archive_is_named(root: Path, place: str) -> None:
    (root / place).rename(root / "elsewhere")
    with pytest.raises(DataError, match=f"{place.split('/')[1]}.* Unpack"):
        SpeechCommands(root=root).load()


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "it is empty"), (b"RIFF", "its content is not a sound")]
)
def test_a_clip_that_decodes_to_nothing_is_named(root: Path, content: bytes, message: str) -> None:
    listed = (root / MAIN / "validation_list.txt").read_text().split()
    path = root / MAIN / next(name for name in listed if name.startswith("yes/"))
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"yes/{path.name}: {message}"):
        SpeechCommands(root=root).load()


def test_a_recording_of_noise_without_samples_is_named(root: Path) -> None:
    soundfile.write(root / MAIN / NOISE / "pink_noise.wav", np.zeros(0), 16_000)
    with pytest.raises(
        DataError, match=r"pink_noise\.wav cannot be read: it decodes to no samples"
    ):
        SpeechCommands(root=root).load()


def test_stereo_clips_of_another_rate_are_averaged_and_resampled(root: Path) -> None:
    path = root / MAIN / "yes" / "ffff0000_nohash_0.wav"
    times = np.arange(8000) / 8000
    tone = 0.3 * np.sin(2 * np.pi * 440 * times)
    soundfile.write(path, np.stack([tone, tone], axis=1), 8000)
    train = SpeechCommands(root=root).load().train
    assert train.ids is not None
    value, _ = train[[*map(str, train.ids)].index(f"yes/{path.name}")]
    heard = SPEECH_COMMANDS(
        (0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.float32)
    )
    assert np.abs(value.numpy() - heard).mean() < 0.05 * heard.mean()
