import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import StagedBackbone, cut
from offramp.errors import BundleError, DataError, ShapeError
from offramp.features import FeatureCache
from offramp.features.moments import Moments

Images = tuple[Tensor, Tensor]
ALL = np.arange(19)


def expected_taps(backbone: StagedBackbone, inputs: Tensor) -> dict[str, tuple[Tensor, ...]]:
    live: tuple[Tensor, ...] = (inputs,)
    found = {}
    for name, stage in zip(backbone.cuts, list(backbone.stages)[:-1], strict=True):
        live, found[name] = stage(live)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_statistics_are_merged_in_batches_of_sixteen_bit_for_bit(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    cache = FeatureCache.of(backbone, images, tmp_path)
    scale = torch.tensor(cache.taps["1"][0].meta.scale)
    stored = torch.from_numpy(np.fromfile(cache.folder / "0-0.bin", np.float16))
    rows = stored.reshape(19, 7, 96).permute(0, 2, 1).reshape(19 * 96, 7).float()
    first, rest = (Moments.of(part).times(scale) for part in (rows[: 16 * 96], rows[16 * 96 :]))
    expected = first.plus(rest)
    [(mean, std)] = cache.statistics("1")
    assert torch.equal(mean, expected.mean)
    assert torch.equal(std, expected.std)


def test_taps_of_every_kind_and_number_are_those_of_the_stages(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    cache = FeatureCache.of(backbone, images, tmp_path, dtype="float32")
    expected = expected_taps(backbone, images[0])
    assert [len(expected[name]) for name in ("1", "two", "5")] == [1, 2, 1]
    assert expected["5"][0].shape == (19, 5)
    for name in backbone.cuts:
        # batches differ in size, and so may the last bits of a convolution
        torch.testing.assert_close(cache.batch(name, ALL), expected[name])


def test_a_second_opening_computes_nothing(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    first = FeatureCache.of(backbone, images, tmp_path)
    before = contents(first.folder)
    events: list[str] = []
    again = FeatureCache.of(
        backbone, images, tmp_path, progress=lambda *event: events.append(event[0])
    )
    assert events == []
    assert again.folder == first.folder
    assert contents(again.folder) == before


def test_the_backbone_is_not_run_past_the_last_cut_that_is_needed(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    run = []
    for place, stage in enumerate(backbone.stages):
        stage.register_forward_hook(lambda *_, place=place: run.append(place))
    FeatureCache.of(backbone, images, tmp_path, cuts=["two"])
    assert set(run) == {0, 1}


def test_the_backbone_keeps_every_bit(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    FeatureCache.of(backbone, images, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert all(value.grad is None for value in backbone.parameters())


def test_validation_taps_take_the_scales_of_training(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    train = FeatureCache.of(backbone, images, tmp_path)
    larger = (images[0] * 9, images[1])
    validation = FeatureCache.of(backbone, larger, tmp_path, scales_of=train)
    alone = FeatureCache.of(backbone, larger, tmp_path)

    def scales(cache: FeatureCache) -> tuple[float, ...]:
        return cache.taps["1"][0].meta.scale

    assert scales(validation) == scales(train) != scales(alone)
    assert validation.folder != alone.folder


def test_the_statistics_are_those_of_the_taps(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    cache = FeatureCache.of(backbone, images, tmp_path)
    [taps], [(mean, std)] = cache.batch("1", ALL), cache.statistics("1")
    torch.testing.assert_close(mean, taps.double().mean(dim=(0, 2, 3)))
    torch.testing.assert_close(std, taps.double().std(dim=(0, 2, 3), correction=0))


class Change(NamedTuple):
    backbone: StagedBackbone
    images: Images
    options: dict[str, Any]


def other_weights(given: Change) -> Change:
    model = given.backbone.original
    nn.init.ones_(model.get_parameter("0.bias"))
    return given._replace(
        backbone=cut(model, list(given.backbone.places), torch.zeros(2, 3, 12, 8))
    )


def other_image(given: Change) -> Change:
    given.images[0][5, 1, 2, 3] += 1
    return given


def other_dtype(given: Change) -> Change:
    return given._replace(options={"dtype": "float32"})


@pytest.mark.parametrize("change", [other_weights, other_image, other_dtype])
def test_anything_that_changes_taps_makes_another_cache_and_leaves_the_old(
    backbone: StagedBackbone,
    images: Images,
    tmp_path: Path,
    change: Callable[[Change], Change],
) -> None:
    old = FeatureCache.of(backbone, images, tmp_path)
    before = contents(old.folder)
    changed = change(Change(backbone, images, {}))
    new = FeatureCache.of(changed.backbone, changed.images, tmp_path, **changed.options)
    assert new.folder != old.folder
    assert contents(old.folder) == before


def test_too_little_space_is_found_before_anything_is_computed(
    backbone: StagedBackbone, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=31_415)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    events: list[str] = []
    with pytest.raises(
        DataError, match=r"needs 34,846 bytes .* only 31,415 bytes free\. Free some"
    ):
        FeatureCache.of(backbone, images, tmp_path, progress=lambda *e: events.append(e[0]))
    assert events == []


UNDER_A_LIMIT = """
import resource, sys
import torch
from torch import nn
from offramp.backbones.staged import cut
from offramp.errors import DataError
from offramp.features import FeatureCache

torch.manual_seed(0)
backbone = cut(nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU()), ["0"], torch.zeros(2, 3, 12, 8))
images = torch.randn(3000, 3, 12, 8), torch.zeros(3000, dtype=torch.int64)
few = tuple(part[:20] for part in images)
FeatureCache.of(backbone, few, sys.argv[1])
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in (100_000, 1_000_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    try:
        FeatureCache.of(backbone, images, sys.argv[1])
    except DataError as error:
        print(error)
FeatureCache.of(backbone, few, sys.argv[1], progress=lambda *event: print("not kept", event))
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
done = []
FeatureCache.of(backbone, images, sys.argv[1], progress=lambda *event: done.append(event[:2]))
print("resumed:", *done[:2])
"""


@pytest.mark.slow
def test_a_failed_write_is_one_clear_error_and_keeps_complete_shards(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-W", "error", "-c", UNDER_A_LIMIT, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    first, second, last = said.splitlines()
    assert "File too large. It needs 2.52 MB: free that much" in first
    assert "The part that was written has been removed. Other caches are untouched." in first
    assert "The taps of the first 1024 samples are kept in" in second
    assert last == "resumed: ('check of the taps', 1024) ('taps', 1040)"


def test_a_folder_that_cannot_be_made_is_a_clear_error(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BundleError, match="cannot be created"):
        FeatureCache.of(backbone, images, tmp_path / "file" / "cache")


def test_data_of_another_size_is_refused_with_both_shapes(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    with pytest.raises(ShapeError, match=r"\(\(3, 8, 8\),\).*\(\(3, 12, 8\),\)"):
        FeatureCache.of(backbone, (images[0][:, :, :8], images[1]), tmp_path)


def test_a_value_too_large_for_fp16_is_named_and_fits_float32(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    train = FeatureCache.of(backbone, images, tmp_path)
    images[0][17] *= 1e6
    with pytest.raises(DataError, match=r"the tap at '1', channel \d, of sample 17 is"):
        FeatureCache.of(backbone, images, tmp_path, scales_of=train)
    FeatureCache.of(backbone, images, tmp_path, dtype="float32")


def test_progress_counts_every_sample(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    events: list[tuple[str, int, int]] = []
    FeatureCache.of(backbone, images, tmp_path, progress=lambda *event: events.append(event))
    assert events[-1] == ("taps", 19, 19)


@pytest.mark.gpu
def test_taps_computed_on_cuda_are_close_to_the_cpu_s(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    cache = FeatureCache.of(backbone, images, tmp_path, device="cuda", dtype="float32")
    assert next(backbone.parameters()).device.type == "cpu"
    for name, taps in expected_taps(backbone, images[0]).items():
        torch.testing.assert_close(cache.batch(name, ALL), taps, rtol=1e-3, atol=1e-4)
