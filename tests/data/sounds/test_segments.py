import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp.data.prepared import SoundFiles
from offramp.data.sounds.segments import SoundSegments

soundfile: Any = pytest.importorskip("soundfile")


def segments(folder: Path, *, count: int, digests: tuple[str, str] = ("a", "b")) -> SoundSegments:
    files = SoundFiles([folder / "one.wav", folder / "two.wav"], np.array(digests), 8000)
    numbers, starts = np.repeat([0, 1], count), np.tile(7 * np.arange(count), 2)
    return SoundSegments(files, numbers, starts, 7)


def test_pieces_of_one_file_follow_each_other_and_the_last_may_be_short(tmp_path: Path) -> None:
    whole = [np.arange(17, dtype=np.float32) / 64, -np.arange(25, dtype=np.float32) / 64]
    digests = []
    for name, sound in zip(("one.wav", "two.wav"), whole, strict=True):
        soundfile.write(tmp_path / name, sound, 8000, subtype="FLOAT")
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    found = segments(tmp_path, count=3, digests=(digests[0], digests[1]))
    pieces = [found[row] for row in range(len(found))]
    assert [len(piece) for piece in pieces] == [7, 7, 3, 7, 7, 7]
    assert np.array_equal(np.concatenate(pieces[:3]), whole[0])
    assert np.array_equal(np.concatenate(pieces[3:]), whole[1][:21])


def test_a_piece_is_known_by_its_file_and_its_place_alone(tmp_path: Path) -> None:
    two, three = (segments(tmp_path, count=count).digests for count in (2, 3))
    assert len({*three.tolist()}) == 6
    assert np.array_equal(three[[0, 1, 3, 4]], two)
    other = segments(tmp_path, count=2, digests=("a", "c")).digests
    assert (other == two).tolist() == [True, True, False, False]
