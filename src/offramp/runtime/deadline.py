"""Deadline: the best answer that there is in time, from a worker that the caller waits for."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TimedOut
from threading import Lock

from offramp.errors import DeadlineError
from offramp.policy.decision import by_deadline
from offramp.runtime.engines import Stop, Stopped
from offramp.runtime.path import Path, Reached

_MOST_WORKERS = 64


def go_on(path: Path, left_ms: float) -> bool:
    """Whether a later exit is expected to answer within `left_ms` milliseconds."""
    _, expected = path.needed_ms()
    return by_deadline(len(expected) - 1, expected, left_ms) >= 0


def asks(path: Path, left_ms: float, *, answered: bool) -> bool:
    """Whether to ask the exit after the stage that ran last.

    It is asked if the policy asks it, if there is no answer so far, or if no later exit can answer
    in time; and otherwise, as a reserve, if the last exit that can be reached stays in reach.
    """
    exit = path.exit
    if exit is None:
        return False
    if path.runs_branch(exit) or not answered:
        return True
    _, expected = path.needed_ms()
    target = by_deadline(len(expected) - 1, expected, left_ms)
    own = path.branch_ms(exit)
    if target < 0:
        return own <= left_ms
    return expected[target] + own <= left_ms


class Attempt:
    """One sample that is being answered by a deadline.

    Args:
        path: Its way through the stages.
        due: When the answer has to leave, by the clock.
        clock: In seconds.
        stop: That of the path.
    """

    def __init__(self, path: Path, due: float, clock: Callable[[], float], stop: Stop) -> None:
        self.path, self.stop = path, stop
        self._due, self._clock = due, clock
        self.reached: Reached | None = None

    @property
    def left_ms(self) -> float:
        """Milliseconds until the deadline."""
        return 1000 * (self._due - self._clock())

    def run(self) -> None:
        """Run stages until an exit fires, the network ends, or no later exit answers in time."""
        try:
            while not self.path.ended and not self.stop.requested:
                if not go_on(self.path, self.left_ms):
                    self.path.doubt_next()
                    return
                self.path.run_stage()
                if asks(self.path, self.left_ms, answered=self.reached is not None):
                    self.reached = self.path.ask()
                    if self.reached.fired:
                        return
        except Stopped:
            return


class Workers:
    """Threads that answer by deadlines; a caller waits for one until the deadline at most."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MOST_WORKERS, thread_name_prefix="offramp")
        self._lock = Lock()
        self._running: set[Attempt] = set()

    def answer(self, attempt: Attempt) -> Reached:
        """The best answer at the deadline, or before it if the policy is satisfied.

        Raises:
            DeadlineError: The deadline is shorter than the first exit needs.
        """
        first, needed = _first_exit(attempt.path)
        if attempt.left_ms < needed:
            attempt.path.doubt_next()
            raise DeadlineError(
                f"the first exit, {first!r}, is expected to need {needed:.3g} ms here, and "
                f"{max(0.0, attempt.left_ms):.3g} ms are left before the deadline. Allow more "
                "time, or cut the network earlier."
            )
        future = self._start(attempt)
        try:
            future.result(timeout=max(0.0, attempt.left_ms / 1000))
        except TimedOut:
            attempt.stop.request()
        found = attempt.reached
        if found is None:
            raise DeadlineError(
                f"no exit had answered at the deadline: the first one, {first!r}, took longer than "
                f"the {needed:.3g} ms that it was expected to need. Allow more time."
            )
        return found

    def _start(self, attempt: Attempt) -> "Future[None]":
        with self._lock:
            self._running.add(attempt)
        future = self._pool.submit(attempt.run)
        future.add_done_callback(lambda _: self._forget(attempt))
        return future

    def _forget(self, attempt: Attempt) -> None:
        with self._lock:
            self._running.discard(attempt)

    def close(self) -> None:
        """Stop what runs, and wait until it has stopped."""
        with self._lock:
            running = list(self._running)
        for attempt in running:
            attempt.stop.request()
        self._pool.shutdown(wait=True)


def _first_exit(path: Path) -> tuple[str, float]:
    """The exit that answers soonest, and what it is expected to need."""
    ahead, expected = path.needed_ms()
    return path.policy.names[ahead[0]], expected[0]
