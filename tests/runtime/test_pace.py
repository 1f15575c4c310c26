from offramp.runtime.pace import DOUBTED, WINDOW, Pace


def test_a_graph_is_expected_to_take_as_long_as_nearly_all_of_its_latest_runs() -> None:
    pace = Pace({"a": 5.0})
    assert (pace.expected_ms("a"), pace.expected_ms("unknown")) == (5.0, 0.0)
    for ms in range(1, 21):
        pace.add("a", float(ms))
    assert pace.expected_ms("a") == 19.0
    for _ in range(WINDOW):
        pace.add("a", 2.0)
    assert pace.expected_ms("a") == 2.0


def test_one_slow_run_in_many_does_not_change_what_is_expected() -> None:
    pace = Pace({})
    for ms in [1.0] * 40 + [900.0]:
        pace.add("a", ms)
    assert pace.expected_ms("a") == 1.0


def test_a_graph_that_is_never_started_is_tried_again_after_some_decisions_against_it() -> None:
    pace = Pace({"a": 3.0})
    for _ in range(15):
        pace.add("a", 80.0)
    for _ in range(DOUBTED * 4 - 1):
        pace.doubt("a")
    assert pace.expected_ms("a") == 80.0
    pace.doubt("a")
    assert pace.expected_ms("a") == 3.0
    pace.doubt("unknown")
