"""A cache that calls share."""

from collections.abc import Callable
from pathlib import Path

from offramp.branches import ConvBranch, SLViT
from offramp.multiexit.model import MultiExit
from offramp.training.mode import Allowed, Needs, choose_mode

Fit = Callable[..., MultiExit]


def test_calls_on_different_branches_share_the_taps_of_their_cut(fit: Fit, tmp_path: Path) -> None:
    told: list[str] = []

    def call(out: str, **branches: object) -> None:
        told.clear()
        fit(
            branches,
            out=tmp_path / out,
            cache=tmp_path / "taps",
            epochs=1,
            progress=lambda what, *_: told.append(what),
        )

    call("one", **{"2": [ConvBranch(filters=3)], "4": [ConvBranch(filters=3)]})
    assert any(what.startswith("taps of") for what in told)
    before = {path: path.read_bytes() for path in (tmp_path / "taps").glob("*/*")}
    call("two", **{"4": [SLViT(patch=2, dim=4, heads=1)]})
    assert not any(what.startswith(("taps of", "scales of")) for what in told)
    assert any("training 2 branches" in what for what in told)
    assert {path: path.read_bytes() for path in (tmp_path / "taps").glob("*/*")} == before
    assert not (tmp_path / "one" / "cache").exists()


def test_taps_that_are_there_count_nothing_against_the_disk_allowed() -> None:
    needs = Needs(disk=7_000_000_000, memory=9_000_000_000, there=6_000_000_000)
    mode = choose_mode("auto", needs, Allowed(1_000_000_000, 0), None)
    assert mode.how == "cached"
    assert "7 GB (6 GB are written already)" in mode.reason


def test_auto_chooses_by_the_free_disk_and_memory(fit: Fit, tmp_path: Path) -> None:
    fit(out=tmp_path / "one", cache=tmp_path / "taps", epochs=1)
    told: list[str] = []
    fit(
        out=tmp_path / "two",
        cache=tmp_path / "taps",
        epochs=1,
        disk_gb=0,
        progress=lambda what, *_: told.append(what),
    )
    assert told[0].startswith("training cached")
