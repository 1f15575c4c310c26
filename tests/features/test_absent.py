"""Taps of samples that lack an input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.data import as_samples
from offramp.features import FeatureCache, LiveTaps, start_executor
from offramp.features.moments import Moments

COUNT = 41
QUIET = [0, 3, *range(16, 32), 40]  # a whole batch among them
HEARD = [row for row in range(COUNT) if row not in QUIET]


class SeenAndHeard(nn.Module):
    """A picture's path and a sound's path, with a bias that zeros would show."""

    def __init__(self) -> None:
        super().__init__()
        self.see, self.hear = nn.Conv2d(3, 5, 3), nn.Linear(7, 4)
        self.answer = nn.Linear(5 + 4, 2)

    def forward(self, picture: Tensor, sound: Tensor) -> Tensor:
        seen, heard = self.see(picture), self.hear(sound)
        answer: Tensor = self.answer(torch.cat([seen.mean(dim=(2, 3)), heard], dim=1))
        return answer


class Scenes:
    """Pictures with sounds, some of which are absent."""

    def __init__(self, quiet: list[int], rows: list[int]) -> None:
        self.quiet, self.rows = quiet, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[tuple[Tensor, Tensor | None], int]:
        row = self.rows[place]
        drawn = torch.Generator().manual_seed(row)
        picture, sound = (torch.randn(s, generator=drawn) for s in ((3, 6, 4), (7,)))
        return (picture, None if row in self.quiet else sound), row % 2


@pytest.fixture(scope="module")
def backbone() -> StagedBackbone:
    torch.manual_seed(2)
    sample = torch.randn(2, 3, 6, 4), torch.randn(2, 7)
    return cut(SeenAndHeard().eval(), [Cut("pair", taps=("see", "hear"))], sample)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_absent_sounds_are_marked_and_left_out_of_the_statistics(
    backbone: StagedBackbone, tmp_path: Path, dtype: str
) -> None:
    def cache(quiet: list[int], rows: list[int]) -> FeatureCache:
        return FeatureCache.of(backbone, Scenes(quiet, rows), tmp_path, dtype=dtype)  # type: ignore[arg-type]

    rows = np.arange(COUNT)
    partly, alone = cache(QUIET, rows.tolist()), cache([], HEARD)
    seen, heard = partly.batch("pair", rows)
    assert heard[QUIET].isnan().all()
    torch.testing.assert_close(heard[HEARD], alone.batch("pair", rows[: len(HEARD)])[1])
    for ours, theirs in zip(partly.statistics("pair")[1], alone.statistics("pair")[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert seen.isfinite().all()
    partly.verify()
    again = cache(QUIET, rows.tolist())
    torch.testing.assert_close(again.batch("pair", rows)[1], heard, equal_nan=True)


def test_live_taps_are_marked_like_stored_ones(backbone: StagedBackbone, tmp_path: Path) -> None:
    scenes, cpu = Scenes(QUIET, list(range(COUNT))), torch.device("cpu")
    samples = as_samples(scenes)
    with start_executor(2, cpu) as executor:
        live = LiveTaps.of(
            backbone,
            samples,
            tmp_path / "live",
            cuts=["pair"],
            statistics=True,
            dtype="float16",
            device=cpu,
            executor=executor,
            progress=lambda *_: None,
        )
        found = live.taps(samples, np.arange(COUNT))["pair"]
    stored = FeatureCache.of(backbone, scenes, tmp_path / "cache")
    for ours, theirs in zip(found, stored.batch("pair", np.arange(COUNT)), strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)
    for one, other in zip(live.statistics("pair"), stored.statistics("pair"), strict=True):
        torch.testing.assert_close(one, other)


def test_a_set_without_any_sound_has_statistics_that_change_nothing(
    backbone: StagedBackbone, tmp_path: Path
) -> None:
    rows = list(range(1, 6))
    stored = FeatureCache.of(backbone, Scenes(list(range(COUNT)), [0, *rows]), tmp_path)
    _, (mean, std) = stored.statistics("pair")
    assert not mean.any()
    assert not std.any()


def test_moments_of_no_rows_add_nothing() -> None:
    some = Moments.of(torch.randn(5, 3))
    none = Moments.of(torch.empty(0, 3))
    for merged in (some.plus(none), none.plus(some)):
        assert merged.count == 5
        assert torch.equal(merged.std, some.std)
