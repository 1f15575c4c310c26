"""Caches of several shards: stopped, damaged, opened again."""

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.data import as_samples
from offramp.errors import BundleError, DataError
from offramp.features import Executor, FeatureCache
from offramp.features.extract import Extraction, ShardRange, extract_taps, formats
from offramp.features.moments import Moments
from offramp.features.source import TapSource
from offramp.features.store import SHARDS, VERIFIED, stats
from offramp.progress import silent

Images = tuple[Tensor, Tensor]
CPU = torch.device("cpu")


ROWS = 1100
"""A whole shard of 1024 samples, and 76 samples more."""


@pytest.fixture(scope="module")
def backbone() -> StagedBackbone:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 5))
    places: list[str | Cut] = [Cut("two", taps=("0", "1")), "3"]
    return cut(nn.Sequential(*net, nn.Linear(5, 4)), places, torch.zeros(2, 1, 5, 4))


@pytest.fixture
def many() -> Images:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, 1, 5, 4, generator=draw), torch.arange(ROWS) % 4


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the note on how the others look."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != VERIFIED}


def opened(backbone: StagedBackbone, data: Images, root: Path) -> tuple[FeatureCache, list[int]]:
    """The cache, and how many samples were done whenever a batch of taps was."""
    done: list[int] = []

    def progress(what: str, count: int, total: int) -> None:
        if what == "taps":
            done.append(count)

    return FeatureCache.of(backbone, data, root, progress=progress), done


def stop(backbone: StagedBackbone, data: Images, root: Path, after: int) -> None:
    """Interrupt an extraction once so many samples are done."""

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "taps" and done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FeatureCache.of(backbone, data, root, progress=interrupt)


def flip(path: Path, share: float) -> None:
    with path.open("rb+") as file:
        file.seek(int(share * path.stat().st_size))
        [byte] = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def shorten(path: Path, share: float) -> None:
    os.truncate(path, int(share * path.stat().st_size))


def remove(path: Path, share: float) -> None:
    path.unlink()


def test_a_stopped_extraction_resumes_after_the_last_complete_shard_to_the_same_bytes(
    backbone: StagedBackbone, many: Images, tmp_path: Path
) -> None:
    whole, _ = opened(backbone, many, tmp_path / "whole")
    stop(backbone, many, tmp_path, after=1080)
    resumed, done = opened(backbone, many, tmp_path)
    assert done[0] == 1024 + 16
    assert contents(resumed.folder) == contents(whole.folder)


def test_an_extraction_stopped_in_its_first_shard_leaves_no_files(
    backbone: StagedBackbone, many: Images, tmp_path: Path
) -> None:
    stop(backbone, many, tmp_path, after=1000)
    assert [path.name[:5] for path in tmp_path.iterdir()] == [".lock"]


def test_a_shard_that_fails_leaves_those_before_it(
    backbone: StagedBackbone, many: Images, tmp_path: Path
) -> None:
    many[0][1090] *= 1e30  # beyond fp16 at the scales that the first of these data give
    few = (many[0][:1024], many[1][:1024])
    train = FeatureCache.of(backbone, few, tmp_path / "train")
    for first in (16, 1024 + 16):
        done: list[int] = []

        def progress(what: str, count: int, total: int, done: list[int] = done) -> None:
            if what == "taps":
                done.append(count)

        with pytest.raises(DataError, match="of sample 1090 is") as caught:
            FeatureCache.of(backbone, many, tmp_path, scales_of=train, progress=progress)
        assert done[0] == first
        assert caught.value.__notes__ == ["This happened in the batch of samples 1088 to 1099."]


@pytest.mark.parametrize("file", ["0-1.bin", SHARDS])
def test_nothing_of_an_unfinished_cache_is_believed_that_is_not_whole(
    backbone: StagedBackbone, many: Images, tmp_path: Path, file: str
) -> None:
    whole, _ = opened(backbone, many, tmp_path / "whole")
    for number, harm in enumerate((flip, shorten, remove)):
        root = tmp_path / str(number)
        stopped = shutil.copytree(whole.folder, root / whole.folder.name)
        (stopped / "index.json").unlink()
        harm(stopped / file, 0.97)
        resumed, done = opened(backbone, many, root)
        assert done[0] == (16 if harm is remove else 1024 + 16)
        assert contents(resumed.folder) == contents(whole.folder)


def test_a_line_of_a_shard_that_lacks_its_end_is_not_believed(
    backbone: StagedBackbone, many: Images, tmp_path: Path
) -> None:
    whole, _ = opened(backbone, many, tmp_path)
    before = contents(whole.folder)
    shorten(whole.folder / SHARDS, 1 - 1e-9)
    assert (whole.folder / SHARDS).read_bytes() == before[SHARDS][:-1]
    resumed, done = opened(backbone, many, tmp_path)
    assert done[0] == 1024 + 16
    assert contents(resumed.folder) == before


@pytest.mark.parametrize("file", ["0-0.bin", SHARDS, "index.json"])
def test_damage_to_a_finished_cache_is_found_and_computed_again(
    backbone: StagedBackbone,
    many: Images,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    file: str,
) -> None:
    whole, _ = opened(backbone, many, tmp_path)
    before = contents(whole.folder)
    for harm in (flip, shorten, remove):
        harm(whole.folder / file, 0.97)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            again, done = opened(backbone, many, tmp_path)
        if file == "index.json":
            assert done == []
        else:
            assert done[0] == (16 if harm is remove else 1024 + 16)
            assert "is damaged" in caplog.text
            assert "will be recomputed" in caplog.text
        assert contents(again.folder) == before


READ: list[str] | None = None


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if READ is not None and event == "open" and str(arguments[0]).endswith((".bin", ".jsonl")):
        READ.append(str(arguments[0]))


sys.addaudithook(_note)


@pytest.fixture
def read() -> Iterator[list[str]]:
    """Files of taps and shards, each time one is opened."""
    global READ  # noqa: PLW0603 an audit hook cannot be removed
    READ = []
    yield READ
    READ = None


def test_a_cache_that_was_made_or_checked_is_opened_without_reading_it(
    backbone: StagedBackbone, many: Images, tmp_path: Path, read: list[str]
) -> None:
    cache, done = opened(backbone, many, tmp_path)
    assert done[-1] == ROWS
    read.clear()
    assert opened(backbone, many, tmp_path)[1] == []
    assert read == []
    os.utime(cache.folder / "0-1.bin", (1, 1))
    assert opened(backbone, many, tmp_path)[1] == []
    assert str(cache.folder / "0-1.bin") in read
    read.clear()
    assert opened(backbone, many, tmp_path)[1] == []
    assert read == []


def test_damage_that_leaves_size_and_times_alone_is_found_by_verify(
    backbone: StagedBackbone, many: Images, tmp_path: Path
) -> None:
    cache, _ = opened(backbone, many, tmp_path)
    cache.verify()
    before = contents(cache.folder)
    flip(cache.folder / "0-1.bin", 0.97)
    looks = stats(cache.folder, json.loads((cache.folder / VERIFIED).read_text()))
    (cache.folder / VERIFIED).write_text(json.dumps(looks))  # as if a disk had done it
    assert opened(backbone, many, tmp_path)[1] == []
    with pytest.raises(BundleError, match="is damaged from sample 1024 on"):
        cache.verify()
    assert opened(backbone, many, tmp_path)[1][0] == 1024 + 16
    assert contents(cache.folder) == before


def test_the_files_of_another_cache_are_not_taken_for_this_one(
    backbone: StagedBackbone, many: Images, tmp_path: Path
) -> None:
    one = FeatureCache.of(backbone, many, tmp_path)
    other = FeatureCache.of(backbone, many, tmp_path, dtype="float32")
    before = contents(one.folder)
    for path in other.folder.iterdir():
        path.replace(one.folder / path.name)
    FeatureCache.of(backbone, many, tmp_path)
    assert contents(one.folder) == before


def test_caches_of_an_earlier_version_are_named_once_and_left_alone(
    backbone: StagedBackbone, many: Images, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = tmp_path / "0123456789abcdef" / "meta.json"
    old.parent.mkdir()
    old.write_text("{}")
    opened(backbone, many, tmp_path)
    opened(backbone, many, tmp_path)
    assert caplog.text.count("an earlier version wrote are not used") == 1
    assert str(old.parent) in caplog.text
    assert old.read_text() == "{}"


class SendingExecutor(Executor):
    """Runs every unit as another machine would: from its pickle."""

    sent = 0

    def run(self, units: Iterable[Any], resources: Any) -> Iterator[Any]:
        def received() -> Iterator[Any]:
            for unit in units:
                self.sent += 1
                yield pickle.loads(pickle.dumps(unit))  # noqa: S301 our own bytes

        return super().run(received(), resources)


@pytest.mark.parametrize("threadsafe", [True, False])
def test_units_sent_elsewhere_give_the_shards_of_the_cache(
    backbone: StagedBackbone, many: Images, tmp_path: Path, threadsafe: bool
) -> None:
    cache, _ = opened(backbone, many, tmp_path)
    ranges = [ShardRange(0, 1024), ShardRange(1024, ROWS)]
    samples = as_samples(many if threadsafe else list(zip(*many, strict=True)))
    assert samples.threadsafe == threadsafe
    with ThreadPoolExecutor(2) as pool:
        executor = SendingExecutor(pool, 2)
        source = TapSource.of(backbone, backbone.cuts, CPU, executor)
        resources = Extraction(source, samples, formats(source, cache.scales(), "float16"))
        shards = list(extract_taps(ranges, resources, silent))
    assert executor.sent == -(-ROWS // 16)
    lines = (cache.folder / SHARDS).read_text().splitlines()[1:]
    recorded = [tuple(json.loads(line)["sha256"]) for line in lines]
    assert [shard.sha256 for shard in shards] == recorded
    moments = reduce(lambda before, shard: shard.moments(before), shards, None)
    assert moments is not None
    assert torch.equal(moments[0].std, cache.statistics("two")[0][1])


def test_statistics_across_shards_are_merged_in_batches_of_sixteen_bit_for_bit(
    backbone: StagedBackbone, many: Images, tmp_path: Path
) -> None:
    stop(backbone, many, tmp_path, after=1080)
    cache, _ = opened(backbone, many, tmp_path)
    scale = torch.tensor(cache.taps["3"][0].meta.scale)
    rows = np.fromfile(cache.folder / "1-0.bin", np.float16).reshape(ROWS, 5)
    parts = torch.split(torch.from_numpy(rows).float(), 16)
    expected = reduce(Moments.plus, (Moments.of(part).times(scale) for part in parts))
    [(mean, std)] = cache.statistics("3")
    assert torch.equal(mean, expected.mean)
    assert torch.equal(std, expected.std)


@pytest.mark.slow
def test_an_extraction_killed_at_twenty_moments_ends_in_the_same_bytes(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_extractions.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "20"],
        capture_output=True,
        text=True,
        check=True,
    )
    whole, *runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(runs) == 20
    assert all(run["digest"] == whole["digest"] for run in runs)
    assert all(run["killed"] for run in runs if run["kind"] != "time")
    assert {run["first"] for run in runs} > {16, 1024 + 16, 2048 + 16}
    assert all(run["left"] == [] for run in runs)
