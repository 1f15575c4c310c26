"""What the error says where samples are in clusters and nothing can be certified."""

from contextlib import suppress

import numpy as np
import pytest

from offramp.calibration.calibrate import calibrate, calibration_of
from offramp.errors import DataError, NoPolicyError
from offramp.outputs import ExitOutputs

ROLES = ["order", "order", "order", "test"]


def recorded(clusters: int, each: int, *, seed: int = 0, gain: float = 2.0) -> ExitOutputs:
    """Exits of which the later are right more often, on so many samples of each cluster."""
    random, num = np.random.default_rng(seed), clusters * each
    labels = random.integers(0, 4, num)
    outputs = random.normal(size=(3, num, 4))
    for exit, more in enumerate((gain, 3, 5)):
        outputs[exit, np.arange(num), labels] += more
    return ExitOutputs(
        outputs=outputs.astype(np.float32),
        labels=labels,
        stage_flops=np.array([10, 10, 20]),
        branch_flops=np.array([1, 1, 0]),
        clusters=np.repeat(np.arange(clusters), each),
    )


def declined(outputs: ExitOutputs, max_drop: float = 0.3, **settings: object) -> NoPolicyError:
    with pytest.raises(NoPolicyError) as caught:
        calibrate(outputs, max_drop=max_drop, **settings)  # type: ignore[call-overload]
    return caught.value


def test_the_number_needed_is_one_of_clusters_whatever_their_size() -> None:
    few, many = declined(recorded(4, 20)), declined(recorded(4, 450))
    number = few.num_clusters_needed
    assert number == many.num_clusters_needed == 20
    assert (few.num_samples_needed, many.num_samples_needed) == (20 * 20, 20 * 450)
    assert "using 1 of 4 clusters (450 of 1800 calibration samples) to test" in str(many)
    assert (
        "An estimated 20 calibration clusters of about 450 samples each would certify it with 80 % "
        "probability. Collect samples of more sources (more samples of the same ones hardly help)"
    ) in str(many)


def test_about_the_stated_number_of_clusters_certifies() -> None:
    number = declined(recorded(4, 20), 0.1).num_clusters_needed
    assert number is not None
    issued = {number: 0, number // 2: 0}
    for seed in range(10):
        for clusters in issued:
            with suppress(NoPolicyError):
                calibrate(recorded(clusters, 20, seed=seed), max_drop=0.1, seed=seed)
                issued[clusters] += 1
    assert issued[number] >= 8
    assert issued[number // 2] == 0


@pytest.mark.parametrize("seed", range(12))
def test_no_draw_of_roles_asks_for_fewer_clusters_than_are_needed_without_a_loss(seed: int) -> None:
    outputs = recorded(8, 20, seed=seed, gain=5)
    number = declined(outputs, 0.05, seed=seed).num_clusters_needed
    assert number is None or number >= 96


def test_samples_that_share_none_are_counted_one_by_one() -> None:
    outputs = recorded(80, 1)
    error = declined(outputs, 0.01)
    assert error.num_clusters_needed is None
    assert f"An estimated {error.num_samples_needed:,} calibration samples would" in str(error)
    assert "Collect more samples, or relax" in str(error)
    assert "cluster" not in str(error)


def test_a_single_cluster_is_named_in_the_singular() -> None:
    split = np.repeat(ROLES, 20)
    groups = np.repeat(["day", "day", "dusk", "dusk"], 20)
    outputs = recorded(4, 20)
    grouped = ExitOutputs(
        **{n: getattr(outputs, n) for n in ("outputs", "labels", "stage_flops", "branch_flops")},
        clusters=outputs.clusters,
        groups=groups,
    )
    assert "in group day (0 test clusters)" in str(
        declined(grouped, 0.3, split=split, within="group")
    )
    split = np.repeat(["order", "test", "order", "test"], 20)
    assert "(1 test cluster)" in str(declined(grouped, 0.3, split=split, within="group"))


def test_where_nothing_orders_the_candidates_a_number_of_clusters_is_advised() -> None:
    outputs = recorded(4, 20)
    unlucky = next(
        seed for seed in range(99) if (np.random.default_rng(seed).random(4) > 0.3).all()
    )
    error = declined(outputs, 0.3, seed=unlucky)
    assert "on the 0 samples in 0 clusters that order the candidates. Calibrate" in str(error)
    assert "on at least 20 calibration clusters of about 20 samples each." in str(error)
    assert error.num_clusters_needed == 20


def test_the_evidence_says_in_how_many_clusters_the_promise_rests() -> None:
    found = calibration_of(recorded(30, 20), max_drop=0.3)
    promise = found.policy.promise
    assert promise is not None
    assert f"rests on these {promise.num_samples}, in {promise.num_clusters} clusters." in str(
        found
    )


def test_temperatures_need_clusters_of_their_own() -> None:
    unlucky = next(
        seed for seed in range(99) if (np.random.default_rng(seed).random(4) > 0.15).all()
    )
    with pytest.raises(DataError, match=r"15 % of the clusters.*none of these 4 was drawn"):
        calibrate(recorded(4, 20), max_drop=0.3, temperature=True, seed=unlucky)
