"""A bench of the toy bundle, by a clock of its own."""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from offramp.bundle import Bundle, open_bundle
from offramp.errors import PlanError
from offramp.policy import ExitPolicy, find_score
from offramp.runtime.bench import bench_bundle
from offramp.runtime.bench.result import Bench
from offramp.runtime.runtime import Runtime
from offramp.storage.folder import changing, read_folder
from offramp.storage.manifest import BUNDLE


def ticking() -> Callable[[], float]:
    """A clock on which everything takes a millisecond."""
    now = itertools.count()
    return lambda: next(now) / 1000


def benched(bundle: Path | Bundle, **settings: object) -> Bench:
    given = {"cold": False, "batches": (1, 3), "repeats": 4, "clock": ticking(), "threads": 1}
    return bench_bundle(bundle, **(given | settings))  # type: ignore[arg-type]


def test_without_a_policy_every_exit_is_timed_and_shares_are_equal(folder: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    found = benched(folder, progress=lambda *what: seen.append(what))
    assert [row.name for row in found.exits] == ["one", "second", "final"]
    assert [row.share for row in found.exits] == [pytest.approx(1 / 3)] * 3
    assert found.mix_from == "assumed to be equal"
    assert [row.took.median_ms for row in found.exits] == [pytest.approx(1.0)] * 3
    assert found.exits[-1].flops_share == found.exits[-1].time_share == 1
    assert found.staged_ratio == pytest.approx(1.0)
    assert [row.batch for row in found.throughput] == [1, 3]
    assert [row.whole for row in found.throughput] == pytest.approx([1000, 3000])
    assert {what for what, _, _ in seen} == {
        "latency of each exit",
        "throughput of each batch size",
    }
    assert not found.verdict.pays
    assert found.exits[0].remark == "no: a later exit is not slower"


def test_a_bench_reads_as_tables_and_as_json(folder: Path) -> None:
    found = benched(folder)
    text = str(found)
    assert "with passed" in text
    assert "Samples per second" in text
    assert text.endswith(f"{found.verdict.sentence[1:]}.")
    content = json.loads(json.dumps(found.as_json()))
    assert content["verdict"]["pays"] is False
    assert content["exits"][0]["took"] == pytest.approx({"median_ms": 1.0, "p95_ms": 1.0})


def test_an_exit_that_the_policy_disables_is_timed_but_not_asked(folder: Path) -> None:
    bundle = open_bundle(folder)
    policy = ExitPolicy(
        score=find_score("margin"), names=bundle.manifest.facts.names, thresholds=(None, 0.5)
    )
    found = benched(replace(bundle, policies=(policy,)))
    assert [row.share for row in found.exits] == [0, 0.5, 0.5]
    assert found.exits[0].policy_ms is None
    assert found.exits[0].remark == "no: the policy disables it"
    assert found.exits[0].took.median_ms == pytest.approx(1.0)
    assert "no answers to test samples" in found.mix_from


def test_shares_and_accuracy_are_those_on_the_stored_test_answers(
    folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "bundle"
    shutil.copytree(folder, place)
    policy = ExitPolicy(
        score=find_score("max_softmax"),
        names=open_bundle(place).manifest.facts.names,
        thresholds=(0.24, 0.24),
    )
    samples = np.random.default_rng(5).normal(size=(20, 3, 9, 7)).astype(np.float32)
    with Runtime(place, threads=1) as runtime:
        outputs = runtime.collect((samples, np.arange(20) % 5))
        leaves = [answer.exit for answer in runtime.run_batch(list(samples), policy)]
    with changing(place, BUNDLE) as staged:
        (staged / "outputs").mkdir()
        outputs.save(staged / "outputs/test.npz")
        policy.save(staged / "policy.json")
    found = benched(place)
    assert [row.share for row in found.exits] == [
        pytest.approx(leaves.count(row.name) / 20) for row in found.exits
    ]
    assert [row.value for row in found.exits] == pytest.approx(outputs.correct.mean(axis=1))
    assert "on the 20 test samples" in found.mix_from


def test_static_models_of_the_run_stand_beside_the_exits(folder: Path) -> None:
    bundle = open_bundle(folder)
    whole = sum(bundle.manifest.facts.stage_flops())
    rival = {"name": "5 px", "value": 0.61, "flops": whole // 4, "note": "not retrained"}
    about = {"rivals": [rival], "accuracy": {"one": "50.0", "final": "70.0"}}
    manifest = bundle.manifest.model_copy(update={"about": about})
    found = benched(replace(bundle, manifest=manifest))
    assert found.static[0].estimated_ms == pytest.approx(0.25, rel=0.01)
    assert [row.value for row in found.exits] == [0.5, None, 0.7]
    assert "5 px" in str(found)
    assert "estimated from FLOPs" in str(found)


def test_saved_times_are_those_that_apply_here(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    shutil.copytree(folder, place)
    benched(place, save=True)
    with Runtime(place, threads=1) as runtime:
        assert runtime.known_times is not None
        assert [each.median_ms for each in runtime.known_times.parts] == [pytest.approx(1.0)] * 5
    assert "README.md" in read_folder(place, BUNDLE, ["README.md"]).files


@pytest.mark.slow
def test_cold_starts_are_measured_in_processes_of_their_own(folder: Path) -> None:
    found = benched(folder, cold=True).cold
    assert [(each.exit, each.lazy) for each in found] == [
        (name, lazy) for lazy in (False, True) for name in ("one", "second", "final")
    ]
    assert all(each.open_ms > 0 and each.first_ms > 0 for each in found)


def test_a_bundle_in_memory_has_no_cold_start(folder: Path) -> None:
    found = benched(replace(open_bundle(folder), folder=None), cold=True)
    assert found.cold == ()
    assert "Cold starts were not measured" in found.notes[0]


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"batches": ()}, {"batches": (4, 0)}])
def test_numbers_below_one_are_refused(folder: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(PlanError, match="use 1 or more"):
        benched(folder, **wrong)
