from pathlib import Path

import pytest
import torch
from torch import Tensor

from offramp.backbones.staged import StagedBackbone
from offramp.data.batches import as_dataset
from offramp.errors import DataError
from offramp.features import CacheDtype, FeatureCache, start_workers
from offramp.features.extraction import TapSource, statistics_of
from offramp.progress import silent

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_statistics_without_writing_are_those_of_the_cache_bit_for_bit(
    backbone: StagedBackbone, images: tuple[Tensor, Tensor], tmp_path: Path, dtype: CacheDtype
) -> None:
    cache = FeatureCache.of(backbone, images, tmp_path, dtype=dtype)
    with start_workers(2, CPU) as workers:
        source = TapSource.of(backbone, backbone.cuts, CPU, workers)
        found = statistics_of(source, as_dataset(images), cache.scales(), dtype, silent)
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
    with start_workers(2, CPU) as workers:
        source = TapSource.of(backbone, backbone.cuts, CPU, workers)
        with pytest.raises(DataError, match=r"the tap at '1', channel \d, of sample 17 is"):
            statistics_of(source, as_dataset(images), scales, "float16", silent)
