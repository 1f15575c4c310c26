from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from offramp.errors import DataError
from offramp.features.draft import Draft, Layout
from offramp.features.extract import Shard
from offramp.features.store import StoredTap, read_index
from offramp.features.taps import (
    CacheDtype,
    TapFormat,
    TapPiece,
    by_channel,
    bytes_per_sample,
    channel_count,
    scale_for,
)


def stored(folder: Path, taps: Tensor, dtype: CacheDtype, scale: Tensor | None = None) -> StoredTap:
    """The taps written in batches of 4 and opened."""
    if scale is None:
        scale = scale_for(by_channel(taps.abs()).amax(dim=0))
    shape = tuple(taps.shape[1:])
    form = TapFormat("here", shape, scale, dtype)
    draft = Draft.begin(
        Layout(folder / "tap", {"here": (shape,)}, {"here": ("0-0.bin",)}, dtype, len(taps), 4),
        "a key",
        {"here": (scale,)},
        "as they are",
    )
    places = torch.split(torch.arange(len(taps)), 4)
    pieces = [(TapPiece.of(form, taps[rows], rows.numpy()),) for rows in places]
    draft.write([Shard.of(pieces)])
    draft.finish({})
    index = read_index(folder / "tap", "a key")
    assert index is not None
    return StoredTap(folder / "tap", index.taps["here"][0])


@pytest.mark.parametrize(
    ("peak", "scale"), [(0.0, 1.0), (1.0, 1.0), (1.01, 2.0), (0.25, 0.25), (6e4, 65536.0)]
)
def test_a_scale_is_the_power_of_two_at_or_above_the_peak(peak: float, scale: float) -> None:
    assert scale_for(torch.tensor([peak])).tolist() == [scale]


@pytest.mark.parametrize("shape", [(11, 7, 6, 4), (11, 5, 3), (11, 3), (11,)])
def test_fp16_rounds_by_at_most_half_its_last_place(tmp_path: Path, shape: tuple[int, ...]) -> None:
    taps = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 300
    tap = stored(tmp_path, taps, "float16")
    error = (by_channel(tap.read(np.arange(11))) - by_channel(taps)).abs()
    least_step = torch.tensor(tap.meta.scale) * 2**-25  # below fp16's normal range
    assert bool((error <= torch.maximum(by_channel(taps).abs() * 2**-11, least_step)).all())
    assert error.max() > 0


def test_float32_keeps_every_bit_in_any_order_of_reading(tmp_path: Path) -> None:
    taps = torch.randn(11, 7, 6, 4, generator=torch.Generator().manual_seed(0))
    order = np.array([3, 10, 0, 3])
    read = stored(tmp_path, taps, "float32", torch.ones(7)).read(order)
    torch.testing.assert_close(read, taps[torch.from_numpy(order)], rtol=0, atol=0)


def test_the_statistics_are_those_of_the_taps_as_read(tmp_path: Path) -> None:
    taps = torch.randn(11, 7, 6, 4, generator=torch.Generator().manual_seed(0)) * 5 + 20
    tap = stored(tmp_path, taps, "float16")
    rows = by_channel(tap.read(np.arange(11))).double()
    torch.testing.assert_close(torch.tensor(tap.meta.mean, dtype=torch.float64), rows.mean(dim=0))
    torch.testing.assert_close(
        torch.tensor(tap.meta.std, dtype=torch.float64), rows.std(dim=0, correction=0)
    )


def test_the_file_is_as_large_as_its_samples_together(tmp_path: Path) -> None:
    tap = stored(tmp_path, torch.ones(11, 7, 6, 4), "float16")
    assert (tap.folder / tap.meta.file).stat().st_size == tap.meta.num_bytes == 11 * 7 * 6 * 4 * 2
    assert bytes_per_sample((7, 6, 4), "float32") == 7 * 6 * 4 * 4


@pytest.mark.parametrize(("shape", "channels"), [((7, 6, 4), 7), ((6, 4), 4), ((3,), 3), ((), 1)])
def test_channels_are_axis_one_of_a_map_and_the_last_axis_else(
    shape: tuple[int, ...], channels: int
) -> None:
    assert channel_count(shape) == channels == by_channel(torch.zeros(2, *shape)).shape[1]


def test_a_value_that_fp16_cannot_hold_is_named_with_its_place(tmp_path: Path) -> None:
    taps = torch.ones(11, 7, 6, 4)
    taps[9, 3, 5, 2] = -2e6
    with pytest.raises(DataError, match=r"'here', channel 3, of sample 9 is -2e\+06.*float32"):
        stored(tmp_path, taps, "float16", torch.full((7,), 2.0))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_value_that_is_not_finite_is_named_with_its_place(
    tmp_path: Path, dtype: CacheDtype
) -> None:
    taps = torch.ones(11, 7, 6, 4)
    taps[6, 2, 0, 1] = float("nan")
    with pytest.raises(DataError, match="channel 2, of sample 6 is nan"):
        stored(tmp_path, taps, dtype, torch.ones(7))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(11, 7, 6, 4), (11, 5, 3), (11,)])
def test_rounding_in_memory_is_writing_and_reading_back_bit_for_bit(
    tmp_path: Path, shape: tuple[int, ...], dtype: CacheDtype
) -> None:
    taps = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 300
    before = taps.clone()
    tap = stored(tmp_path, taps, dtype)
    form = TapFormat("here", shape[1:], torch.tensor(tap.meta.scale), dtype)
    read, rounded = tap.read(np.arange(11)), form.rounded(taps, range(11))
    assert torch.equal(rounded, read)
    assert rounded.stride() == read.stride()
    assert torch.equal(taps, before)


def test_rounding_in_memory_names_the_sample_by_its_place_in_the_data_set() -> None:
    form = TapFormat("here", (7, 6, 4), torch.full((7,), 2.0), "float16")
    taps = torch.ones(3, 7, 6, 4)
    taps[1, 3, 5, 2] = 2e6
    with pytest.raises(DataError, match=r"'here', channel 3, of sample 40 is 2e\+06.*float32"):
        form.rounded(taps, np.array([12, 40, 7]))


@pytest.mark.parametrize("scale", [2.0**-90, 2.0**100])
def test_statistics_of_taps_near_the_ends_of_float32_are_right(
    tmp_path: Path, scale: float
) -> None:
    taps = torch.randn(11, 3, generator=torch.Generator().manual_seed(0)) * scale
    tap = stored(tmp_path, taps, "float16")
    rows = tap.read(np.arange(11)).double()
    found, expected = torch.tensor(tap.meta.std).double(), rows.std(dim=0, correction=0)
    torch.testing.assert_close(found / scale, expected / scale)
