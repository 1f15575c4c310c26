"""Verdicts on hand-written times."""

import pytest

from offramp.runtime.bench.verdict import judged

NAMES = ["one", "two", "final"]


def test_exits_pay_where_leaving_early_saves_more_than_branches_cost() -> None:
    # Stages up to the exits 2, 5 and 10 ms; branches 1 ms each.
    found = judged(NAMES, [3, 6, 10], [3, 7, 12], [0.5, 0.3, 0.2], one_graph_ms=9.5)
    assert found.pays
    assert found.kept == ("one", "two")
    assert found.reasons == {}
    assert found.mean_ms == found.kept_ms == pytest.approx(0.5 * 3 + 0.3 * 7 + 0.2 * 12)
    assert found.sentence == (
        "exits pay here: an answer takes 6 ms on average, 37 % less than the whole network as one "
        "graph, which takes 9.5 ms"
    )


def test_an_exit_whose_branch_costs_more_than_it_saves_is_left_out() -> None:
    # The second branch takes 4 ms, and a tenth of the samples would leave there.
    found = judged(NAMES, [3, 9, 10], [3, 10, 15], [0.6, 0.1, 0.3])
    assert found.pays
    assert found.kept == ("one",)
    assert found.reasons == {"two": "its branch costs more time than it saves"}
    assert found.kept_ms == pytest.approx(0.6 * 3 + 0.4 * 11)
    assert "if two is left out" in found.sentence
    assert "(7.3 ms with all exits)" in found.sentence


def test_an_exit_that_is_as_slow_as_a_later_one_is_left_out() -> None:
    found = judged(NAMES, [6, 5, 20], [6, 9, 25], [0.5, 0.4, 0.1])
    assert found.kept == ("two",)
    assert found.reasons == {"one": "a later exit is not slower"}


def test_an_exit_where_no_sample_leaves_is_left_out() -> None:
    found = judged(NAMES, [3, 6, 10], [3, 7, 12], [0.7, 0.0, 0.3])
    assert found.reasons == {"two": "no sample leaves there"}


def test_exits_do_not_pay_where_branches_cost_more_than_they_save() -> None:
    found = judged(NAMES, [5, 8, 10], [5, 11, 16], [0.3, 0.3, 0.4])
    assert not found.pays
    assert found.kept == ()
    assert found.sentence.startswith(
        "exits do not pay here because the branches cost more than they save: 5.1 ms for an answer"
    )


def test_exits_do_not_pay_where_the_stages_are_slower_than_the_whole() -> None:
    found = judged(NAMES, [3, 6, 10], [3, 7, 12], [0.5, 0.3, 0.2], one_graph_ms=5)
    assert not found.pays
    assert found.sentence == (
        "exits do not pay here because the stages are slower than the whole: 10 ms in turn, 5 ms "
        "as one graph, and exits save 4 ms"
    )


def test_exits_do_not_pay_where_samples_leave_too_late() -> None:
    found = judged(NAMES, [3, 6, 10], [3, 7, 12], [0, 0, 1])
    assert "because samples leave too late" in found.sentence


def test_a_gain_within_the_noise_is_none() -> None:
    found = judged(["one", "final"], [8.0, 10.0], [8.0, 10.0], [0.05, 0.95])
    assert not found.pays


@pytest.mark.parametrize("one_graph_ms", [None, 11.0])
def test_the_whole_network_counts_in_its_fastest_form(one_graph_ms: float | None) -> None:
    found = judged(NAMES, [3, 6, 10], [3, 7, 12], [0.5, 0.3, 0.2], one_graph_ms)
    assert found.whole_ms == 10
    assert "the whole network stage by stage, which takes 10 ms" in found.sentence
