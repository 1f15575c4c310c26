"""Spectrograms, compared with torch and Keras, which compute them in their own ways."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from offramp.errors import DataError, ShapeError
from offramp.preprocess.mel import MelBins, mel_filters
from offramp.preprocess.spectrogram import (
    GTZAN,
    SPEECH_COMMANDS,
    VGGISH,
    SpectrogramPreprocess,
    Stft,
)


def noise(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(scale=0.1, size=count).astype(np.float32)


@pytest.mark.parametrize(
    ("window", "step", "fft"), [(255, 128, 256), (400, 160, 512), (64, 64, 64)]
)
def test_the_transform_is_torchs_without_padding(window: int, step: int, fft: int) -> None:
    sound = noise(3000)
    frames = torch.from_numpy(sound).unfold(0, window, step) * torch.hann_window(window)
    expected = torch.fft.rfft(frames, fft).abs().numpy()
    channel = Stft(window=window, step=step, fft=fft)
    found = channel.of(sound, 16_000)
    assert found.shape == (channel.num_frames(3000), channel.num_bins)
    assert np.allclose(found, expected, atol=1e-5)


def test_a_tone_is_loudest_at_its_frequency() -> None:
    rate, hz = 16_000, 3_000
    tone = np.sin(2 * np.pi * hz * np.arange(rate) / rate).astype(np.float32)
    found = Stft(window=512, step=256, fft=512).of(tone, rate)
    assert set(found.argmax(axis=1)) == {hz * 512 // rate}


def test_power_and_logarithm_are_taken_in_this_order() -> None:
    sound = noise(600)
    plain = Stft(window=64, step=32, fft=64).of(sound, 8000)
    changed = Stft(window=64, step=32, fft=64, power=True, log=True, log_offset=0.5).of(sound, 8000)
    assert np.allclose(changed, np.log(plain.astype(float) ** 2 + 0.5), atol=1e-5)


def test_speech_commands_are_124_frames_of_129_bins_resized_as_torch_does() -> None:
    [channel] = SPEECH_COMMANDS.channels
    sound = noise(16_000)
    plain = channel.of(sound, 16_000)
    assert plain.shape == (124, 129)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(plain)[None, None], (224, 224), mode="bilinear", align_corners=False
    )
    found = SPEECH_COMMANDS(sound)
    assert found.shape == SPEECH_COMMANDS.shape == (3, 224, 224)
    assert np.allclose(found[0], resized[0, 0].numpy(), atol=1e-4)
    assert np.array_equal(found[0], found[2])


def test_vggish_reads_96_frames_of_64_bins() -> None:
    assert VGGISH.shape == (1, 96, 64)
    silence = VGGISH(np.zeros(100, np.float32))
    assert np.allclose(silence, np.log(0.01))


def test_gtzan_has_the_papers_windows_and_steps_in_whole_samples() -> None:
    plain, *mels = GTZAN.channels
    assert (plain.window, plain.step, plain.mel) == (512, 256, None)
    exact = [(0.1, 0.05), (0.05, 0.025)]
    for mel, (window, step) in zip(mels, exact, strict=True):
        assert (mel.window, mel.step) == (round(window * GTZAN.rate), round(step * GTZAN.rate))
        assert mel.fft // 2 < mel.window <= mel.fft
        assert mel_filters(MelBins(count=128), mel.fft, GTZAN.rate).sum(axis=0).min() > 0
    frames = [each.num_frames(GTZAN.num_samples) for each in GTZAN.channels]
    assert frames == [257, 59, 119]
    assert [each.num_bins for each in GTZAN.channels] == [257, 128, 128]


def test_gtzan_resizes_each_channel_as_torch_does() -> None:
    sound = noise(GTZAN.num_samples)
    found = GTZAN(sound)
    assert found.shape == (3, 224, 224)
    for channel, made in zip(GTZAN.channels, found, strict=True):
        frames = torch.from_numpy(sound).unfold(0, channel.window, channel.step)
        values = torch.fft.rfft(frames * torch.hann_window(channel.window), channel.fft).abs()
        if channel.mel is not None:
            filters = torch.tensor(mel_filters(channel.mel, channel.fft, GTZAN.rate)).float()
            values = (values**2 @ filters + 1e-6).log()
        resized = torch.nn.functional.interpolate(
            values[None, None], (224, 224), mode="bilinear", align_corners=False
        )
        assert np.allclose(made, resized[0, 0].numpy(), atol=1e-3)


@pytest.mark.parametrize("hz", [220, 1760, 7040])
def test_gtzan_shows_a_tone_at_the_same_mel_in_both_resolutions(hz: int) -> None:
    tone = np.sin(2 * np.pi * hz * np.arange(GTZAN.num_samples) / GTZAN.rate).astype(np.float32)
    places = np.linspace(0, 2595 * np.log10(1 + GTZAN.rate / 2 / 700), 130)[1:-1]
    expected = np.abs(places - 2595 * np.log10(1 + hz / 700)).argmin()
    for channel in GTZAN.channels[1:]:
        assert {*channel.of(tone, GTZAN.rate).argmax(axis=1).tolist()} == {expected}


def test_a_short_sound_is_padded_by_zeros_and_a_long_one_is_cut_at_its_end() -> None:
    sound = noise(20_000)
    assert np.array_equal(SPEECH_COMMANDS(sound), SPEECH_COMMANDS(sound[:16_000]))
    padded = np.concatenate([sound[:9_000], np.zeros(7_000, np.float32)])
    assert np.array_equal(SPEECH_COMMANDS(sound[:9_000]), SPEECH_COMMANDS(padded))


def test_several_channels_are_standardised_each_by_its_own_numbers() -> None:
    short, long = Stft(window=50, step=25, fft=64), Stft(window=100, step=50, fft=128)
    facts: dict[str, Any] = {"rate": 8_000, "num_samples": 4_000, "height": 20, "width": 30}
    plain = SpectrogramPreprocess(channels=(short, long), **facts)
    scaled = SpectrogramPreprocess(channels=(short, long), mean=(1, 2), std=(2, 4), **facts)
    sound = noise(4_000)
    expected = (plain(sound) - np.array([1, 2])[:, None, None]) / np.array([2, 4])[:, None, None]
    assert np.allclose(scaled(sound), expected, atol=1e-6)
    assert np.array_equal(scaled.batch([sound, sound])[1], scaled(sound))


@pytest.mark.parametrize(
    "sound", [np.zeros((2, 100), np.float32), np.zeros(100, np.int16), np.zeros((), np.float32)]
)
def test_a_sound_that_is_not_one_channel_of_floats_is_refused(sound: Any) -> None:
    with pytest.raises(ShapeError, match=r"one channel of floats .*scale integers"):
        VGGISH(sound)


def test_a_spectrogram_that_is_not_finite_is_refused() -> None:
    channel = Stft(window=64, step=32, fft=64, power=True)
    facts: dict[str, Any] = {"rate": 8_000, "num_samples": 900, "std": (1e-46,)}
    chain = SpectrogramPreprocess(channels=(channel,), **facts)
    with pytest.raises(DataError, match=r"NaN or infinite, .*largest sample is [\d.e+]+\. Scale"):
        chain(noise(900))


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (np.zeros(0), "it decodes to no samples at all"),
        (np.full(900, np.nan), "it holds values that are not finite"),
        (30_000 * noise(900), r"the largest is [\d,]+\. Divide by 32768"),
    ],
    ids=["empty", "not finite", "on the scale of integers"],
)
def test_samples_that_are_no_sound_are_refused(sound: NDArray[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        VGGISH(sound.astype(np.float32))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_samples": 200}, "a window of 255 samples is longer than the sound of 200"),
        ({"width": None}, "both height and width, or neither"),
        ({"mean": (1, 2)}, "mean has 2 numbers for 1 channels"),
        ({"channels": ()}, "channels"),
        (
            {
                "height": None,
                "width": None,
                "channels": [Stft(window=9, step=9, fft=9), Stft(window=9, step=8, fft=9)],
            },
            "channels have different sizes",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(changed: dict[str, Any], message: str) -> None:
    given = {**SPEECH_COMMANDS.model_dump(), **changed}
    with pytest.raises(ValueError, match=message):
        SpectrogramPreprocess.model_validate(given)


def test_mel_filters_are_checked_at_the_rate_of_the_chain() -> None:
    plain, *mels = GTZAN.model_dump()["channels"]
    mels[1]["mel"] = {"count": 128, "high_hz": 12_000}
    given = {**GTZAN.model_dump(), "channels": [plain, *mels]}
    with pytest.raises(ValueError, match=r"channels\.2\.mel has high_hz 12000, .* 11025 Hz"):
        SpectrogramPreprocess.model_validate(given)


def test_a_transform_shorter_than_its_window_is_refused() -> None:
    with pytest.raises(ValueError, match="at least window, 400"):
        Stft(window=400, step=160, fft=256)


def test_the_settings_are_read_back_from_json() -> None:
    text = VGGISH.model_dump_json()
    assert SpectrogramPreprocess.model_validate_json(text) == VGGISH
