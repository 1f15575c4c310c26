"""GTZAN on stand-in files; the published lists and sizes are those of the real data set."""

import wave
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from offramp.data import DataSpec, Gtzan, Splits
from offramp.data.published import MARK
from offramp.data.sounds.gtzan import GENRES, published_split
from offramp.doubts import DoubtWarning
from offramp.errors import DataError, PlanError
from offramp.preprocess import SpectrogramPreprocess

soundfile: Any = pytest.importorskip("soundfile")
from stand_ins.gtzan import write  # noqa: E402  (it needs soundfile)

RATE, LENGTH = 800, 40
SMALL = {"rate": RATE, "num_samples": LENGTH, "channels": [{"window": 20, "step": 5, "fft": 32}]}
TRACKS = 3 * len(GENRES)
BY_SEGMENT = pytest.mark.filterwarnings("ignore:.*the split is drawn by segment")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, 1, seed=0, samples=9 * LENGTH + 25, rate=RATE)
    return tmp_path


def loaded(root: Path, **settings: Any) -> Splits:
    given = {"kind": "gtzan", "root": root, "chain": SMALL, **settings}
    return TypeAdapter[DataSpec](DataSpec).validate_python(given).load()


def sizes(splits: Splits) -> dict[str, int]:
    return {name: len(part) for name, part in splits.named().items()}


def tracks(splits: Splits) -> dict[str, set[str]]:
    return {n: {*map(str, np.asarray(p.clusters))} for n, p in splits.named().items()}


def test_the_published_split_has_443_197_and_290_tracks() -> None:
    split = published_split()
    assert Counter(split.values()) == {"train": 443, "validation": 197, "test": 290}
    assert {track.split(".")[0] for track in split} == {*GENRES}
    # The first blues of each part, and the clip that is often damaged.
    facts = {"blues.00029": "train", "blues.00000": "validation", "blues.00012": "test"}
    assert {**facts, "jazz.00054": "train"}.items() <= split.items()


def whole_data_set(root: Path, ending: str = "wav") -> Path:
    """All 1,000 tracks, tiny and each of its own."""
    for place, genre in enumerate(GENRES):
        folder = root / "genres_original" / genre
        folder.mkdir(parents=True)
        for number in range(100):
            clip = np.full(3, (100 * place + number) / 2000)
            soundfile.write(folder / f"{genre}.{number:05d}.{ending}", clip, RATE)
    return root


TINY = {"rate": RATE, "num_samples": 1, "channels": [{"window": 1, "step": 1, "fft": 1}]}


@pytest.mark.slow
def test_the_whole_data_set_has_the_papers_sizes_and_tells_of_the_leak(tmp_path: Path) -> None:
    whole_data_set(tmp_path, "au")
    chain = {**TINY, "rate": 8 * RATE}
    with pytest.warns(DoubtWarning, match="drawn by segment") as warned:
        splits = loaded(tmp_path, chain=chain)
    assert sizes(splits) == {"train": 8000, "validation": 1000, "test": 1000}
    assert {*np.bincount(splits.test.targets).tolist()} == {100}
    of = tracks(splits)
    shared, tested = len(of["train"] & of["test"]), len(of["test"])
    assert tested > 500
    text = str(warned[0].message)
    assert f"also in train: {len(of['train'] & of['validation']):,} of" in text
    assert f", {shared:,} of {tested:,} in test, such as 'blues." in text
    assert "Sources are tracks here" in text
    assert splits.doubts == (str(warned[0].message),)
    by_track = loaded(tmp_path, chain=chain, split_by="track")
    assert sizes(by_track) == {"train": 4430, "validation": 1970, "test": 2900}
    assert by_track.doubts == ()


def test_the_damaged_clip_of_a_mirror_is_named_and_the_true_numbers_told(tmp_path: Path) -> None:
    broken = whole_data_set(tmp_path) / "genres_original/jazz/jazz.00054.wav"
    broken.write_bytes(b"neither RIFF nor anything else")
    (broken.parent / "._jazz.00000.wav").write_bytes(b"a mirror's double of a file")
    settings: dict[str, Any] = {"chain": TINY, "segments": 2, "split_by": "track"}
    with pytest.warns(DoubtWarning, match=r"(?s)jazz.00054: its content is not a sound") as warned:
        splits = loaded(tmp_path, **settings)
    assert "884 segments of 442 tracks in train, 394 segments of 197" in str(warned[0].message)
    assert splits.skipped[0].startswith("jazz.00054: ")
    broken.unlink()
    with pytest.warns(DoubtWarning, match="jazz.00054: its file is missing"):
        assert sizes(loaded(tmp_path, **settings))["train"] == 884


@pytest.mark.filterwarnings("ignore:left out 1 clip")
def test_another_damaged_clip_is_an_error_unless_skipped(tmp_path: Path) -> None:
    broken = whole_data_set(tmp_path) / "genres_original/pop/pop.00003.wav"
    broken.write_bytes(b"RIFF")
    settings: dict[str, Any] = {"chain": TINY, "segments": 2, "split_by": "track"}
    with pytest.raises(DataError, match=r"1 clip in .*\n  pop.00003: .*not a sound.*\n.*skip"):
        loaded(tmp_path, **settings)
    assert sum(sizes(loaded(tmp_path, **settings, on_corrupt="skip")).values()) == 2 * 929
    broken.unlink()
    with pytest.raises(DataError, match="pop has 99 instead of 100"):
        loaded(tmp_path, **settings)


def test_segments_are_those_of_pythons_own_reader(tmp_path: Path) -> None:
    write(tmp_path, 1, seed=3, samples=9 * LENGTH + 25, rate=RATE)
    for path in sorted(tmp_path.rglob("*.au")):
        samples, _ = soundfile.read(path, dtype="int16")
        with wave.open(str(path.with_suffix(".wav")), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(samples.astype("<i2").tobytes())
        path.unlink()
    splits = loaded(tmp_path, split_by="track")
    prepare = SpectrogramPreprocess.model_validate(SMALL)
    for part in splits.named().values():
        for row, name in enumerate(map(str, np.asarray(part.ids))):
            track, place = name.split("/")
            genre = track.split(".")[0]
            with wave.open(str(tmp_path / f"genres/{genre}/{track}.wav")) as file:
                file.setpos(int(place) * LENGTH)
                theirs = np.frombuffer(file.readframes(LENGTH), "<i2").astype(np.float32) / 2**15
            assert len(theirs) == (25 if place == "9" else LENGTH)
            value, label = part[row]
            padded = np.zeros(LENGTH, np.float32)
            padded[: len(theirs)] = theirs
            assert np.array_equal(value.numpy(), prepare.batch([padded])[0])
            assert GENRES[label] == genre
            assert str(np.asarray(part.clusters)[row]) == track


@BY_SEGMENT
@pytest.mark.parametrize("place", ["genres", "genres_original", "Data/genres_original", "."])
def test_every_layout_of_the_data_set_is_read(root: Path, place: str) -> None:
    expected = loaded(root).train.digests
    held = (root / "genres").rename(root / "held")
    (root / place).mkdir(parents=True, exist_ok=True)
    for genre in held.iterdir():
        genre.rename(root / place / genre.name)
    assert np.array_equal(loaded(root).train.digests, expected)


@BY_SEGMENT
def test_segments_are_drawn_by_seed_and_calibration_is_optional(root: Path) -> None:
    def drawn(**settings: Any) -> dict[str, list[str]]:
        parts = loaded(root, **settings).named()
        return {name: [*map(str, np.asarray(part.ids))] for name, part in parts.items()}

    three = drawn(validation=30, test=20)
    assert {name: len(ids) for name, ids in three.items()} == {
        "train": 250,
        "validation": 30,
        "test": 20,
    }
    assert drawn(validation=30, test=20) == three
    assert drawn(validation=30, test=20, split_seed=1)["test"] != three["test"]
    four = drawn(validation=30, test=20, calibration=40)
    assert [len(ids) for ids in four.values()] == [210, 30, 40, 20]
    assert len({name for ids in four.values() for name in ids}) == 10 * TRACKS
    assert sum(sizes(loaded(root, limit=10)).values()) == 30


def test_calibration_by_track_takes_whole_tracks_from_training(tmp_path: Path) -> None:
    write(tmp_path, 4, seed=0, samples=9 * LENGTH + 25, rate=RATE)
    plain, four = (
        loaded(tmp_path, split_by="track", calibration=count) for count in (0, 10 * len(GENRES))
    )
    of = tracks(four)
    assert sizes(four) == {"train": 300, "validation": 400, "calibration": 100, "test": 400}
    assert not of["train"] & of["calibration"]
    assert of["train"] | of["calibration"] == tracks(plain)["train"]
    assert {part: of[part] for part in ("validation", "test")} == {
        part: tracks(plain)[part] for part in ("validation", "test")
    }


def test_sizes_are_not_chosen_for_the_published_split(root: Path) -> None:
    with pytest.raises(PlanError, match="validation and test cannot be set with `split_by: track`"):
        Gtzan(root=root, split_by="track", validation=5, test=5)


def test_silence_another_rate_and_two_channels_are_read(root: Path) -> None:
    places = [root / f"genres/blues/{track}.au" for track in ("blues.00029", "blues.00000")]
    soundfile.write(places[0], np.zeros(10 * LENGTH), RATE)
    tone = np.sin(np.arange(20 * LENGTH) / 9)
    soundfile.write(places[1], np.stack([tone, -tone], axis=1), 2 * RATE)
    splits = loaded(root, split_by="track")
    assert not splits.train[0][0].any()
    value, _ = splits.validation[9]
    assert float(value.abs().max()) < 1e-3  # the mean of both channels


def test_a_clip_that_changes_while_in_use_is_refused(root: Path) -> None:
    splits = loaded(root, split_by="track")
    folder = root / "genres/blues"
    (folder / "blues.00029.au").write_bytes((folder / "blues.00012.au").read_bytes())
    with pytest.raises(DataError, match=r"blues.00029.au has changed"):
        splits.train.read([3])


def short(folder: Path) -> None:
    soundfile.write(folder / "rock/rock.00000.au", np.ones(9 * LENGTH), RATE)


def empty(folder: Path) -> None:
    soundfile.write(folder / "rock/rock.00000.au", np.ones(0), RATE)


def misnamed(folder: Path) -> None:
    (folder / "rock/rock 1.au").write_bytes(b"")


def doubled(folder: Path) -> None:
    name = next((folder / "rock").iterdir())
    name.with_suffix(".wav").write_bytes(name.read_bytes())


def without_a_genre(folder: Path) -> None:
    (folder / "rock").rename(folder / "rocks")


def without_clips(folder: Path) -> None:
    for path in (folder / "rock").iterdir():
        path.rename(path.with_suffix(".txt"))


def without_folders(folder: Path) -> None:
    folder.rename(folder.parent / "music")


def without_the_mark(folder: Path) -> None:
    (folder.parent / MARK).unlink()


def without_a_part(folder: Path) -> None:
    for track, part in published_split().items():
        if part == "test":
            (folder / track.split(".")[0] / f"{track}.au").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (short, r"rock.00000: it is 0.45 s long, and 10 segments of 0.05 s need more than 0.45 s"),
        (empty, "rock.00000: it decodes to no samples"),
        (misnamed, r"rock 1.au is not named like rock.00000.au"),
        (doubled, r"holds both (rock.\d{5}).au and \1.wav, which are one track"),
        (without_a_genre, "rock holds no clips"),
        (without_clips, "rock holds no clips"),
        (without_folders, r"holds no folders of genres .*Unpack the data set"),
        (without_the_mark, "blues has 3 instead of 100"),
        (without_a_part, "test would be empty"),
    ],
)
def test_wrong_files_are_one_clear_error(
    change: Callable[[Path], None], message: str, root: Path
) -> None:
    change(root / "genres")
    with pytest.raises(DataError, match=message):
        loaded(root, split_by="track")
