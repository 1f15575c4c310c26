"""Times that are stored in a bundle."""

import shutil
from pathlib import Path

from offramp.bundle import PartTimes, Times, open_bundle
from offramp.bundle.timed import save_times


def times_of(engine: str, ms: float) -> Times:
    part = PartTimes(file="stage-0.onnx", batch=1, median_ms=ms, high_ms=ms, repeats=3)
    return Times(engine=engine, precision="fp32", threads=2, processor="a", cores=4, parts=(part,))


def test_times_replace_those_of_the_same_set_up_and_leave_all_else(
    folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "bundle"
    shutil.copytree(folder, place)
    before = open_bundle(place)
    save_times(place, times_of("fast 1", 5))
    save_times(place, times_of("fast 2", 6))
    save_times(place, times_of("fast 1", 7))
    after = open_bundle(place)
    found = after.manifest.times
    assert found == (times_of("fast 1", 7), times_of("fast 2", 6), *before.manifest.times)
    assert after.manifest.model_copy(update={"times": before.manifest.times}) == before.manifest
    for graph in after.manifest.graphs:
        assert after.read(graph.file) == before.read(graph.file)
