"""How the command line shows progress on terminals of 80 and 40 columns, and in a log."""

import io
import re
import sys
from collections.abc import Callable

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from offramp.cli.progress import LogLines, bar_parts, bars_on, progress_on_stderr, shortened
from offramp.progress import Progress

WHY = (
    "training fused: the taps would take 2.31 GB on disk, but only 0.9 GB is allowed, so each "
    "batch runs through the backbone again"
)
STEP = "training 18 branches: layer2.0.conv1 slvit(patch=4, dim=32) seed 2, epoch 7/15"


def running(progress: Progress) -> None:
    """What a run reports until it stands in the middle of training."""
    progress("reading images", 0, 960)
    progress("reading images", 960, 960)
    progress(WHY, 1, 1)
    progress("statistics of the taps of train data", 0, 60_000)
    progress("statistics of the taps of train data", 30_000, 60_000)
    progress(STEP, 7_290_000, 16_200_000)


def screen_of(columns: int, report: Callable[[Progress], None]) -> list[str]:
    """The lines of a terminal once this was reported."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=columns)
    with bars_on(console) as progress:
        report(progress)
    screen = pyte.Screen(columns, 24)
    screen.set_mode(pyte.modes.LNM)  # a terminal's driver adds the carriage returns
    pyte.Stream(screen).feed(file.getvalue())
    return [line.rstrip() for line in screen.display if line.strip()]


def log_of(*reports: tuple[float, str, int, int]) -> list[str]:
    """The lines of a log, where each report comes at a second of its own."""
    lines: list[str] = []
    seconds = [0.0]
    log = LogLines(lines.append, lambda: seconds[0])
    for at, what, done, total in reports:
        seconds[0] = at
        log(what, done, total)
    return lines


@pytest.mark.parametrize("columns", [80, 40])
def test_a_running_bar_keeps_description_bar_count_and_time(columns: int) -> None:
    lines = screen_of(columns, running)
    parts = re.compile(r"(stat|train)\S*.*(in data|7/15) ━+─+ +\d+k?/[\d.]+M? +-:--")
    assert all(parts.fullmatch(line) for line in lines[-2:])


@pytest.mark.parametrize("columns", [80, 40])
def test_the_reason_of_a_choice_is_shown_in_full(columns: int) -> None:
    assert WHY in " ".join(screen_of(columns, running))


def test_finished_work_stays_above_the_bars_as_one_line() -> None:
    def report(progress: Progress) -> None:
        progress("taps of train data", 0, 7)
        for number in range(30):  # more than the terminal has lines
            progress(f"answers on part {number}", 0, 3)
            progress(f"answers on part {number}", 3, 3)
        progress("taps of train data", 2, 7)

    lines = screen_of(80, report)
    assert [line.split("━")[0].strip() for line in lines[-3:]] == [
        "answers on part 28",
        "answers on part 29",
        "taps of train data",
    ]


@given(
    st.text("abc déf", min_size=1, max_size=90),
    st.integers(0, 10**9),
    st.integers(1, 10**9),
    st.one_of(st.none(), st.floats(0, 10**6)),
    st.integers(40, 200),
    st.booleans(),
)
def test_a_bar_is_one_line_at_any_width(
    what: str, done: int, total: int, seconds: float | None, width: int, ascii_only: bool
) -> None:
    parts = bar_parts(what, min(done, total), total, seconds, width, ascii_only)
    assert len("".join(parts)) == width - 1
    assert parts[1] + parts[2]


def test_a_terminal_without_unicode_gets_a_bar_of_ascii() -> None:
    assert "".join(bar_parts("taps of the data " * 9, 1, 2, 9.0, 60, ascii_only=True)).isascii()


def test_a_long_description_is_shortened_in_the_middle() -> None:
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghij", 7) == "abc…hij"
    assert shortened("abcdefghij", 4, "...") == "...j"


def test_a_log_has_a_line_at_the_start_each_tenth_and_the_end() -> None:
    lines = log_of(
        (0, "taps", 0, 200),
        (10, "taps", 19, 200),
        (11, "taps", 20, 200),
        (12, "taps", 39, 200),
        (13, "taps", 40, 200),
        (100, "taps", 200, 200),
    )
    assert lines == [
        "taps: 0/200",
        "taps: 10 % (20/200), 1:39 left",
        "taps: 20 % (40/200), 0:52 left",
        "taps: 200/200 in 1:40",
    ]


def test_a_log_of_slow_work_has_a_line_each_half_minute() -> None:
    lines = log_of((0, "taps", 0, 900), *((at, "taps", at, 900) for at in range(1, 62)))
    assert [line.split(" %")[0] for line in lines[1:]] == ["taps: 3", "taps: 6"]


def test_a_log_of_quick_work_has_two_lines() -> None:
    assert len(log_of(*((at / 1000, "taps", at, 90) for at in range(91)))) == 2


def test_a_log_keeps_one_work_through_its_steps() -> None:
    lines = log_of(
        (0, "training 2 branches: a, epoch 1/2", 0, 10),
        (40, "training 2 branches: b, epoch 2/2", 8, 10),
        (50, "training 2 branches: b, done", 10, 10),
    )
    assert lines == [
        "training 2 branches: 0/10",
        "training 2 branches: 80 % (8/10), 0:10 left; b, epoch 2/2",
        "training 2 branches: 10/10 in 0:50",
    ]


def test_work_that_is_reported_as_done_twice_is_one_line() -> None:
    step = "training 2 branches: a, done"

    def report(progress: Progress) -> None:
        for _ in range(3):
            progress(step, 8, 8)

    assert log_of(*[(9, step, 8, 8)] * 3) == ["training 2 branches: 8/8"]
    assert len(screen_of(80, report)) == 1


def test_work_of_the_same_name_may_start_again() -> None:
    lines = log_of((0, "taps", 0, 8), (1, "taps", 8, 8), (2, "taps", 0, 8), (3, "taps", 8, 8))
    assert lines == ["taps: 0/8", "taps: 8/8 in 0:01"] * 2


def test_nothing_to_do_is_not_shown() -> None:
    assert log_of((0, "checking files", 0, 0)) == []


def test_a_fact_is_a_line_of_a_log_in_full() -> None:
    assert log_of((0, WHY, 1, 1)) == [WHY]


def test_resumed_work_counts_its_pace_from_where_it_started() -> None:
    lines = log_of((0, "taps", 80, 100), (30, "taps", 90, 100))
    assert lines == ["taps: 80/100", "taps: 90 % (90/100), 0:30 left"]


def test_output_that_is_not_a_terminal_gets_lines_without_control_codes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as some services for continuous integration set it
    with progress_on_stderr() as progress:
        running(progress)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "\x1b" not in printed.err
    assert WHY in printed.err.splitlines()


def test_a_log_that_cannot_be_written_stops_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    with progress_on_stderr() as progress:
        progress("taps", 0, 3)
