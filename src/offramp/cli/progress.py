"""How the command line shows progress: bars on a terminal, plain lines in a log."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from offramp.cli.streams import alert
from offramp.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console

_NARROW = 60
_STEP, _SHORTEST_S, _LONGEST_S = 0.1, 2.0, 30.0
_REFRESH_S = 0.1


@contextmanager
def progress_on_stderr() -> Iterator[Progress]:
    """Bars if standard error is a terminal that can move its cursor, else lines."""
    from rich.console import Console

    console = Console(stderr=True)
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        with bars_on(console) as progress:
            yield progress
    else:
        yield LogLines(alert)


def is_note(done: int, total: int) -> bool:
    """Whether a piece of work has only one report: a fact, such as a choice that was made."""
    return done == total == 1


class Finished:
    """Finished pieces of work with their sizes; their further reports are not shown."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    def says_nothing(self, name: str, done: int, total: int) -> bool:
        """Whether a report is about no work, or about one that is finished."""
        again = done >= total and self._sizes.get(name) == total
        if done >= total:
            self._sizes[name] = total
        else:
            self._sizes.pop(name, None)
        return again or total == 0


class LogLines:
    """Progress as lines: at the start, after each tenth or half a minute, and at the end of work.

    Lines of quick work are at least two seconds apart.
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._clock = write, clock
        self._works: dict[str, _Work] = {}
        self._finished = Finished()
        self._lock = threading.Lock()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take a report, from any thread."""
        with self._lock:
            name, _, step = what.partition(": ")
            now, work = self._clock(), self._works.get(name)
            if self._finished.says_nothing(name, done, total):
                return
            if work is None and is_note(done, total):
                self._write(what)
            elif work is None:
                self._write(f"{name}: {done}/{total}")
                if done < total:
                    self._works[name] = _Work(now, done, now, done)
            elif done >= total:
                self._write(f"{name}: {done}/{total} in {time_text(now - work.started)}")
                del self._works[name]
            elif work.is_due(now, done, total):
                left = work.seconds_left(now, done, total)
                at = f"{100 * done // total} % ({done}/{total}), {time_text(left)} left"
                self._write(f"{name}: {at}{step and '; '}{step}")
                work.told, work.told_done = now, done


@dataclass
class _Work:
    """Times of the start of some work and of its last line, each with the units done by then."""

    started: float
    started_done: int
    told: float
    told_done: int

    def is_due(self, now: float, done: int, total: int) -> bool:
        """Whether the next line is due."""
        waited = now - self.told
        moved = done - self.told_done >= _STEP * total
        return waited >= _LONGEST_S or (moved and waited >= _SHORTEST_S)

    def seconds_left(self, now: float, done: int, total: int) -> float | None:
        """Seconds left at the pace since the start."""
        made = done - self.started_done
        return (now - self.started) / made * (total - done) if made else None


@contextmanager
def bars_on(console: "Console") -> Iterator[Progress]:
    """A bar for each running piece of work; finished ones stay above as text."""
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    def line(what: str, done: float, total: float, seconds: float | None) -> Text:
        plain = console.options.ascii_only
        text, full, empty, tail = bar_parts(
            what, int(done), int(total), seconds, console.width, plain
        )
        return Text.assemble(text, (full, "bar.complete"), (empty, "bar.back"), tail)

    class Line(ProgressColumn):
        def render(self, task: Task) -> Text:
            return line(task.description, task.completed, task.total or 1, task.time_remaining)

    tasks: dict[str, Any] = {}
    finished = Finished()
    lock = threading.Lock()

    def advance(what: str, done: int, total: int) -> None:
        with lock:
            name = what.partition(": ")[0]
            if finished.says_nothing(name, done, total):
                return
            if name not in tasks and is_note(done, total):
                bars.console.print(Text(what))
                return
            if name not in tasks:
                tasks[name] = bars.add_task(what, total=total, completed=done)
            bars.update(tasks[name], description=what, completed=done, total=total)
            if done >= total:
                task = tasks.pop(name)
                [elapsed] = [each.elapsed for each in bars.tasks if each.id == task]
                bars.remove_task(task)
                bars.console.print(line(name, done, total, elapsed), no_wrap=True)
            refresh()

    # rich's own thread may draw between a line and the bars below it, and then one is overwritten.
    with Bars(Line(), console=console, auto_refresh=False) as bars:
        refresh = _Paced(bars.refresh)
        yield advance


class _Paced:
    """Calls a function, but at most ten times a second."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function, self._last = function, -_REFRESH_S

    def __call__(self) -> None:
        if time.monotonic() - self._last >= _REFRESH_S:
            self._function()
            self._last = time.monotonic()


def bar_parts(
    what: str, done: int, total: int, seconds: float | None, width: int, ascii_only: bool
) -> tuple[str, str, str, str]:
    """Description, full and empty part of the bar, then count and time: one line in all.

    The line leaves the last column free, where some terminals would wrap it.
    """
    tail = f"{_short(done)}/{_short(total)} {time_text(seconds)}"
    bar = 6
    if width >= _NARROW:
        tail, bar = f"{_short(done)}/{_short(total):<6} {time_text(seconds):>7}".rjust(21), 20
    room = max(width - 1 - bar - len(tail) - 2, 1)
    full = min(int(bar * done / total), bar) if total else bar
    mark, rest = ("#", "-") if ascii_only else ("━", "─")
    text = shortened(what, room, "..." if ascii_only else "…")
    return f"{text:<{room}} ", mark * full, rest * (bar - full), f" {tail}"


def shortened(text: str, width: int, gap: str = "…") -> str:
    """The text, shortened in the middle if it is longer than this width."""
    if len(text) <= width:
        return text
    if width <= len(gap):
        return text[:width]
    left = (width - len(gap)) // 2
    return text[:left] + gap + text[len(text) - (width - len(gap) - left) :]


def time_text(seconds: float | None) -> str:
    """As 0:07, 12:07 or 3:12:07; an unknown time as -:--."""
    if seconds is None:
        return "-:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _short(number: int) -> str:
    if number < 100_000:
        return str(number)
    return f"{number / 1e3:.0f}k" if number < 10_000_000 else f"{number / 1e6:.1f}M"
