from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from offramp.data.images.pictures import PictureArray
from offramp.data.prepared import PreparedSource, Raw, joined_digests
from offramp.data.samples import Samples
from offramp.errors import ShapeError
from offramp.preprocess import ImagePreprocess, SpectrogramPreprocess
from offramp.preprocess.spectrogram import Stft

PICTURE = ImagePreprocess(height=6, width=4, mean=(0.5,) * 3, std=(0.5,) * 3)
SOUND = SpectrogramPreprocess(
    rate=8000, num_samples=70, channels=(Stft(window=16, step=6, fft=16),)
)


class Sounds:
    in_files = False

    def __init__(self, sounds: Sequence[NDArray[np.float32]]) -> None:
        self._sounds = sounds
        self.digests = np.array([f"{number:064d}" for number in range(len(sounds))])

    def __len__(self) -> int:
        return len(self._sounds)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        return self._sounds[index]


def source(pictures: int = 5, sounds: int = 5) -> PreparedSource:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (pictures, 9, 7, 3), np.uint8)
    heard = [rng.uniform(-1, 1, 70).astype(np.float32) for _ in range(sounds)]
    raw: list[Raw] = [PictureArray(pixels), Sounds(heard)]
    return PreparedSource(raw, np.arange(5), [PICTURE, SOUND])


def test_each_input_is_prepared_by_its_own_settings() -> None:
    found = source().read(np.array([3, 1]))
    assert source().input_shapes == ((3, 6, 4), (1, 10, 9))
    assert [tuple(values.shape) for values in found.inputs] == [(2, 3, 6, 4), (2, 1, 10, 9)]
    one = source()
    expected = SOUND(one.raw[1][3])
    assert np.array_equal(found.inputs[1][0].numpy(), expected)


def test_inputs_of_different_number_are_refused() -> None:
    with pytest.raises(ShapeError, match="4 pictures or sounds come with 5 labels"):
        source(sounds=4)


def test_the_content_of_every_input_is_in_the_key() -> None:
    keys = {Samples.of(source()).content_key}
    one = source()
    one.raw[1].digests[2] = "other"
    keys.add(Samples.of(one).content_key)
    assert len(keys) == 2


def test_one_column_of_digests_stays_as_it_is() -> None:
    column = np.array(["a", "b"])
    assert joined_digests([column]) is column
    assert len({*joined_digests([column, column]), *column}) == 4
