import json
from pathlib import Path

import pytest

from offramp.data.augment import Augment
from offramp.errors import PlanError
from offramp.training.mode import (
    FILE,
    Allowed,
    Mode,
    Needs,
    choose_mode,
    recall_mode,
    remember_mode,
)
from offramp.training.settings import How

NEEDS = Needs(disk=7_000_000_000, memory=3_000_000_000)
FRESH, STORED = Augment(flip=True), Augment(flip=True, views=3)


def gigabytes(disk: float, memory: float) -> Allowed:
    return Allowed(int(disk * 1e9), int(memory * 1e9))


@pytest.mark.parametrize(
    ("disk", "memory", "how", "reason"),
    [
        (7, 0, "cached", "the taps take 7 GB of the 7 GB allowed on disk"),
        (6.9, 3, "fused", "the taps would take 7 GB on disk, but only 6.9 GB is allowed"),
    ],
)
def test_auto_caches_where_the_disk_allows_it(
    disk: float, memory: float, how: How, reason: str
) -> None:
    mode = choose_mode("auto", NEEDS, gigabytes(disk, memory), None)
    assert mode.how == how
    assert reason in mode.reason


def test_auto_says_what_to_do_where_neither_disk_nor_memory_is_enough() -> None:
    with pytest.raises(PlanError, match=r"3 GB of memory, but only 2.9 GB is allowed. Train fewer"):
        choose_mode("auto", NEEDS, gigabytes(6, 2.9), None)


@pytest.mark.parametrize("how", ["cached", "fused"])
def test_an_explicit_mode_is_used_regardless_of_the_limits(how: How) -> None:
    assert choose_mode(how, NEEDS, gigabytes(0, 0), STORED).how == how


def test_fresh_views_are_never_cached() -> None:
    assert choose_mode("auto", NEEDS, gigabytes(99, 99), FRESH).how == "fused"
    assert choose_mode("auto", NEEDS, gigabytes(99, 99), STORED).how == "cached"
    with pytest.raises(PlanError, match="views=4"):
        choose_mode("cached", NEEDS, gigabytes(99, 99), FRESH)


def test_a_mode_once_taken_is_remembered_for_the_same_job_alone(tmp_path: Path) -> None:
    job = {"bytes": 3, "cuts": ["a"]}
    assert recall_mode(tmp_path, job) is None
    remember_mode(tmp_path, job, Mode("fused", "because"))
    assert recall_mode(tmp_path, job) == Mode("fused", "because")
    assert recall_mode(tmp_path, job | {"bytes": 4}) is None
    (tmp_path / FILE).write_text(json.dumps({"how": "fused"})[:-3])
    assert recall_mode(tmp_path, job) is None


def test_limits_that_are_not_given_come_from_the_machine(tmp_path: Path) -> None:
    assert Allowed.here(tmp_path, 1.5, 0.25) == gigabytes(1.5, 0.25)
    here = Allowed.here(tmp_path, None, None)
    assert here.disk > 0
    assert here.memory > 0
