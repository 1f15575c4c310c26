"""Pace: how long each graph is expected to take here, learned from how long it took."""

from bisect import insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

QUANTILE = 0.95
"""Share of the runs that are expected to be no slower than expected."""
WINDOW = 64
"""Runs of each graph that count."""
DOUBTED = 10
"""Decisions against a graph after which its slowest runs are forgotten."""


@dataclass
class _Seen:
    """Latest runs of one graph, in order of time and of duration."""

    latest: deque[float] = field(default_factory=deque)
    ordered: list[float] = field(default_factory=list)
    doubts: int = 0


class Pace:
    """Expected milliseconds of graphs; several threads may use it.

    What is expected is a high quantile of the latest runs. A graph that is never started, since it
    is expected to be too slow, would never show that it has become faster; so after some decisions
    against it the slower half of its runs is forgotten, until it is tried again.

    Args:
        first_ms: What each graph is expected to take before it has run, by file.
    """

    def __init__(self, first_ms: Mapping[str, float]) -> None:
        self._lock = Lock()
        self._seen: dict[str, _Seen] = {}
        for file, ms in first_ms.items():
            self.add(file, ms)

    def add(self, file: str, ms: float) -> None:
        """Count a run."""
        with self._lock:
            seen = self._seen.setdefault(file, _Seen())
            if len(seen.latest) == WINDOW:
                seen.ordered.remove(seen.latest.popleft())
            seen.latest.append(ms)
            insort(seen.ordered, ms)
            seen.doubts = 0

    def expected_ms(self, file: str) -> float:
        """What the next run is expected to take; 0 for a graph that nothing is known of."""
        with self._lock:
            seen = self._seen.get(file)
            if seen is None:
                return 0.0
            return seen.ordered[min(len(seen.ordered) - 1, int(QUANTILE * len(seen.ordered)))]

    def doubt(self, file: str) -> None:
        """Count a decision not to start a graph, because it is expected to take too long."""
        with self._lock:
            seen = self._seen.get(file)
            if seen is None:
                return
            seen.doubts += 1
            if seen.doubts >= DOUBTED and len(seen.ordered) > 1:
                kept = seen.ordered[: (len(seen.ordered) + 1) // 2]
                seen.latest, seen.ordered, seen.doubts = deque(kept), kept, 0
