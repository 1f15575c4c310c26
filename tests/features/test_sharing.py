"""Caches under one root lend each other the taps that they have in common."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.data import as_samples
from offramp.features import FeatureCache, missing_bytes, sample_bytes

Images = tuple[Tensor, Tensor]
ALL = np.arange(19)


class Computed:
    """Counts the samples whose taps were computed."""

    def __init__(self) -> None:
        self.samples = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        if what == "taps":
            self.samples = max(self.samples, done)


def taps_of(cache: FeatureCache, cuts: Sequence[str]) -> list[Tensor]:
    return [tap for name in cuts for tap in cache.batch(name, ALL)]


def same(one: FeatureCache, other: FeatureCache, cuts: Sequence[str]) -> bool:
    pairs = zip(taps_of(one, cuts), taps_of(other, cuts), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_taps_of_fewer_cuts_are_those_of_a_cache_with_more(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    whole, computed = FeatureCache.of(backbone, images, tmp_path), Computed()
    part = FeatureCache.of(backbone, images, tmp_path, cuts=["1", "5"], progress=computed)
    assert computed.samples == 0
    assert part.folder == whole.folder
    assert list(part.taps) == ["1", "5"]
    assert part.origin("5") == whole.origin("5") != whole.origin("1")


def test_of_more_cuts_only_the_new_ones_are_computed_to_the_bits_of_a_fresh_cache(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    FeatureCache.of(backbone, images, tmp_path / "lent", cuts=["1"])
    more = FeatureCache.of(backbone, images, tmp_path / "lent")
    fresh = FeatureCache.of(backbone, images, tmp_path / "fresh")
    new = {path.name for path in more.found["5"].folder.glob("*.bin")}
    assert new == {"0-0.bin", "0-1.bin", "1-0.bin"}
    assert same(more, fresh, backbone.cuts)
    more.verify()


def test_validation_taps_keep_the_scales_of_training_where_caches_are_joined(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    larger = (images[0] * 9, images[1])

    def both(root: Path) -> FeatureCache:
        train = FeatureCache.of(backbone, images, root)
        return FeatureCache.of(backbone, larger, root, scales_of=train)

    first = FeatureCache.of(backbone, images, tmp_path / "lent", cuts=["two"])
    FeatureCache.of(backbone, larger, tmp_path / "lent", cuts=["two"], scales_of=first)
    assert same(both(tmp_path / "lent"), both(tmp_path / "fresh"), backbone.cuts)


def test_a_cut_after_another_new_cut_has_other_taps(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    places = [place for place in backbone.places if place.name != "1"]
    alone = cut(backbone.original, places, torch.zeros(2, 3, 12, 8))
    FeatureCache.of(alone, images, tmp_path)
    computed = Computed()
    FeatureCache.of(backbone, images, tmp_path, cuts=["5"], progress=computed)
    assert computed.samples == 19


def test_a_damaged_cache_lends_nothing(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    whole = FeatureCache.of(backbone, images, tmp_path)
    expected = taps_of(whole, ["two"])
    file = whole.folder / "1-0.bin"
    file.write_bytes(bytes(file.stat().st_size))
    again = FeatureCache.of(backbone, images, tmp_path, cuts=["two"])
    assert again.folder != whole.folder
    assert all(map(torch.equal, taps_of(again, ["two"]), expected))


def test_a_copied_cache_is_read_once_and_then_lends_its_taps(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    whole, computed = FeatureCache.of(backbone, images, tmp_path), Computed()
    file = whole.folder / "0-0.bin"
    file.write_bytes(file.read_bytes())  # another time of change, the same bytes
    told: list[str] = []
    for _ in range(2):
        part = FeatureCache.of(
            backbone, images, tmp_path, cuts=["1"], progress=lambda what, *_: told.append(what)
        )
        assert part.folder == whole.folder
    assert told == ["check of the taps"]
    assert computed.samples == 0


def test_processes_that_need_the_same_taps_compute_them_once(
    backbone: StagedBackbone, images: Images, tmp_path: Path
) -> None:
    counts = [Computed() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        caches = list(
            pool.map(
                lambda count: FeatureCache.of(
                    backbone, images, tmp_path, threads=1, progress=count
                ),
                counts,
            )
        )
    assert sorted(count.samples for count in counts) == [0, 0, 19]
    assert len({cache.folder for cache in caches}) == 1


@pytest.mark.parametrize(("cuts", "values"), [(["1"], 5 * 6 * 4 * 2 + 5), ([], 7 * 96 + 245)])
def test_the_size_still_to_be_written_is_exact(
    backbone: StagedBackbone, images: Images, tmp_path: Path, cuts: list[str], values: int
) -> None:
    data = as_samples(images)
    if cuts:
        FeatureCache.of(backbone, images, tmp_path, cuts=cuts)
    left = missing_bytes(
        backbone,
        data,
        data,
        tmp_path,
        cuts=backbone.cuts,
        dtype="float16",
        device=torch.device("cpu"),
    )
    assert left == 2 * 19 * values * 2
    FeatureCache.of(backbone, images, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*.bin")) == 19 * 917 * 2


class Seen(torch.nn.Module):
    """A place that two cuts read, once alone and once with a later one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.look = torch.nn.Conv2d(3, 5, 3)
        self.more = torch.nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.more(self.look(x)).mean((2, 3))  # type: ignore[no-any-return]


def test_a_tensor_that_is_a_tap_of_two_cuts_is_stored_once(tmp_path: Path) -> None:
    pictures, labels = torch.randn(19, 3, 6, 7), torch.zeros(19, dtype=torch.long)
    cuts: list[str | Cut] = ["look", Cut("both", taps=("look", "more"))]
    shared = cut(Seen(), cuts, pictures[:2])
    alone = cut(Seen(), [Cut("both", taps=("look", "more"))], pictures[:2])
    cache = FeatureCache.of(shared, (pictures, labels), tmp_path / "shared")
    assert {path.name for path in cache.folder.glob("*.bin")} == {"0-0.bin", "1-1.bin"}
    once = FeatureCache.of(alone, (pictures, labels), tmp_path / "alone")
    assert same(cache, once, ["both"])
    assert torch.equal(cache.batch("look", ALL)[0], cache.batch("both", ALL)[0])
    torch.testing.assert_close(cache.statistics("both"), once.statistics("both"), rtol=0, atol=0)
    cache.verify()
    size = sum(path.stat().st_size for path in cache.folder.glob("*.bin"))
    assert size == 19 * sample_bytes(shared, ["look", "both"], "float16") == 19 * 2 * (5 + 4) * 20
    again = Computed()
    FeatureCache.of(shared, (pictures, labels), tmp_path / "shared", progress=again)
    assert again.samples == 0
