"""Mel filters, compared with those of Keras."""

from typing import Any

import numpy as np
import pytest
import torch

from offramp.preprocess.mel import MelBins, mel_fault, mel_filters


@pytest.mark.parametrize(
    ("bins", "fft", "rate"),
    [
        (MelBins(count=64, low_hz=125, high_hz=7500), 512, 16_000),
        (MelBins(count=20), 256, 8_000),
        (MelBins(count=128), 4096, 22_050),
        (MelBins(count=128), 2048, 22_050),
    ],
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_mel_filters_are_those_of_keras(
    monkeypatch: pytest.MonkeyPatch, bins: MelBins, fft: int, rate: int
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras: Any = pytest.importorskip("keras")
    layer = keras.layers.MelSpectrogram(fft_length=fft)
    expected = layer.linear_to_mel_weight_matrix(
        num_mel_bins=bins.count,
        num_spectrogram_bins=fft // 2 + 1,
        sampling_rate=rate,
        lower_edge_hertz=bins.low_hz,
        upper_edge_hertz=bins.high_hz or rate / 2,
    )
    assert np.allclose(mel_filters(bins, fft, rate), torch.as_tensor(expected).numpy(), atol=1e-4)


def test_mel_filters_are_computed_once_and_cannot_be_changed() -> None:
    found = mel_filters(MelBins(count=7), 64, 8_000)
    assert mel_filters(MelBins(count=7), 64, 8_000) is found
    assert not np.array_equal(mel_filters(MelBins(count=7, low_hz=90), 64, 8_000), found)
    with pytest.raises(ValueError, match="read-only"):
        found[1] = 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low_hz": 5000, "high_hz": 4000}, "has low_hz 5000, but must start below high_hz, 4000"),
        ({"low_hz": 3000, "high_hz": 3000}, "has low_hz 3000, but must start below high_hz, 3000"),
        ({"low_hz": 4000}, "has low_hz 4000, but must start below half of `rate`, 4000 Hz"),
        ({"high_hz": 6000}, "has high_hz 6000, but must end at half of `rate` at most, 4000 Hz"),
    ],
)
def test_filters_end_above_their_start_and_below_half_the_rate(
    settings: dict[str, Any], message: str
) -> None:
    assert mel_fault(MelBins(count=7, **settings), 256, 8_000).startswith(message)


def test_empty_filters_are_counted_with_settings_that_leave_none() -> None:
    bins = MelBins(count=128, low_hz=100, high_hz=4_000)
    assert mel_fault(bins, 256, 8_000) == (
        "leaves 4 of 128 filters without any of the transform's frequencies, which are 31.2 Hz "
        "apart, and an empty filter gives a constant column. Set fft to 512 or count to 101, or "
        "allow_empty to true if the network was trained with them"
    )
    assert mel_fault(bins, 512, 8_000) == ""
    assert mel_fault(bins.model_copy(update={"count": 101}), 256, 8_000) == ""


@pytest.mark.parametrize(("count", "fft", "low"), [(128, 256, 100), (20, 48, 0), (190, 256, 700)])
def test_an_empty_filter_is_one_without_a_weight(count: int, fft: int, low: float) -> None:
    bins = MelBins(count=count, low_hz=low)
    empty = int((mel_filters(bins, fft, 8_000) == 0).all(axis=0).sum())
    assert empty > 0
    assert mel_fault(bins, fft, 8_000).startswith(f"leaves {empty} of {count} filters")


def test_empty_filters_are_kept_for_a_network_that_was_trained_with_them() -> None:
    ast = MelBins(count=128, low_hz=20, high_hz=8_000)  # Gong et al. 2021
    assert mel_fault(ast, 512, 16_000).startswith("leaves 1 of 128 filters")
    assert mel_fault(ast.model_copy(update={"allow_empty": True}), 512, 16_000) == ""


def test_filters_that_are_all_empty_are_never_allowed() -> None:
    bins = MelBins(count=3, low_hz=1_001, high_hz=1_002, allow_empty=True)
    assert mel_fault(bins, 256, 8_000).endswith("constant column. Set fft to 16384")
    closer = bins.model_copy(update={"high_hz": 1_001.01})
    assert mel_fault(closer, 256, 8_000).endswith("Set low_hz and high_hz further apart")
