import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from offramp.backbones.staged import StagedBackbone
from offramp.data import Batch, as_samples
from offramp.errors import DataError
from offramp.features import CacheDtype, FeatureCache, start_executor
from offramp.features.extract import statistics_of
from offramp.features.source import TapSource
from offramp.progress import silent

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_statistics_without_writing_are_those_of_the_cache_bit_for_bit(
    backbone: StagedBackbone, images: tuple[Tensor, Tensor], tmp_path: Path, dtype: CacheDtype
) -> None:
    cache = FeatureCache.of(backbone, images, tmp_path, dtype=dtype)
    with start_executor(2, CPU) as workers:
        source = TapSource.of(backbone, backbone.cuts, CPU, workers)
        found = statistics_of(source, as_samples(images), cache.scales(), dtype, silent)
    assert set(found) == set(backbone.cuts)
    for name in backbone.cuts:
        for here, there in zip(found[name], cache.statistics(name), strict=True):
            assert all(map(torch.equal, here, there))
            assert not any(values.is_inference() for values in here)


def test_statistics_refuse_what_a_cache_could_not_hold(
    backbone: StagedBackbone, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    scales = FeatureCache.of(backbone, images, tmp_path).scales()
    images[0][17] *= 1e6
    with start_executor(2, CPU) as workers:
        source = TapSource.of(backbone, backbone.cuts, CPU, workers)
        with pytest.raises(DataError, match=r"the tap at '1', channel \d, of sample 17 is"):
            statistics_of(source, as_samples(images), scales, "float16", silent)


class Noted:
    """A user's data set that notes the threads which read it."""

    def __init__(self, images: tuple[Tensor, Tensor]) -> None:
        self.images, self.threads = images, set[int]()

    def __len__(self) -> int:
        return len(self.images[1])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.threads.add(threading.get_ident())
        return self.images[0][index], int(self.images[1][index])


def test_a_user_s_data_set_is_read_in_the_thread_that_asked(
    backbone: StagedBackbone, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    data = Noted(images)
    FeatureCache.of(backbone, data, tmp_path, threads=3)
    assert data.threads == {threading.get_ident()}


@pytest.mark.parametrize("own", [True, False])
def test_any_number_of_workers_writes_the_same_bytes_from_either_kind_of_data(
    backbone: StagedBackbone, images: tuple[Tensor, Tensor], tmp_path: Path, own: bool
) -> None:
    one = FeatureCache.of(backbone, images, tmp_path / "1", threads=1)
    many = FeatureCache.of(backbone, images if own else Noted(images), tmp_path / "3", threads=3)
    for path in one.folder.glob("*.bin"):
        assert (many.folder / path.name).read_bytes() == path.read_bytes()
    assert [tap.meta for taps in many.taps.values() for tap in taps] == [
        tap.meta for taps in one.taps.values() for tap in taps
    ]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_batches_come_in_order_wherever_they_are_read(
    backbone: StagedBackbone, images: tuple[Tensor, Tensor], device: str
) -> None:
    order = np.random.default_rng(0).integers(19, size=300)
    with start_executor(3, CPU) as workers:
        source = replace(
            TapSource.of(backbone, backbone.cuts, CPU, workers), device=torch.device(device)
        )
        found = list(source.stream(lambda batch: batch.rows, as_samples(images), order))
    assert np.concatenate([rows for rows, _ in found]).tolist() == order.tolist()
    assert [done for _, done in found] == [*range(source.batch_size, 300, source.batch_size), 300]


@pytest.mark.parametrize("own", [True, False])
def test_a_sample_that_is_not_finite_is_named_whoever_reads_it(
    backbone: StagedBackbone, images: tuple[Tensor, Tensor], tmp_path: Path, own: bool
) -> None:
    images[0][17, 1, 2, 3] = float("inf")
    with pytest.raises(DataError, match=r"sample 17 .*holds NaN or infinite"):
        FeatureCache.of(backbone, images if own else Noted(images), tmp_path)


def test_stopping_leaves_the_rest_unread(
    backbone: StagedBackbone, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    read: list[int] = []
    many = images[0].repeat(50, 1, 1, 1), images[1].repeat(50)

    def count(batch: Batch) -> None:
        read.append(len(batch.rows))

    with start_executor(2, CPU) as workers:
        source = TapSource.of(backbone, backbone.cuts, CPU, workers)
        for _ in source.stream(count, as_samples(many), np.arange(950)):
            break
    assert sum(read) <= (workers.ahead + 1) * source.batch_size < 950


def test_a_source_on_another_device_has_everything_there(
    backbone: StagedBackbone, images: tuple[Tensor, Tensor]
) -> None:
    meta = torch.device("meta")
    with start_executor(None, meta) as executor:
        source = TapSource.of(backbone, backbone.cuts, meta, executor)
        found = source.taps((images[0],))
        assert executor.count == 1
    tensors = [value for stage in source.stages for value in stage.state_dict().values()]
    tensors += [tap for taps in found.values() for tap in taps]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert [tuple(tap.shape[1:]) for tap in found["two"]] == list(source.shapes["two"])
    assert {value.device.type for value in backbone.state_dict().values()} == {"cpu"}


def test_a_sample_overwritten_after_the_key_was_made_is_refused_and_nothing_is_kept(
    backbone: StagedBackbone, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    def overwrite(what: str, done: int, total: int) -> None:
        images[0][18] += 1  # once the scales were found, from the same key

    with pytest.raises(DataError, match="sample 18 has changed since"):
        FeatureCache.of(backbone, images, tmp_path, progress=overwrite)
    assert [path.name[:5] for path in tmp_path.iterdir()] == [".lock"]


class Unreadable(Noted):
    """Cannot read its last sample."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == len(self) - 1:
            raise RuntimeError("not on this disk")
        return super().__getitem__(index)


def test_an_error_of_the_data_set_names_the_samples_that_were_read(
    backbone: StagedBackbone, images: tuple[Tensor, Tensor]
) -> None:
    data = as_samples(Unreadable(images))
    with start_executor(2, CPU) as executor:
        source = TapSource.of(backbone, backbone.cuts, CPU, executor)
        with pytest.raises(RuntimeError) as caught:
            list(source.stream(lambda batch: batch.rows, data, np.arange(19)))
    assert caught.value.__notes__ == ["This happened in the batch of samples 16 to 18."]
