import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from offramp.data import DataSpec, ImageFolder, SoundFolder
from offramp.errors import DataError, ExtraError, PlanError
from offramp.preprocess.sound import decode_sound
from offramp.preprocess.spectrogram import SPEECH_COMMANDS, VGGISH

CHAIN = {"rate": 8000, "num_samples": 800, "channels": [{"window": 64, "step": 32, "fft": 64}]}
WriteTone = Callable[..., None]


@pytest.fixture
def birds(tmp_path: Path, write_tone: WriteTone) -> Path:
    for split, count in {"train": 5, "val": 4, "calibration": 3, "test": 3}.items():
        for kind, hz in {"owl": 300, "wren": 2000}.items():
            for number in range(count):
                place = tmp_path / "birds" / split / kind / f"{split}{number}.wav"
                write_tone(place, hz + 10 * number, rate=16_000, seconds=0.08)
    return tmp_path / "birds"


def loaded(root: Path, **settings: Any) -> Any:
    given = {"kind": "sound_folder", "root": root, "chain": CHAIN, **settings}
    return TypeAdapter[DataSpec](DataSpec).validate_python(given).load()


def test_sounds_are_samples_by_split_and_class(birds: Path) -> None:
    splits = loaded(birds)
    assert [len(part) for part in splits.named().values()] == [10, 8, 6, 6]
    assert splits.target_names == ("owl", "wren")
    assert splits.train.ids[0] == "train/owl/train0.wav"
    spectrogram, label = splits.test[5]
    content = (birds / "test/wren/test2.wav").read_bytes()
    assert label == 1
    assert np.array_equal(spectrogram.numpy(), splits.inputs[0](decode_sound(content, 8000)))


def test_a_chain_is_named_or_given_in_full(birds: Path) -> None:
    for name, chain in {"speech_commands": SPEECH_COMMANDS, "vggish": VGGISH}.items():
        assert loaded(birds, chain=name).inputs == (chain,)
    with pytest.raises(PlanError, match=r"no chain 'speech'. Use one of \['speech_commands'"):
        SoundFolder(root=birds, chain="speech")


def test_splits_are_drawn_and_speakers_kept_together(tmp_path: Path, write_tone: WriteTone) -> None:
    for speaker in range(12):
        for word in ("go", "stop"):
            for take in range(2):
                name = f"s{speaker}_{take}.flac"
                hz = 200 + speaker + 50 * take + 500 * (word == "go")
                write_tone(tmp_path / word / name, hz, seconds=0.06)
    splits = loaded(tmp_path, split={}, source=r"(s\d+)_")
    speakers = [{*map(str, part.clusters)} for part in splits.named().values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 12


def test_a_file_that_is_no_sound_is_named_or_skipped(birds: Path) -> None:
    (birds / "train/owl/train1.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"train/owl/train1.wav: .*not a sound"):
        loaded(birds)
    splits = loaded(birds, on_corrupt="skip")
    assert len(splits.train) == 9
    assert "train/owl/train1.wav" in splits.skipped[0]


def test_a_sound_that_changes_while_in_use_is_refused(birds: Path) -> None:
    splits = loaded(birds)
    path = birds / "train/owl/train0.wav"
    path.write_bytes((birds / "train/owl/train1.wav").read_bytes())
    with pytest.raises(DataError, match="has changed"):
        splits.train.read([0])


def test_without_the_libraries_a_folder_is_refused_at_once(
    birds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(DataError, match=r"pip install 'offramp\[audio\]'"):
        loaded(birds)


def test_hidden_files_are_not_read(birds: Path) -> None:
    (birds / "train/owl/._train0.wav").write_bytes(b"a mirror's shadow of a file")
    assert len(loaded(birds).train) == 10


def test_a_folder_counts_the_files_that_its_chain_changes(
    birds: Path, caplog: pytest.LogCaptureFixture, write_tone: WriteTone
) -> None:
    write_tone(birds / "train/owl/train0.wav", 300, rate=8_000, seconds=0.2)
    with caplog.at_level("INFO"):
        loaded(birds)
    [line] = [each.getMessage() for each in caplog.records if each.levelname == "INFO"]
    assert line == (
        f"{birds}: 30 sound files, of these 29 resampled to 8,000 Hz, 1 cut to 0.1 s, "
        "29 padded to 0.1 s"
    )


def test_a_file_that_ends_early_is_named(birds: Path, write_tone: WriteTone) -> None:
    path = birds / "train/owl/train1.wav"
    write_tone(path, 300, seconds=0.5)
    path.write_bytes(path.read_bytes()[:9_000])
    with pytest.raises(DataError, match=r"train/owl/train1.wav: .*it ends early"):
        loaded(birds)


def test_a_damaged_file_without_a_source_does_not_stop_data_that_skips_it(birds: Path) -> None:
    for split in ("train", "val"):
        (birds / split / "owl/empty.wav").touch()
    splits = loaded(birds, source=r"([a-z]+\d)", on_corrupt="skip")
    assert splits.skipped == ("train/owl/empty.wav: it is empty", "val/owl/empty.wav: it is empty")
    assert [*splits.train.clusters[:2]] == ["train0", "train1"]
    with pytest.raises(DataError, match=r"matches nothing in 2 of 32 paths, such as train/owl/emp"):
        loaded(birds, source=r"([a-z]+\d)")


def test_a_file_that_can_be_read_needs_a_source(birds: Path) -> None:
    (birds / "train/owl/empty.wav").touch()
    (birds / "train/owl/train0.wav").rename(birds / "train/owl/other.wav")
    with pytest.raises(DataError, match=r"nothing in 1 of 30 paths, such as train/owl/other.wav"):
        loaded(birds, source=r"([a-z]+\d)", on_corrupt="skip")
    with pytest.raises(DataError, match=r"nothing in 31 of 31 paths"):
        loaded(birds, source="(zzz)", on_corrupt="skip")


@pytest.mark.parametrize("on_corrupt", ["raise", "skip"])
def test_a_library_that_is_missing_is_one_error_and_no_fault_of_each_file(
    birds: Path, monkeypatch: pytest.MonkeyPatch, on_corrupt: str
) -> None:
    for number, sound in enumerate(birds.rglob("*.wav")):
        Image.new("RGB", (5, 4), (7 * number, 0, 0)).save(sound.with_suffix(".png"))
    monkeypatch.setitem(sys.modules, "soundfile", None)
    given = {"root": birds, "sound": CHAIN, "image_size": 4, "on_corrupt": on_corrupt}
    with pytest.raises(ExtraError, match=r"^reading sound files needs soundfile .*audio\]'$"):
        ImageFolder(**given).load()
