import os
from pathlib import Path

import pytest

from offramp.runtime.engines.cores import usable_cores


@pytest.fixture
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def kernel(folder: Path, siblings: list[str], quota: str | None = None) -> Path:
    for number, listed in enumerate(siblings):
        topology = folder / f"devices/system/cpu/cpu{number}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{listed}\n")
    if quota is not None:
        (folder / "fs/cgroup").mkdir(parents=True)
        (folder / "fs/cgroup/cpu.max").write_text(f"{quota}\n")
    return folder


@pytest.mark.usefixtures("eight_processors")
def test_two_hyperthreads_are_one_core(tmp_path: Path) -> None:
    pairs = [f"{number % 4},{number % 4 + 4}" for number in range(8)]
    assert usable_cores(kernel(tmp_path, pairs)) == 4


@pytest.mark.usefixtures("eight_processors")
def test_processors_are_cores_where_the_kernel_tells_nothing(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 8


@pytest.mark.usefixtures("eight_processors")
@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("250000 100000", 3), ("20000 100000", 1)]
)
def test_a_quota_of_the_container_is_kept(tmp_path: Path, quota: str, cores: int) -> None:
    assert usable_cores(kernel(tmp_path, [], quota)) == cores


def test_this_machine_has_a_core() -> None:
    assert usable_cores() >= 1
