from itertools import product

import numpy as np
import pytest
from promises.best import Levels, best, certifiable, grid, within
from promises.pool import Pool, Thresholds, oracle_saving
from promises.populations import SIMULATED, STAIRS, exits_of, graded, stairs

from offramp.policy import SCORES, ExitPolicy


def small(rows: int = 300, abilities: tuple[float, ...] = (1.0, 1.6, 2.2), seed: int = 3) -> Pool:
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=rows)
    return Pool("small", exits_of(graded(labels, abilities, rng), labels))


@pytest.mark.parametrize("thresholds", [(0.7, 0.9), (None, 0.5), (0.8, None), (None, None)])
def test_a_policy_is_judged_as_it_would_answer(thresholds: Thresholds) -> None:
    pool = small()
    outputs = pool.outputs
    policy = ExitPolicy(
        score=SCORES["max_softmax"], thresholds=thresholds, names=tuple(outputs.names)
    )
    judged = pool.judge(thresholds)
    right = policy.answers(outputs).argmax(axis=1) == outputs.labels
    assert judged.drop == pytest.approx(outputs.correct[-1].mean() - right.mean())
    assert judged.unequal == np.mean(outputs.correct[-1] != right)
    whole = outputs.stage_flops.sum()
    assert judged.saved == pytest.approx(1 - policy.cost(outputs).mean() / whole)


def test_all_levels_together_are_judged_like_single_policies() -> None:
    pool = small(abilities=(1.0, 1.3, 1.6, 2.2))
    levels = Levels(pool, [np.quantile(scores, [0.1, 0.5, 0.8]) for scores in pool.scores])
    rest: Thresholds = (None, 0.85, None)
    found = grid(pool, rest, (0, 2), levels)
    for i, j in product(range(3), repeat=2):
        judged = pool.judge((float(levels.values[0][i]), 0.85, float(levels.values[2][j])))
        assert found[:, i, j] == pytest.approx([judged.drop, judged.unequal, judged.saved])
    kept = pool.judge(rest)
    assert grid(pool, rest, (), levels) == pytest.approx([kept.drop, kept.unequal, kept.saved])


def test_the_best_policy_is_at_least_as_good_as_all_of_a_coarse_grid() -> None:
    pool = small(abilities=(1.4, 1.6, 1.9, 2.2))
    values: list[list[float | None]] = [
        [None, *np.quantile(scores, np.linspace(0, 1, 9)).tolist()] for scores in pool.scores
    ]
    for limit in (within(0.02), certifiable(0.1, 0.05, 500)):
        found = best(pool, limit)
        assert found is not None
        judged = found.judged
        assert limit(np.array(judged.drop), np.array(judged.unequal))
        others = [pool.judge(each) for each in product(*values)]
        kept = [o.saved for o in others if limit(np.array(o.drop), np.array(o.unequal))]
        assert judged.saved >= max(kept) - 0.003


def test_an_exit_that_only_guesses_leaves_nothing_to_save() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=400)
    logits = graded(labels, (0.0, 3.0), rng)
    logits[0] = np.where(np.arange(4) == (labels[:, None] + 1) % 4, 9.0, 0.0)
    assert best(Pool("guesses", exits_of(logits, labels)), within(0.002)) is None


def test_the_oracle_saves_what_the_best_of_all_choices_saves() -> None:
    pool = small(rows=6, abilities=(0.6, 0.9, 1.2), seed=5)
    stages, branches = (np.asarray(costs, float) for costs in pool.outputs.costs())
    saving = 1 - (np.cumsum(stages) + branches) / stages.sum()
    at = np.arange(6)
    for max_drop in (0.0, 0.17, 0.4):
        choices = np.array(list(product(range(3), repeat=6)))
        allowed = pool.losses[choices, at].mean(axis=1) <= max_drop + 1e-9
        most = saving[choices[allowed]].mean(axis=1).max()
        assert oracle_saving(pool, max_drop) == pytest.approx(most)


def test_each_step_of_the_stairs_has_its_known_drop_and_passes_a_limit_by_a_hair() -> None:
    pool = Pool("stairs", stairs(50_000, np.random.default_rng(0)))
    steps = np.unique(pool.scores[0])[::-1]
    drops = [pool.judge((float(score),)).drop for score in steps[: len(STAIRS)]]
    assert drops == pytest.approx([drop for drop, _ in STAIRS], abs=1e-12)
    for limit in (0.005, 0.01, 0.02):
        assert any(limit < drop < limit + 1e-4 for drop in drops)


@pytest.mark.parametrize("name", SIMULATED)
def test_the_same_seed_gives_the_same_population_and_its_last_exit_is_best(name: str) -> None:
    one, two = (SIMULATED[name](2000, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(one.outputs, two.outputs)
    right = one.correct.mean(axis=1)
    assert right[-1] == right.max()


@pytest.mark.parametrize("name", ["clusters of 1 to 20", "equal ids"])
def test_whole_clusters_are_drawn_and_one_drawn_twice_is_two(name: str) -> None:
    pool = Pool(name, SIMULATED[name](700, np.random.default_rng(1)))
    drawn = pool.draw(1400, np.random.default_rng(0))
    assert pool.clusters is not None
    assert drawn.clusters is not None
    assert set(np.bincount(drawn.clusters)) <= set(np.bincount(pool.clusters))
    assert 1000 < len(drawn) < 1800


def test_a_drawn_set_repeats_rows_and_keeps_the_costs() -> None:
    pool = small()
    drawn = pool.drawn(np.array([5, 5, 7]))
    assert np.array_equal(drawn.outputs.outputs, pool.outputs.outputs[:, [5, 5, 7]])
    assert np.array_equal(drawn.losses, pool.losses[:, [5, 5, 7]])
    assert drawn.saving((0.5, None)) == pytest.approx(pool.saving((0.5, None)))
