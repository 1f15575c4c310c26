"""From a sound to the spectrogram that a backbone reads, in numpy.

Training, evaluation and the torch-free runtime all use this implementation, and its settings are
stored with the model.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from offramp.errors import DataError, ShapeError
from offramp.preprocess.mel import MelBins, mel_fault, mel_filters
from offramp.preprocess.sound import check_samples, decode_sound
from offramp.spec import Spec

Sound = bytes | NDArray[np.float32]
"""A file's content, or samples (N,) from -1 to 1 at the rate of the preprocessing."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Stft(Spec):
    """One channel: the short-time Fourier transform of a sound, as magnitudes.

    Frames are not padded: a sound of N samples has (N - window) // step + 1 of them. Each is
    multiplied by a periodic Hann window and padded by zeros to `fft` samples.

    Attributes:
        window: Length of a frame, in samples.
        step: Distance between frames, in samples.
        fft: Length of the transform, in samples, at least `window`.
        power: Whether magnitudes are squared.
        mel: Filters that sum frequencies; None keeps all `fft // 2 + 1`.
        log: Whether to take the natural logarithm, after adding `log_offset`.
        log_offset: Added before the logarithm; above 0, for silence.
    """

    window: PositiveInt
    step: PositiveInt
    fft: PositiveInt
    power: bool = False
    mel: MelBins | None = None
    log: bool = False
    log_offset: PositiveFloat = 0.01

    @model_validator(mode="after")
    def _a_frame_fits(self) -> Self:
        if self.fft < self.window:
            raise ValueError(f"fft is {self.fft}, but must be at least window, {self.window}")
        return self

    @property
    def num_bins(self) -> int:
        """Number of frequencies, or of mel filters."""
        return self.fft // 2 + 1 if self.mel is None else self.mel.count

    def num_frames(self, num_samples: int) -> int:
        """Number of frames of a sound of this many samples."""
        return max(0, (num_samples - self.window) // self.step + 1)

    def of(self, sound: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        """Spectrogram (frames, bins) of a sound (N,) with `rate` samples per second."""
        frames = np.lib.stride_tricks.sliding_window_view(sound, self.window)[:: self.step]
        spectrum = np.abs(np.fft.rfft(frames * _hann(self.window), self.fft))
        found = spectrum**2 if self.power else spectrum
        if self.mel is not None:
            found = found @ mel_filters(self.mel, self.fft, rate)
        if self.log:
            found = np.log(found + self.log_offset)
        return found.astype(np.float32)


class SpectrogramPreprocess(Spec):
    """Cut or zero-pad a sound, compute one spectrogram per channel, resize, standardise.

    Rows are time and columns are frequency, lowest first.

    Attributes:
        rate: Sampling rate, in samples per second.
        num_samples: Length of the sound: longer ones are cut at the end, shorter ones are padded.
        channels: The spectrogram of each channel.
        repeat: Number of times that all channels are repeated, such as 3 for a network that reads
            pictures.
        height: Height of the result. None keeps the frames; otherwise all channels are resized
            bilinearly, without antialiasing and without aligned corners.
        width: Width of the result; required with `height`.
        mean: One number per channel to subtract.
        std: One number per channel to divide by.
    """

    kind: Literal["spectrogram"] = "spectrogram"
    rate: PositiveInt
    num_samples: PositiveInt
    channels: tuple[Stft, ...] = Field(min_length=1)
    repeat: PositiveInt = 1
    height: PositiveInt | None = None
    width: PositiveInt | None = None
    mean: tuple[Finite, ...] = ()
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = ()

    @model_validator(mode="after")
    def _the_parts_fit(self) -> Self:
        for number, channel in enumerate(self.channels):
            if channel.num_frames(self.num_samples) == 0:
                raise ValueError(
                    f"a window of {channel.window} samples is longer than the sound of "
                    f"{self.num_samples}. Use a shorter window or more samples"
                )
            if channel.mel and (fault := mel_fault(channel.mel, channel.fft, self.rate)):
                raise ValueError(f"channels.{number}.mel {fault}")
        if (self.height is None) != (self.width is None):
            raise ValueError("give both height and width, or neither")
        if self.height is None and len({self._frames_and_bins(each) for each in self.channels}) > 1:
            raise ValueError("channels have different sizes. Give height and width")
        for name, given in (("mean", self.mean), ("std", self.std)):
            if len(given) not in (0, len(self.channels)):
                raise ValueError(
                    f"{name} has {len(given)} numbers for {len(self.channels)} channels. Give one "
                    "number per channel, or none"
                )
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the result, (C, H, W)."""
        height, width = self._frames_and_bins(self.channels[0])
        return (
            self.repeat * len(self.channels),
            height if self.height is None else self.height,
            width if self.width is None else self.width,
        )

    def __call__(self, sound: Sound) -> NDArray[np.float32]:
        """One sound, or the bytes of a file, to float32 (C, H, W).

        Raises:
            DataError: It is bytes that are not a sound, it has no samples, or samples or values of
                the result that are not finite, or samples far outside -1..1.
            ShapeError: It is not one channel of floats.
        """
        if isinstance(sound, bytes):
            sound = decode_sound(sound, self.rate)
        if sound.ndim != 1 or sound.dtype.kind != "f":
            raise ShapeError(
                f"a sound must be one channel of floats (N,), got {sound.dtype} {sound.shape}. "
                "Take the mean of the channels and scale integers to -1..1."
            )
        check_samples(sound)
        fitted = np.zeros(self.num_samples, np.float32)
        kept = sound[: self.num_samples]
        fitted[: len(kept)] = kept
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            values = self._standardised(fitted)
        if not np.isfinite(values).all():
            raise DataError(
                "its spectrogram has values that are NaN or infinite, and its largest sample is "
                f"{np.abs(fitted).max():.3g}. Scale the sound to -1..1"
            )
        return np.tile(values, (self.repeat, 1, 1))

    def _standardised(self, fitted: NDArray[np.float32]) -> NDArray[np.float32]:
        """All channels (C, H, W) of a sound of `num_samples`, not repeated."""
        made = [self._sized(channel.of(fitted, self.rate)) for channel in self.channels]
        values = np.stack(made)
        if self.mean:
            values -= np.array(self.mean, np.float32)[:, None, None]
        if self.std:
            values /= np.array(self.std, np.float32)[:, None, None]
        return values

    def batch(self, sounds: Sequence[Sound]) -> NDArray[np.float32]:
        """Several sounds to float32 (B, C, H, W)."""
        return np.stack([self(sound) for sound in sounds])

    def _frames_and_bins(self, channel: Stft) -> tuple[int, int]:
        return channel.num_frames(self.num_samples), channel.num_bins

    def _sized(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.height is None or self.width is None:
            return values
        rows = _interpolation(values.shape[0], self.height)
        columns = _interpolation(values.shape[1], self.width)
        return (rows @ values @ columns.T).astype(np.float32)


def _hann(length: int) -> NDArray[np.float64]:
    """A periodic Hann window."""
    found: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return found


def _interpolation(there: int, wanted: int) -> NDArray[np.float64]:
    """Matrix (wanted, there) of bilinear interpolation between centres of cells."""
    centres = np.clip((np.arange(wanted) + 0.5) * there / wanted - 0.5, 0, there - 1)
    first = np.floor(centres).astype(int)
    share = centres - first
    matrix = np.zeros((wanted, there))
    matrix[np.arange(wanted), first] = 1 - share
    matrix[np.arange(wanted), np.minimum(first + 1, there - 1)] += share
    return matrix


SPEECH_COMMANDS = SpectrogramPreprocess(
    rate=16_000,
    num_samples=16_000,
    channels=(Stft(window=255, step=128, fft=256),),
    repeat=3,
    height=224,
    width=224,
)
"""The paper's input from a word of Speech Commands: 124 frames of 129 bins, resized."""

VGGISH = SpectrogramPreprocess(
    rate=16_000,
    num_samples=15_600,
    channels=(
        Stft(
            window=400,
            step=160,
            fft=512,
            mel=MelBins(count=64, low_hz=125, high_hz=7500),
            log=True,
        ),
    ),
)
"""VGGish's input from 0.975 s of sound: a log-mel spectrogram 1x96x64."""

_GTZAN_MEL: dict[str, Any] = {
    "mel": MelBins(count=128),
    "power": True,
    "log": True,
    "log_offset": 1e-6,
}

GTZAN = SpectrogramPreprocess(
    rate=22_050,
    num_samples=66_150,
    channels=(
        Stft(window=512, step=256, fft=512),
        Stft(window=2205, step=1102, fft=4096, **_GTZAN_MEL),
        Stft(window=1102, step=551, fft=2048, **_GTZAN_MEL),
    ),
    height=224,
    width=224,
)
"""The paper's input from 3 s of music: magnitudes, and two mel spectrograms of 128 bins.

Their windows are 100 and 50 ms and their steps 50 and 25 ms. At 22,050 Hz that is 2205, 1102.5,
1102.5 and 551.25 samples, rounded to the nearest whole number, halves to the even one; the
transforms have the next power of two. The paper does not say whether it takes powers and
logarithms: both are taken here, with 1e-6 added, as in Palanisamy et al., which it follows. The
257 x 257, 59 x 128 and 119 x 128 values are resized bilinearly to 224 x 224 each.
"""
